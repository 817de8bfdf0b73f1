"""`tsds refresh`: what it prints, its exit status, its lock, and Ctrl-C."""

import json
import re
import signal
import subprocess
import time

from dagster import DagsterRunStatus

from tests.commands import ENDLESS, TYPED, tsds, typed
from tests.projects import append_records, clustered, make_project, records
from tsds_pipeline.lock import refresh_lock
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.project import Project

MODELS = ["sql      13 made", "15 made, 0 fresh in; SQL models: 13 made, 0 fresh"]


def test_from_nothing_in_a_process_of_its_own(tmp_path):
    make_project(tmp_path, sources=2, tasks=1, n=20)
    result = typed("-p", tmp_path, "refresh")
    assert result.returncode == 0
    assert result.stderr == ""
    lines = [
        re.sub(r" +[\d.]+ s(?=$|;)", "", line)
        for line in result.stdout.splitlines()
        if not line.endswith("...")
    ]
    assert lines == ["sources  6 made", "pool     3 made", "task t0  6 made", *MODELS]
    assert tsds("-p", tmp_path, "refresh").output.startswith("0 made, 15 fresh in ")
    with project_instance(Project.load(tmp_path)) as instance:
        of_partitions, of_models = (run.status for run in instance.get_runs())
    assert of_partitions == of_models == DagsterRunStatus.SUCCESS


def test_why_something_was_made(done):
    with (done / "tsds.toml").open("a") as file:
        file.write("[tasks.t1]\nsize = 5\n")
    result = tsds("-p", done, "refresh")
    assert result.exit_code == 0
    assert re.fullmatch(
        r"task t1  +1 made +[\d.]+ s  size 12 -> 5\n"
        r"sql  +6 made +[\d.]+ s  sampled_subset\[t1\] changed\n"
        r"1 made, 20 fresh in [\d.]+ s; SQL models: 6 made, 7 fresh\n",
        result.output,
    )


def test_one_task_or_one_source(done):
    for task in ("t0", "t1"):
        append_records(done / "tasks" / task / "query.jsonl", records(f"more-{task}", clustered(3, 7)))
    append_records(done / "sources" / "s1.jsonl", records("more", clustered(3, 8)))
    result = tsds("-p", done, "refresh", "--source", "s0")
    assert "task" not in result.output
    result = tsds("-p", done, "refresh", "--task", "t0")
    assert "task t0" in result.output
    assert "task t1" not in result.output
    assert "task t1    stale" in tsds("-p", done, "status").output


def test_an_unknown_task(done):
    result = tsds("-p", done, "refresh", "--task", "t")
    assert result.exit_code == 1
    assert result.stderr.startswith('error: there is no task "t" (did you mean "t')


def test_failures_are_listed_and_the_rest_goes_on(done):
    (done / "sources" / "s1.jsonl").write_text("{nope\n")
    (done / "sources" / "notes.txt").write_text("")
    with (done / "tasks" / "t1" / "query.jsonl").open("a") as file:
        file.write("{nope\n")
    for _ in range(2):  # A source whose last good content stands in for it is still a failure.
        result = tsds("-p", done, "refresh")
        assert result.exit_code == 1
        said = result.stderr.splitlines()
        assert [line.partition(":")[0] for line in said] == ["problem", "failed", "failed"]
        assert said[0].startswith("problem: sources/notes.txt: ")
        assert said[1].startswith("failed: candidate_corpus[s1]: ")
        assert " sources/s1.jsonl:1: " in said[1]
        assert " storage/quarantine/s1.parquet; " in said[1]
        assert said[2].startswith("failed: query_examples[t1]: ")
        assert re.search(r"^0 made, 19 fresh, 2 failed in ", result.stdout, re.MULTILINE)
        assert result.stdout.endswith("; problems: 1, told at the beginning\n")
    status = tsds("-p", done, "status")
    assert status.exit_code == 0
    assert re.search(r"source s1 +failed +1 of 4: ", status.stdout)
    assert "failed: query_examples[t1]: " in status.stderr


def test_what_waits_for_a_failure(tmp_path):
    make_project(tmp_path, sources=1, tasks=1, n=20)
    (tmp_path / "tasks" / "t0" / "query.jsonl").write_text("{nope\n")
    result = tsds("-p", tmp_path, "refresh")
    assert result.exit_code == 1
    assert "waiting: 1 more, each needs query_examples[t0]" in result.stderr
    assert re.search(r"^task t0 +1 failed, 4 waiting", result.stdout, re.MULTILINE)


def test_one_at_a_time(done):
    with refresh_lock(Project.load(done)):
        result = tsds("-p", done, "refresh")
        assert result.exit_code == 1
        assert "another refresh is under way (process " in result.stderr
        assert tsds("-p", done, "status").exit_code == 0
        assert tsds("-p", done, "show", "t0").exit_code == 0
    assert tsds("-p", done, "refresh").exit_code == 0


def interrupted_refresh(root, begun: str, seconds: float = 0) -> None:
    """A refresh that Ctrl-C ends so many seconds after a file like ``begun`` is there."""
    process = subprocess.Popen(
        [TYPED, "-p", str(root), "refresh"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 60
    while not list(root.glob(begun)) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip().startswith("error: interrupted; nothing that was complete is lost")
    assert not [path for path in root.rglob("*.attempt.json") if json.loads(path.read_text())["problem"]]


def test_ctrl_c_amid_an_endless_sql_model(done):
    model = done / "dbt_like_sql" / "marts" / "endless.sql"
    model.parent.mkdir(parents=True)
    model.write_text(f"SELECT n FROM ({ENDLESS}), pool_summary")
    interrupted_refresh(done, "storage/endless*", seconds=1)
    model.write_text("SELECT count(*) AS n FROM pool_summary")
    assert tsds("-p", done, "refresh").exit_code == 0


def test_ctrl_c_and_going_on(tmp_path):
    make_project(tmp_path, sources=2, tasks=1, n=20)
    interrupted_refresh(tmp_path, "storage/candidate_corpus/*.parquet")
    result = tsds("-p", tmp_path, "refresh")
    assert result.exit_code == 0
    made, fresh = map(int, re.search(r"^(\d+) made, (\d+) fresh in", result.output, re.MULTILINE).groups())
    assert made + fresh == 15
    assert fresh > 0
