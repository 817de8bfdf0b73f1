"""`tsds metrics`, read by Prometheus' own parser."""

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.commands import TYPED, tsds
from tests.projects import append_records, refreshed

# https://prometheus.io/docs/practices/naming: what stands for a unit stands last, and is a base unit.
NAME = re.compile(r"tsds(_[a-z]+)+")
UNITS = ("seconds", "bytes", "ratio", "info")
NO_BASE_UNITS = ("milliseconds", "minutes", "hours", "days", "mib", "kib", "percent")


def families(text: str) -> dict:
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family) -> dict:
    """The value of each sample by the values of its labels, or by what its name adds to that of the family."""
    return {
        (sample.name.removeprefix(family.name), *sample.labels.values()): sample.value
        for sample in family.samples
    }


def test_the_figures_are_those_of_the_project(done):
    append_records(done / "sources" / "s0.jsonl", [{"id": "bad", "text": ""}])
    (done / "tasks" / "t1" / "query.jsonl").write_text("{broken\n")
    (done / "sources" / "notes.txt").write_text("")
    refreshed(done, models=True)
    before = time.time()
    result = tsds("-p", done, "metrics")
    assert result.exit_code == 0
    found = families(result.stdout)
    assert values(found["tsds_project_readable"]) == {("",): 1}
    assert values(found["tsds_source_records"]) == {("", "s0"): 31, ("", "s1"): 30}
    assert values(found["tsds_source_quarantined_records"]) == {("", "s0"): 1, ("", "s1"): 0}
    # One in 31 is a good share; a copy makes one candidate less.
    assert values(found["tsds_source_candidates"]) == {("", "s0"): 30, ("", "s1"): 30}
    assert values(found["tsds_source_index_recall_ratio"]) == {("", "s0"): 1, ("", "s1"): 1}
    assert values(found["tsds_task_queries"])["", "t0"] == 7
    assert values(found["tsds_task_sampled_examples"])["", "t0"] == 12
    assert before - 600 < values(found["tsds_task_sample_timestamp_seconds"])["", "t0"] < before + 1
    states = values(found["tsds_partitions"])
    assert states["", "query_examples", "fresh"] == states["", "query_examples", "failed"] == 1
    assert states["", "candidate_corpus", "fresh"] == 2
    assert states["", "candidate_corpus", "failed"] == 0
    assert values(found["tsds_problems"]) == {("",): 1}
    log = [
        json.loads(line)
        for path in (done / "storage" / "materializations").iterdir()
        for line in path.read_text().splitlines()
    ]
    corpus = [line for line in log if line["asset"] == "candidate_corpus"]
    assert len(corpus) == 3, "made, and one of them again"
    seconds = values(found["tsds_materialization_duration_seconds"])
    assert seconds["_count", "candidate_corpus"] == 3
    assert seconds["_sum", "candidate_corpus"] == pytest.approx(sum(line["seconds"] for line in corpus))
    peaks = [line["peak_memory"] for line in corpus if line["source"] == "s1"] + [corpus[-1]["peak_memory"]]
    memory = values(found["tsds_materialization_peak_memory_bytes"])
    assert memory["", "candidate_corpus"] == max(peaks) > 2**20
    assert values(found["tsds_stored_bytes"])["", "exports"] > 0


def test_names_are_those_that_prometheus_recommends(done_once):
    found = families(tsds("-p", done_once, "metrics").stdout)
    assert len(found) > 12
    for name, family in found.items():
        assert NAME.fullmatch(name), name
        assert family.documentation
        words = name.split("_")
        assert not set(words) & set(NO_BASE_UNITS), name
        assert not set(words[:-1]) & set(UNITS), name


def test_a_project_that_cannot_be_read_is_a_figure_too(done, tmp_path):
    from prometheus_client import generate_latest

    from tsds_pipeline.metrics import registry

    with (done / "tsds.toml").open("a") as file:
        file.write("[selectoin]\n")
    found = families(generate_latest(registry(done)).decode())
    assert values(found["tsds_project_readable"]) == {("",): 0}
    assert "tsds_partitions" not in found


def test_a_file_is_replaced_at_once(done_once, tmp_path):
    path = tmp_path / "tsds.prom"
    path.write_text("half")
    assert tsds("-p", done_once, "metrics", "--output", path).output == ""
    assert "tsds_partitions" in families(path.read_text())
    assert list(tmp_path.iterdir()) == [path]


def test_a_server_looks_anew_each_time(done):
    process = subprocess.Popen(
        [TYPED, "-p", str(done), "metrics", "--serve", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that tests in the background has interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        url = process.stdout.readline().split()[1]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)

        def ask() -> dict:
            with urllib.request.urlopen(url, timeout=60) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=")
                return families(answer.read().decode())

        assert values(ask()["tsds_partitions"])["", "query_examples", "stale"] == 0
        (done / "tasks" / "t1" / "query.jsonl").write_text("{broken\n")
        asked = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asked:
            thread.start()
        assert values(ask()["tsds_partitions"])["", "query_examples", "stale"] == 1
        for thread in asked:
            thread.join(60)
    finally:
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "ending ...\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--serve", "nonsense"], "write HOST:PORT, as in 127.0.0.1:9464"),
        (["--serve", "127.0.0.1:70000"], "write HOST:PORT"),
        (["--serve", ":1", "--output", "x"], "exclude each other"),
    ],
)
def test_what_is_not_understood(done_once, arguments, said):
    result = tsds("-p", done_once, "metrics", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_an_address_that_is_taken(done_once):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = tsds("-p", done_once, "metrics", "--serve", f"127.0.0.1:{taken.getsockname()[1]}")
    assert result.exit_code == 1
    assert "cannot listen on 127.0.0.1:" in result.stderr


def test_what_is_no_file_is_not_replaced_by_one(done_once, tmp_path):
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    link.symlink_to(file)
    for path in (pipe, tmp_path / "none" / "file"):
        result = tsds("-p", done_once, "metrics", "--output", path)
        assert (result.exit_code, result.stderr) == (
            1,
            f"error: --output {path}: must be a file in a folder that exists\n",
        )
    assert pipe.is_fifo()
    assert tsds("-p", done_once, "metrics", "--output", link).exit_code == 0
    assert link.is_symlink()
    assert file.read_text().startswith("# HELP")


def test_a_file_for_prometheus_tells_that_the_project_cannot_be_read(done, tmp_path):
    target = tmp_path / "tsds.prom"
    assert tsds("-p", done, "metrics", "--output", target).exit_code == 0
    assert values(families(target.read_text())["tsds_project_readable"]) == {("",): 1}
    (done / "tsds.toml").write_text("[selectoin]\n")
    result = tsds("-p", done, "metrics", "--output", target)
    assert result.exit_code == 1
    assert "selectoin" in result.stderr
    assert values(families(target.read_text())["tsds_project_readable"]) == {("",): 0}
