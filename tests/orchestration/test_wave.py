"""Many partitions in one Dagster run: the same results, and the same state in Dagster, as with a run for each."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from tests.projects import SETTINGS as PRECOMPUTED
from tests.projects import (
    WITH_REPORTS,
    append_records,
    bytes_of_results,
    clustered,
    made,
    make_project,
    records,
)
from tsds_pipeline.assets import checks
from tsds_pipeline.definitions import definitions
from tsds_pipeline.graph import is_model, nodes, observe
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.orchestration.partitions import asset_key, node_partition
from tsds_pipeline.orchestration.refresh import Refresh
from tsds_pipeline.orchestration.resources import REFRESH
from tsds_pipeline.project import Project

SETTINGS = """
[mixtures.m]
tasks = ["t0", "t1"]
size = 9

[dagster]
one_run_above = 1
"""


@pytest.fixture
def project(tmp_path):
    make_project(tmp_path / "project", 2, 2, settings=PRECOMPUTED + SETTINGS)
    return tmp_path / "project"


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.long)], ids=["no reports", "reports"])
def either(request, tmp_path):
    """The project, with and without reports, which take most of the time."""
    settings = WITH_REPORTS if request.param else PRECOMPUTED
    make_project(tmp_path / "project", 2, 2, settings=settings + SETTINGS)
    return tmp_path / "project"


@pytest.fixture
def project_with_reports(tmp_path):
    make_project(tmp_path / "project", 2, 2, settings=WITH_REPORTS + SETTINGS)
    return tmp_path / "project"


def with_runs_for_each(root: Path) -> Path:
    """Let each partition of the project in ``root`` have a run of its own."""
    settings = root / "tsds.toml"
    settings.write_text(settings.read_text().replace("one_run_above = 1", "one_run_above = 1000"))
    return root


def follow(root, **wanted):
    return list(Refresh(Project.load(root), **wanted).steps())


def change(root):
    """So that partitions are stale, some for a source and some for a task."""
    append_records(root / "sources" / "s1.jsonl", records("more", clustered(5, 700)))
    append_records(root / "tasks" / "t0" / "query.jsonl", records("more", clustered(5, 701)))


def in_dagster(root) -> dict[str, tuple]:
    """What Dagster knows of each partition: tags and metadata of its last materialization, checks, staleness."""
    project = Project.load(root)
    found, graph = {}, definitions(str(root)).resolve_asset_graph()
    with project_instance(project) as instance:
        stale = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        for node in nodes(observe(project)):
            if is_model(node):
                continue
            key, partition = asset_key(node), node.partition("|")[2]
            of = node_partition(partition) if partition else None
            at = dg.AssetRecordsFilter(key, asset_partitions=[of]) if of else key
            (record,) = instance.fetch_materializations(at, 1).records
            event = record.asset_materialization
            tags = {name: value for name, value in event.tags.items() if "event_pointer" not in name}
            told = {name: str(value).replace(str(root), "") for name, value in event.metadata.items()}
            told = {name: value for name, value in told.items() if name not in ("seconds", "peak_memory")}
            checks = {check.name: last_check(instance, check, of) for check in graph.get(key).check_keys}
            found[node] = tags, told, checks, stale.get_status(key, of)
    return found


def last_check(instance, check, partition):
    history = instance.event_log_storage.get_asset_check_execution_history(check, limit=200)
    of = [one for one in history if one.partition == partition]
    return of and (
        of[0].status,
        of[0].evaluation.passed,
        of[0].evaluation.blocking,
        of[0].evaluation.description,
    )


def runs_of(root):
    with project_instance(Project.load(root)) as instance:
        return instance.get_runs()


def test_one_run_leaves_what_a_run_for_each_leaves(either, tmp_path):
    project = either
    beside = with_runs_for_each(shutil.copytree(project, tmp_path / "beside"))
    everything = [node for node in nodes(observe(Project.load(project))) if not is_model(node)]
    for root in project, beside:
        assert made(follow(root)) == everything
        change(root)
        assert 0.6 * len(everything) < len(made(follow(root))) < len(everything)
    assert bytes_of_results(project) == bytes_of_results(beside)
    found, expected = in_dagster(project), in_dagster(beside)
    assert found == expected
    assert {status for *_, status in found.values()} == {StaleStatus.FRESH}
    assert sum(bool(checks) for _, _, checks, _ in found.values()) > 15
    one, of_each = runs_of(project), runs_of(beside)
    assert [run.status for run in one] == [dg.DagsterRunStatus.SUCCESS] * 4  # of models one each
    assert len(of_each) > 20


def test_what_comes_after_something_that_changed_is_stale_in_dagster(project):
    follow(project)
    change(project)
    assert made(follow(project, nodes=["candidate_corpus|s1", "query_examples|t0"]))
    stale = {node for node, (*_, status) in in_dagster(project).items() if status == StaleStatus.STALE}
    assert {"candidate_embeddings|s1", "query_embeddings|t0"} < stale
    assert not stale & {
        "candidate_embeddings|s0",
        "query_embeddings|t1",
        "query_neighbors|s0|t1",
        "pool_summary",
    }


def test_what_fails_is_failed_in_dagster_and_stops_nothing_else(project):
    (project / "tasks" / "t0" / "query.jsonl").write_text("no record\n")
    steps = {step.node: step for step in follow(project)}
    assert steps["query_examples|t0"].outcome == "failed"
    assert "query.jsonl" in steps["query_examples|t0"].reasons[0]
    assert steps["sampled_subset|t0"].outcome == "waiting"
    assert steps["sampled_subset|t1"].outcome == "made"
    with project_instance(Project.load(project)) as instance:
        (run,) = (run for run in instance.get_runs() if run.job_name == "refresh")
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert dict(run.tags)[REFRESH]
        told = [entry.message for entry in instance.all_logs(run.run_id)]
        assert any("query_examples[t0]" in line and "query.jsonl" in line for line in told)
        asset = dg.AssetKey("query_examples")
        failed = instance.event_log_storage.get_latest_planned_materialization_info(asset, "t0")
        assert failed.run_id == run.run_id


def test_what_fails_a_blocking_check_is_not_stored(project, monkeypatch):
    follow(project)
    append_records(project / "tasks" / "t0" / "query.jsonl", records("more", clustered(5, 701)))
    monkeypatch.setattr(checks, "SUM_ROUNDING", -1.0)
    steps = {step.node: step for step in follow(project)}
    assert steps["selection_probabilities|t0"].outcome == "failed"
    with project_instance(Project.load(project)) as instance:
        check = dg.AssetCheckKey(dg.AssetKey("selection_probabilities"), "row_sums")
        _, passed, blocking, why = last_check(instance, check, "t0")
        assert (passed, blocking) == (False, True)
        assert "mass too much or too little" in why


def test_one_that_is_stopped_goes_on_where_it_was(project, tmp_path):
    beside = shutil.copytree(project, tmp_path / "beside")
    steps = Refresh(Project.load(project)).steps()
    begun = [next(steps) for _ in range(9)]
    steps.close()
    assert [run.status for run in runs_of(project)] == [dg.DagsterRunStatus.CANCELED]
    after = follow(project)
    assert len(made(begun)) + len(made(after)) == len(made(follow(beside)))
    assert bytes_of_results(project) == bytes_of_results(beside)


def test_the_job_has_all_in_its_own_run(project_with_reports):
    project = project_with_reports
    defs = definitions(str(project))
    with project_instance(Project.load(project)) as instance:
        done = defs.resolve_job_def("refresh").execute_in_process(instance=instance, raise_on_error=False)
        assert done.success
        of_models = [run for run in instance.get_runs() if run.run_id != done.run_id]
        assert [run.asset_selection is not None for run in of_models] == [True]
        for asset in ("candidate_corpus", "query_neighbors", "selection_report", "training_mixture"):
            records = instance.fetch_materializations(dg.AssetKey(asset), 100).records
            assert {record.run_id for record in records} == {done.run_id}
