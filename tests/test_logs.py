"""Lines of JSON: what a real run logs, and what stays as it was without them."""

import json
import logging
import os
import subprocess
import sys

import pytest

from tests.commands import typed
from tests.projects import A_RUN_EACH, SETTINGS, make_project
from tsds_pipeline.logs import JsonFormatter, extra


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("one_run", [True, False])
def test_what_a_refresh_logs(tmp_path, one_run):
    make_project(tmp_path, sources=1, tasks=2, n=30, settings=SETTINGS + ("" if one_run else A_RUN_EACH))
    (tmp_path / "tasks" / "t1" / "query.jsonl").write_text("{broken\n")
    done = typed("-p", tmp_path, "refresh", TSDS_LOG="json")
    assert done.returncode == 1
    assert done.stdout == ""
    said = lines(done.stderr)
    assert all({"time", "level", "message"} <= line.keys() for line in said)
    assert all(line["time"].endswith("+00:00") for line in said)
    made = {line["message"].partition(":")[0]: line for line in said if ": made in " in line["message"]}
    neighbors = made["query_neighbors[s0 x t0]"]
    expected = {
        "asset": "query_neighbors",
        "partition": "s0|t0",
        "source": "s0",
        "task": "t0",
        "level": "INFO",
    }
    assert expected.items() <= neighbors.items()
    assert neighbors["rows"] == 7 * 30
    assert neighbors["seconds"] >= 0
    assert neighbors["peak_memory"] > 2**20
    corpus = made["candidate_corpus[s0]"]
    assert (corpus["source"], corpus.get("task")) == ("s0", None)
    assert (corpus["run_id"] == neighbors["run_id"]) is one_run
    assert "source_coverage" in made
    failed = [line for line in said if line["level"] == "ERROR" and line.get("task") == "t1"]
    (by_us,) = [line for line in failed if line.get("kind") == "failed"]
    if one_run:
        (by_dagster,) = [line for line in failed if line is not by_us]
        assert by_dagster["message"] == by_us["message"]
    else:
        assert {line["asset"] for line in failed} == {"query_examples", "query_embeddings"}
        (by_dagster,) = [line for line in failed if "exception" in line]
        assert "invalid JSON" in by_dagster["exception"]
    assert by_dagster["run_id"]
    assert "query.jsonl:1: invalid JSON" in by_us["message"]
    assert "1 failed, 4 waiting" in said[-1]["message"]


def test_errors_of_the_command_line(tmp_path):
    done = typed("-p", tmp_path / "nowhere", "refresh", TSDS_LOG="JSON", TSDS_DEBUG="1")
    (line,) = lines(done.stderr)
    assert (line["level"], line["kind"]) == ("ERROR", "error")
    assert "no such folder" in line["message"]
    assert line["exception"].startswith("Traceback")


def test_what_is_asked_for_stays_as_it_is(tmp_path):
    make_project(tmp_path, sources=1, tasks=1)
    done = typed("-p", tmp_path, "status", "--json", TSDS_LOG="json")
    assert json.loads(done.stdout)["project"] == str(tmp_path)
    assert done.stderr == ""


@pytest.mark.parametrize("value", ["", "text", "nonsense"])
def test_otherwise_nothing_is_json(tmp_path, value):
    done = typed("-p", tmp_path / "nowhere", "refresh", TSDS_LOG=value)
    assert done.stderr.startswith("error: ")


def test_a_record_with_everything():
    record = logging.LogRecord("a", logging.WARNING, "file", 1, "%s é\n\x1b", ("x",), None)
    record.__dict__ |= extra(node="query_neighbors|s|t", number=3, where=logging)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "x é\n\x1b"
    assert found["number"] == 3
    assert found["where"].startswith("<module")
    assert [found[name] for name in ("asset", "source", "task")] == ["query_neighbors", "s", "t"]


def test_sensors_runs_and_warnings_in_a_process_that_loads_the_project(tmp_path):
    """What the code server, and each process of a run, does."""
    make_project(tmp_path, sources=1, tasks=1)
    (tmp_path / "sources" / "notes.txt").write_text("")
    code = """
import sys, warnings
import dagster as dg
from tsds_pipeline.definitions import definitions
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.project import Project
root = sys.argv[1]
found = definitions(root)
warnings.simplefilter("always")
warnings.warn("a library warns")
with project_instance(Project.load(root)) as instance:
    context = dg.build_sensor_context(instance, definitions=found, sensor_name="project_inputs",
        resources={"project": ProjectResource(root=root)}, repository_name="r")
    with context:
        found.resolve_sensor_def("project_inputs").evaluate_tick(context)
    instance.add_dynamic_partitions("source", ["s0"])
    job = found.resolve_implicit_global_asset_job_def()
    chosen = [dg.AssetKey("candidate_corpus")]
    run = job.execute_in_process(instance=instance, partition_key="s0", asset_selection=chosen)
    print(run.run_id)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"TSDS_LOG": "json"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = lines(done.stderr)
    assert any(line["level"] == "WARNING" and "a library warns" in line["message"] for line in said)
    assert any("notes.txt" in line["message"] and line["level"] == "WARNING" for line in said)
    of_run = [line for line in said if line.get("run_id") == done.stdout.strip()]
    step = [line for line in of_run if line.get("asset") == "candidate_corpus"]
    assert {"s0"} == {line["source"] for line in step} == {line["partition"] for line in step}
    assert any(line["message"].startswith("candidate_corpus[s0]: made in") for line in step)
