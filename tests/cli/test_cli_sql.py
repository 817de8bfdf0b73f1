"""`tsds sql`: queries, formats, and the prompt."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from tests.commands import ENDLESS, TYPED, tsds, typed
from tests.projects import make_project


def test_a_query_as_a_table(done_once):
    result = tsds(
        "-p", done_once, "sql", "SELECT source, candidates, NULL AS nothing FROM pool_summary ORDER BY 1"
    )
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["source", "candidates", "nothing"],
        ["s0", "30", "NULL"],
        ["s1", "30", "NULL"],
        ["2", "rows"],
    ]


def test_numbers_stand_right_and_what_is_wide_is_cut(done_once):
    query = "SELECT 'x' AS a, repeat('long ', 99) AS b, 1.5 AS c UNION ALL SELECT 'x', 'y', 22.123456789 ORDER BY 3"
    lines = tsds("-p", done_once, "sql", query, COLUMNS="60").stdout.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[1].endswith("…      1.5")
    assert lines[2].endswith("22.1235")
    query = f"SELECT {', '.join(f'{i} AS column_{i}' for i in range(20))}"
    lines = tsds("-p", done_once, "sql", query, COLUMNS="70").stdout.splitlines()
    assert max(map(len, lines[:2])) <= 70
    assert lines[2].startswith("no place for column_7, ")


def test_escape_sequences_in_data_do_nothing(done_once):
    result = tsds("-p", done_once, "sql", "SELECT 'a' || chr(27) || '[31mb' || chr(10) || 'c' AS x")
    assert result.stdout.splitlines()[1].strip() == "ab c"


def test_csv_and_json(done_once):
    query = (
        "SELECT 'a, \"b\"' AS text, 0.5 AS x, NULL AS n, true AS b, [1, 2] AS l, {'k': DATE '2026-01-02'} AS s, "
        "'nan'::DOUBLE AS nan"
    )
    result = tsds("-p", done_once, "sql", "--format", "csv", query)
    assert result.stdout == (
        'text,x,n,b,l,s,nan\n"a, ""b""",0.5,,true,"[1, 2]","{""k"": ""2026-01-02""}",nan\n'
    )
    document = json.loads(tsds("-p", done_once, "sql", "--format", "json", query).stdout)
    assert document == [
        {"text": 'a, "b"', "x": 0.5, "n": None, "b": True, "l": [1, 2], "s": {"k": "2026-01-02"}, "nan": None}
    ]
    assert (
        json.loads(tsds("-p", done_once, "sql", "--format", "json", "SELECT 1 AS a WHERE false").stdout) == []
    )
    rows = json.loads(tsds("-p", done_once, "sql", "--format", "json", "FROM stg_candidates").stdout)
    assert len(rows) == 60
    assert (
        len(tsds("-p", done_once, "sql", "--format", "csv", "FROM range(2500)").stdout.splitlines()) == 2501
    )
    assert "the first 1,000 rows" in tsds("-p", done_once, "sql", "FROM range(2500)").stdout


def test_a_query_is_read_from_a_pipe(done_once):
    command = [TYPED, "-p", str(done_once), "sql", "--format", "csv"]
    text = "SELECT 1 AS a;\n-- and\nSELECT 'ü' AS b;"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert done.stdout == "a\n1\nb\nü\n"


def test_whoever_reads_may_stop(done_once):
    command = [TYPED, "-p", str(done_once), "sql", "--format", "csv", "FROM range(1000000)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "range\n"
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1\nFROM nope", "error: query:2: Catalog Error: Table with name nope does not exist!"),
        ("SELECT nope FROM stg_samples", 'error: query:1: Binder Error: Referenced column "nope" not found'),
        ("SELEC", "error: query:1: Parser Error: syntax error"),
        (".nope", 'error: there is no command ".nope": .help lists those that there are'),
        ("CREATE TABLE x AS SELECT 1", "error: query: Invalid Input Error: Cannot execute statement of type"),
        (" ", "error: there is no query: give one, pipe one in, or start `tsds sql` in a terminal"),
    ],
)
def test_errors_are_one_line(done_once, query, message):
    result = tsds("-p", done_once, "sql", query)
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_what_can_be_read(done_once):
    listed = tsds("-p", done_once, "sql", ".tables").stdout
    for name in ("candidate_corpus", "selection_history", "stg_samples", "task_overlap"):
        assert re.search(rf"^{name} +\w", listed, re.MULTILINE)


