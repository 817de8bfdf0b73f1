"""Help, versions, and how everything that goes wrong is said."""

import re
import subprocess
import sys

import pytest

from tests.commands import TYPED, imported_by, tsds, typed
from tsds_pipeline.cli import refresh as refresh_module
from tsds_pipeline.cli import terminal

COMMANDS = [
    "demo",
    "init",
    "refresh",
    "status",
    "show",
    "compare",
    "calibrate",
    "sql",
    "redraw",
    "backfill",
    "gc",
    "doctor",
    "metrics",
    "alerts",
    "dev",
    "select",
]


def test_without_arguments_it_says_what_it_can():
    result = tsds()
    assert result.exit_code == 0
    listed, epilog = result.output.partition("Commands:\n")[2].split("\n\n")
    assert [line.split()[0] for line in listed.splitlines()] == COMMANDS
    assert "tsds init DIR" in epilog


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_by_an_example(command):
    result = tsds(command, "--help")
    assert result.exit_code == 0
    assert f"\n      tsds {command}" in result.output


def test_version():
    assert tsds("--version").output == "tsds 0.1.0\n"


def test_help_imports_nothing_slow():
    slow = {"dagster", "faiss", "numpy", "polars", "pydantic", "rich", "torch"}
    assert not slow & imported_by("--help")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shwo"], "No such command 'shwo'"),
        (["refresh", "--bogus"], "No such option"),
        (["show"], "Missing argument 'TASK' (see `tsds show --help`)"),
        (["select", "--size", "0"], "Invalid value for '--size'"),
    ],
)
def test_what_is_not_understood(arguments, message):
    result = tsds(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_project(tmp_path):
    for arguments in (
        ["-p", tmp_path, "status"],
        ["refresh", "-p", tmp_path],
        ["show", "t0", "-p", tmp_path],
    ):
        result = tsds(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"error: {tmp_path}: not a tsds project")
        assert not result.stdout


def test_the_project_of_the_environment(tmp_path):
    assert f"TSDS_PROJECT={tmp_path}" in tsds("status", TSDS_PROJECT=str(tmp_path)).stderr


def test_every_problem_of_the_settings_on_its_line(done):
    (done / "tsds.toml").write_text("[selection]\nsize = -1\nalpah = 1\n")
    result = tsds("-p", done, "status")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first.startswith("error: tsds.toml")
    assert second.startswith("  ")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (
            KeyError("x"),
            1,
            "error: KeyError: 'x' (this is a defect of tsds; TSDS_DEBUG=1 shows where it happened)",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted; nothing that was complete is lost"),
        (PermissionError(13, "Permission denied", "/a/b"), 1, "error: /a/b: Permission denied"),
    ],
)
def test_what_nobody_expected(done, monkeypatch, error, status, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(refresh_module, "run_refresh", fail)
    result = tsds("-p", done, "refresh")
    assert result.exit_code == status
    assert result.stderr.strip().startswith(message)
    assert "Traceback" not in result.output
    assert ("Traceback" in tsds("-p", done, "refresh", TSDS_DEBUG="1").output) is (status == 1)


def test_what_goes_wrong_while_ctrl_c_ends_it_is_no_news(done, monkeypatch):
    def fail(*_, **__):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("the run could not be told of")

    monkeypatch.setattr(refresh_module, "run_refresh", fail)
    result = tsds("-p", done, "refresh")
    assert result.exit_code == 130
    assert "interrupted; nothing that was complete is lost" in result.stderr
    assert "told of" not in result.stderr


def test_a_reader_that_leaves(done_once):
    process = subprocess.Popen(
        [TYPED, "-p", str(done_once), "show", "t0", "--query", "all"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(60)


THREAD = "threading.Thread(target=lambda: time.sleep(0.5) or print('a thread')).start()"


@pytest.mark.parametrize(("beside", "more"), [("", ""), (THREAD, "a thread\n")])
def test_a_process_ends_when_all_is_done(beside, more):
    code = f"""
import atexit, threading, time
from tsds_pipeline.cli.process import run
atexit.register(print, "the end")
{beside}
run()
"""
    command = [sys.executable, "-c", code, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(rf"tsds \S+\n{more}the end\n", done.stdout)


def test_a_terminal_that_knows_no_blocks(done_once):
    result = typed("-p", done_once, "show", "t0", PYTHONIOENCODING="latin-1", COLUMNS="60")
    assert result.returncode == 0
    assert not result.stderr


def test_data_cannot_reach_the_terminal():
    hostile = "a\x1b[31mred\x1b]0;title\x07 \x9b2Jb\r\nnew\tline\u202e\ud800 [bold]x[/bold]"
    assert terminal.one_line(hostile) == "ared b new line [bold]x[/bold]"


def test_cut_counts_columns():
    assert terminal.cut("abcdef", 6) == "abcdef"
    assert terminal.cut("abcdefg", 6) == "abcde…"
    assert terminal.cut("日本語日本語", 6) == "日本…"
    assert terminal.cut("anything", 0) == "…"
