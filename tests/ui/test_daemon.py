"""The real daemon: a changed query set reaches its own task, and backfills stay within their tasks and limits."""

import json
import re
from itertools import pairwise

import pytest

from tests.dev_server import dev_server
from tests.projects import make_project, refreshed
from tsds_pipeline.graph import observe
from tsds_pipeline.project import Project
from tsds_pipeline.status import status, task_nodes

TASK_ASSETS = (
    "query_examples", "query_embeddings", "query_neighbors", "selection_probabilities", "sampled_subset"
)  # fmt: skip
BACKFILL = """mutation ($params: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $params) {
    ... on LaunchBackfillSuccess {backfillId} ... on PartitionKeysNotFoundError {message}
    ... on PythonError {message}}}"""


def materialized(runs):
    """The nodes that ``runs`` made."""
    assert {run["status"] for run in runs} == {"SUCCESS"}
    return [f"{asset}|{run['partition']}" for run in runs for asset in run["assets"]]


def new_runs(server, before):
    known = {run["runId"] for run in before}
    return [run for run in server.runs() if run["runId"] not in known]


def at_rest(server):
    """Whether everything is fresh and nothing is running."""
    busy = {"QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"} & {
        r["status"] for r in server.runs()
    }
    return not busy and {n.state for n in status(observe(Project.load(server.root)))} == {"fresh"}


def test_a_query_set_reaches_its_task_alone(server):
    before = server.runs()
    with (server.root / "tasks" / "graphs" / "query.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "text": "Shortest paths between all pairs of nodes."}) + "\n")
    server.wait_for(lambda: new_runs(server, before), "the first run")
    server.wait_for(lambda: at_rest(server), "the wave")
    made = materialized(new_runs(server, before))
    assert sorted(made) == sorted(task_nodes(observe(Project.load(server.root)), ["graphs"]))
    together = [set(run["assets"]) for run in new_runs(server, before)]
    assert {"query_examples", "query_embeddings"} in together, "one run for a group of the same partition"
    assert {"selection_probabilities", "sampled_subset"} in together


def launch(server, tasks):
    found = server.ask(
        BACKFILL,
        params={
            "assetSelection": [{"path": [asset]} for asset in TASK_ASSETS],
            "partitionNames": [*tasks],
            "title": f"tasks {', '.join(tasks)}",
        },
    )
    return found["launchPartitionBackfill"]


def finished(server, backfill):
    query = """query ($id: String!) {partitionBackfillOrError(backfillId: $id) {
        ... on PartitionBackfill {status} ... on PythonError {message}}}"""
    state = server.ask(query, id=backfill)["partitionBackfillOrError"]["status"]
    assert state in ("REQUESTED", "COMPLETED", "COMPLETED_SUCCESS"), state
    return state != "REQUESTED"


def test_a_backfill_of_one_task_touches_no_other(server):
    server.wait_for(lambda: at_rest(server), "rest")
    before = server.runs()
    exports = {path: path.stat().st_mtime_ns for path in (server.root / "exports").rglob("*")}
    backfill = launch(server, ["strings"])["backfillId"]
    server.wait_for(lambda: finished(server, backfill), "the backfill", 300)
    made = materialized(new_runs(server, before))
    assert sorted(made) == sorted(task_nodes(observe(Project.load(server.root)), ["strings"]))
    after = {path: path.stat().st_mtime_ns for path in (server.root / "exports").rglob("*")}
    assert {path.parent.name for path in exports if path.is_file() and exports[path] != after[path]} == {
        "strings"
    }
    assert "message" in launch(server, ["no-such-task"])


@pytest.fixture(scope="module")
def ten_tasks(tmp_path_factory):
    root = tmp_path_factory.mktemp("ten") / "project"
    make_project(root, sources=1, tasks=10, n=20)
    refreshed(root)
    with dev_server(root, "--no-automation") as running:
        yield running


def overlap(spans):
    """The largest number of ``spans`` (from, to) that share a moment."""
    moments = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    total, most = 0, 0
    for _, change in moments:
        total += change
        most = max(most, total)
    return most


def test_ten_tasks_in_one_backfill_respect_the_limits(ten_tasks):
    """So many runs at a time as .dagster/dagster.yaml says, and one that encodes."""
    settings = (ten_tasks.root / ".dagster" / "dagster.yaml").read_text()
    limit = int(re.search(r"max_concurrent_runs: (\d+)", settings)[1])
    before = ten_tasks.runs()
    backfill = launch(ten_tasks, [f"t{i}" for i in range(10)])["backfillId"]
    ten_tasks.wait_for(lambda: finished(ten_tasks, backfill), "the backfill", 400)
    runs = new_runs(ten_tasks, before)
    made = materialized(runs)
    assert sorted(made) == sorted(
        task_nodes(observe(Project.load(ten_tasks.root)), [f"t{i}" for i in range(10)])
    )
    assert overlap([(run["startTime"], run["endTime"]) for run in runs]) <= limit
    encoding = sorted(
        (step["startTime"], step["endTime"])
        for run in runs
        for step in run["stepStats"]
        if step["stepKey"] == "query_embeddings"
    )
    assert len(encoding) == 10
    assert all(end <= start for (_, end), (start, _) in pairwise(encoding))
