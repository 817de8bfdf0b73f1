"""The real daemon: a changed query set reaches its own task, and backfills stay within their tasks and limits."""

import json
import re
from itertools import pairwise

import pytest

from tests.dev_server import dev_server
from tests.projects import WITH_REPORTS, make_project, refreshed
from tsds_pipeline.graph import observe
from tsds_pipeline.project import Project
from tsds_pipeline.status import task_nodes


def nodes_of(root, *tasks):
    return sorted(task_nodes(observe(Project.load(root)), tasks))


def test_a_query_set_reaches_its_task_alone(server):
    server.wait_for(server.is_at_rest, "rest")
    before = server.runs()
    with (server.root / "tasks" / "graphs" / "query.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "text": "Shortest paths between all pairs of nodes."}) + "\n")
    server.wait_for(lambda: server.made_after(before), "the first run")
    server.wait_for(server.is_at_rest, "the wave")
    runs = server.made_after(before)
    assert server.materialized(runs) == nodes_of(server.root, "graphs")
    first, *others = runs
    assert set(first["assets"]) == {"query_examples", "query_embeddings"}, (
        "a run for a group of one partition"
    )
    (many,) = [run for run in others if "tsds/due" in run["tags"]]
    follow = {
        f"{asset}|graphs" for asset in ("selection_probabilities", "sampled_subset", "selection_report")
    }
    assert follow < set(server.materialized([many])), "a run for many, and what follows them"


def test_a_backfill_of_one_task_touches_no_other(server, backfill):
    assert backfill.made == nodes_of(server.root, backfill.task)
    assert backfill.exported == {backfill.task}
    with pytest.raises(ValueError, match="no-such-task"):
        server.backfill(["no-such-task"])


@pytest.fixture(scope="module")
def ten_tasks(tmp_path_factory):
    root = tmp_path_factory.mktemp("ten") / "project"
    make_project(root, sources=1, tasks=10, n=20, settings=WITH_REPORTS)
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


@pytest.mark.long
def test_ten_tasks_in_one_backfill_respect_the_limits(ten_tasks):
    """So many runs at a time as .dagster/dagster.yaml says, and one that encodes."""
    settings = (ten_tasks.root / ".dagster" / "dagster.yaml").read_text()
    limit = int(re.search(r"max_concurrent_runs: (\d+)", settings)[1])
    tasks = [f"t{i}" for i in range(10)]
    before = ten_tasks.runs()
    started = ten_tasks.backfill(tasks)
    ten_tasks.wait_for(lambda: ten_tasks.is_finished(started), "the backfill", 1200)
    runs = ten_tasks.made_after(before)
    assert ten_tasks.materialized(runs) == nodes_of(ten_tasks.root, *tasks)
    assert overlap([(run["startTime"], run["endTime"]) for run in runs]) <= limit
    query = (
        """query ($id: ID!) {runOrError(runId: $id) {... on Run {stepStats {stepKey startTime endTime}}}}"""
    )
    encoding = sorted(
        (step["startTime"], step["endTime"])
        for run in runs
        for step in ten_tasks.ask(query, id=run["runId"])["runOrError"]["stepStats"]
        if step["stepKey"] == "query_embeddings"
    )
    assert len(encoding) == len(tasks)
    assert all(end <= start for (_, end), (start, _) in pairwise(encoding))