def test_before_anything_was_made(tmp_path):
    make_project(tmp_path, 1, 1, n=3)
    result = tsds("-p", tmp_path, "sql", "SELECT count(*) AS n FROM sampled_subset")
    assert result.exit_code == 0
    assert result.stdout.split() == ["n", "0", "1", "row"]
    assert result.stderr.startswith("hint: no result yet: stg_candidates, ")
    assert result.stderr.endswith(": run `tsds refresh`\n")


def test_duckdb_is_imported_by_nobody_who_asks_for_help():
    code = "import sys; from tsds_pipeline.cli import main\ntry: main(['sql', '--help'])\nexcept SystemExit: pass\n"
    done = typed("sql", "--help")
    assert done.returncode == 0
    subprocess.run(
        [sys.executable, "-c", code + "assert not {'duckdb', 'polars'} & set(sys.modules)"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


class Terminal:
    """`tsds sql` in a terminal of its own."""

    def __init__(self, root):
        pid, self._terminal = pty.fork()
        if pid == 0:
            signal.signal(
                signal.SIGINT, signal.SIG_DFL
            )  # whoever runs the tests in the background ignores it
            os.environ |= {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "80", "LINES": "24"}
            os.execv(TYPED, [TYPED, "-p", str(root), "sql"])
        self.process = pid
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """What comes up to ``text``, which is taken too."""
        until = time.monotonic() + seconds
        while text not in self.seen and time.monotonic() < until:
            if select.select([self._terminal], [], [], 0.1)[0]:
                self.seen += os.read(self._terminal, 65536).decode().replace("\r\n", "\n")
        before, found, self.seen = self.seen.partition(text)
        assert found, before
        return before

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, and again where no prompt comes: what comes before readline waits is seen at the next key."""
        for _ in range(12):
            time.sleep(1)
            self.type("\x03")
            with suppress(AssertionError):
                self.wait_for("tsds> ", 5)
                break
        # There may be several prompts by now.
        self.type("SELECT 'rea' || 'dy';\n")
        self.wait_for("ready")
        self.wait_for("tsds> ")

    def ended(self) -> int:
        """The exit status."""
        try:
            while os.read(self._terminal, 65536):
                pass
        except OSError:  # the other end is gone
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def test_the_prompt(done_once):
    terminal = Terminal(done_once)
    try:
        assert ".tables lists what can be read" in terminal.wait_for("tsds> ")
        terminal.type("SELECT source, ';' AS x\n")
        terminal.wait_for("  ... ")
        terminal.type("FROM pool_summary -- all;\n")
        terminal.wait_for("  ... ")
        terminal.type("ORDER BY source;\n")
        shown = terminal.wait_for("tsds> ")
        assert "s0      ;" in shown
        assert "2 rows" in shown
        terminal.type("SELECT nope FROM pool_summary;\n")
        assert 'error: query:1: Binder Error: Referenced column "nope"' in terminal.wait_for("tsds> ")
        terminal.type("SELECT 1 +\n")
        terminal.wait_for("  ... ")
        terminal.interrupt()  # Ctrl-C clears what was typed
        terminal.type(".help\n")
        assert ".quit" in terminal.wait_for("tsds> ")
        terminal.type(".tables\n")
        assert "task_overlap" in terminal.wait_for("tsds> ")
        terminal.type("\n")
        terminal.wait_for("tsds> ")
        terminal.type(f"{ENDLESS};\n")
        time.sleep(1)
        terminal.type("\x03")  # ... and stops a query
        terminal.wait_for("tsds> ")
        terminal.type("\x04")
        assert terminal.ended() == 0
    except BaseException:
        os.kill(terminal.process, signal.SIGKILL)
        raise


def test_quit(done_once):
    terminal = Terminal(done_once)
    terminal.wait_for("tsds> ")
    terminal.type(".quit\n")
    assert terminal.ended() == 0


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{}'",
        "ATTACH '{}'",
        "INSTALL httpfs",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{}'",
        "explain (analyze, format json) copy (SELECT 1) to '{}'",
        "PREPARE p AS COPY (SELECT 1) TO '{}'; EXECUTE p",
        "PREPARE p AS SELECT 1",
    ],
)
def test_what_would_write_is_refused(done_once, tmp_path, query):
    result = tsds("-p", done_once, "sql", query.format(tmp_path / "written"))
    assert result.exit_code == 1
    assert "is not for here, where nothing is changed" in result.output
    assert not (tmp_path / "written").exists()


def test_a_query_can_be_explained(done_once):
    result = tsds("-p", done_once, "sql", "EXPLAIN ANALYZE SELECT 'ü', 'COPY' FROM pool_summary")
    assert result.exit_code == 0
