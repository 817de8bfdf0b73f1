"""`tsds status`."""

import json
import re

from tests.commands import imported_by, tsds
from tests.projects import SETTINGS, append_records, clustered, make_project, records


def test_one_line_a_source_and_a_task(done_once):
    result = tsds("-p", done_once, "status")
    assert result.exit_code == 0
    assert [" ".join(line.split()) for line in result.output.splitlines()[:6]] == [
        "source s0 fresh 30 records",
        "source s1 fresh 30 records",
        "pool fresh",
        "task t0 fresh 12 examples for 7 queries, alpha 0.6",
        "task t1 fresh 12 examples for 7 queries, alpha 0.6",
        "sql fresh 13 models",
    ]
    assert result.output.endswith("\n21 fresh; SQL models: 13 fresh\n")


def test_what_is_stale_and_why(done):
    append_records(done / "tasks" / "t1" / "query.jsonl", records("more", clustered(3, 7)))
    result = tsds("-p", done, "status")
    assert re.search(r"task t0 +fresh", result.output)
    assert re.search(r"task t1 +stale +6 of 6: query_files\[t1\] changed", result.output)
    assert result.output.endswith(
        "15 fresh, 6 stale; SQL models: 5 fresh, 8 stale; `tsds refresh` makes up to 14\n"
    )


def test_nothing_made_yet(tmp_path):
    make_project(tmp_path, sources=1, tasks=1)
    result = tsds("-p", tmp_path, "status")
    assert re.search(r"task t0 +missing +nothing made yet", result.output)


def test_files_that_are_not_there_before_anything_was_made(tmp_path):
    make_project(
        tmp_path, sources=1, tasks=1, settings=SETTINGS + '\n[sources.far]\npath = "nowhere.jsonl"\n'
    )
    result = tsds("-p", tmp_path, "status")
    assert re.search(r"source far +missing +4 of 4: tsds.toml: \[sources.far\] path: no file", result.stdout)
    assert re.search(r"source s0 +missing +nothing made yet", result.stdout)
    assert re.match(
        r'problem: tsds.toml: \[sources.far\] path: no file \(.*\) at "nowhere.jsonl"\n', result.stderr
    )


def test_every_partition(done_once):
    lines = tsds("-p", done_once, "status", "--all").output.splitlines()
    assert lines[0].split() == ["candidate_corpus[s0]", "fresh"]
    assert len(lines) == 21 + 13 + 3


def test_for_programs(done):
    (done / "sources" / "notes.txt").write_text("")
    with (done / "tsds.toml").open("a") as file:
        file.write("[tasks.t1]\nsize = 5\n")
    document = json.loads(tsds("-p", done, "status", "--json").stdout)
    assert document["project"] == str(done)
    assert len(document["partitions"]) == 21 + 13
    stale = [one for one in document["partitions"] if one["state"] != "fresh"]
    assert {one["asset"] for one in stale[1:]} >= {"stg_samples", "task_overlap"}, "SQL models"
    assert stale[:1] == [
        {
            "asset": "sampled_subset",
            "partition": "t1",
            "state": "stale",
            "reasons": ["size 12 -> 5"],
            "failed_checks": {},
        }
    ]
    assert "notes.txt" in document["problems"][0]
    assert document["hints"] == []
    assert document["bytes"]["results"] > 0


def test_how_much_it_holds(done_once):
    *_, line, _ = tsds("-p", done_once, "status").output.splitlines()
    assert re.fullmatch(
        r"[\d.]+ MiB on disk: results [\d.]+ KiB, exports [\d.]+ KiB, dagster [\d.]+ MiB", line
    )


def test_neither_dagster_nor_torch_is_imported(done_once):
    slow = {"dagster", "faiss", "torch", "sentence_transformers"}
    assert not slow & imported_by("-p", done_once, "status")


def test_failed_checks_that_stop_nothing_are_told(done):
    query = json.loads((done / "tasks" / "t0" / "query.jsonl").open().readline())
    append_records(done / "sources" / "s0.jsonl", [{**query, "id": "leak"}])
    with (done / "tsds.toml").open("a") as file:
        file.write("[tasks.t0]\nsize = 44\n")
    told = "sampled_subset[t0]: check no_query_text: 1 example with the text of a query record (s0: leak)"
    for command in ("refresh", "status"):
        result = tsds("-p", done, command)
        assert result.exit_code == 0, result.output
        assert told in result.stderr
    document = json.loads(tsds("-p", done, "status", "--json").stdout)
    (found,) = [one for one in document["partitions"] if one["failed_checks"]]
    assert found["asset"] == "sampled_subset"
