"""The asset checks: what they say for each partition, and that nothing wrong is stored or flows on."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from tests.orchestration.runs import materialized
from tests.projects import (
    SETTINGS,
    append_records,
    clustered,
    made,
    make_project,
    records,
    refreshed,
    tampered,
    write_records,
)
from tsds_pipeline.assets import checks
from tsds_pipeline.definitions import definitions
from tsds_pipeline.encoders import precomputed
from tsds_pipeline.graph import Observed, is_model, node_path, nodes, observe, upstream
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_result, load_selection
from tsds_pipeline.stages import kernel_sums
from tsds_pipeline.stages.sample import Drawn
from tsds_pipeline.status import NodeStatus, status
from tsds_pipeline.storage import Draft, read_artifact, write_artifact

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished") / "project"
    make_project(root, sources=2, tasks=2, n=30)
    made(refreshed(root, models=True))
    return root


@pytest.fixture
def project(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "project")


def last_results(root: Path, asset: str, check: str) -> dict[str | None, dg.AssetCheckEvaluation]:
    """The last result of ``check`` for each partition."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    with project_instance(Project.load(root)) as instance:
        found = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    evaluations = [record.event.dagster_event.asset_check_evaluation_data for record in reversed(found)]
    return {one.partition: one for one in evaluations}


def last_result(root: Path, node: str, check: str) -> dg.AssetCheckEvaluation:
    asset, _, partition = node.partition("|")
    return last_results(root, asset, check)[partition]


def figures(evaluation: dg.AssetCheckEvaluation) -> dict:
    return {name: value.value for name, value in evaluation.metadata.items()}


def status_of(root: Path, node: str) -> NodeStatus:
    return {one.node: one for one in status(observe(Project.load(root)))}[node]


def results(root: Path) -> dict[str, bytes]:
    """What is stored, by node; and the first file exported of each task, which is its sample's."""
    found = {
        node: node_path(root / "storage", node).read_bytes() for node in nodes(observe(Project.load(root)))
    }
    for task in ("t0", "t1"):
        found[f"sampled_subset|{task}"] += (root / "exports" / task / "epoch-0.jsonl").read_bytes()
    return found


def behind(node: str, observed: Observed) -> set[str]:
    """Everything that ``node`` is made from."""
    direct = [name for name in upstream(node, observed) if name not in observed.versions]
    return {*direct, *(far for name in direct for far in behind(name, observed))}


def settings(root: Path, text: str) -> None:
    (root / "tsds.toml").write_text(text)


def test_every_partition_has_its_own_result(finished):
    observed = observe(Project.load(finished))
    graph = definitions().resolve_asset_graph()
    keys = [key for key in graph.asset_check_keys if not is_model(key.asset_key.to_user_string())]
    assert {key.asset_key.to_user_string() for key in keys} == set(checks._CHECKS)
    for key in keys:
        spec, asset = graph.get_check_spec(key), key.asset_key.to_user_string()
        assert spec.partitions_def == graph.get(key.asset_key).partitions_def
        assert spec.blocking == (key.name in checks.blocking_checks(asset))
        assert "refresh" in spec.description or "use " in spec.description, "what to do"
        found = last_results(finished, asset, key.name)
        expected = [n.node.partition("|")[2] for n in status(observed) if n.node.partition("|")[0] == asset]
        assert sorted(found) == sorted(expected)
        assert all(one.passed for one in found.values())


def lose_own_count(root: Path) -> None:
    tampered(root, "faiss_index|s0", count=pl.lit(0, pl.Int64))
    settings(root, SETTINGS.replace("kernel_radius = 0.1", "kernel_radius = 0.01"))


def infinite_densities(root: Path) -> None:
    for source in ("s0", "s1"):
        tampered(root, f"kde_densities|{source}", density=pl.lit(np.inf))
    settings(root, SETTINGS + "[tasks.t0]\nalpha = 0.0\n")


def negative_density(root: Path) -> None:
    first = pl.int_range(pl.len()) == 0
    tampered(root, "kde_densities|s0", density=pl.when(first).then(-1.0).otherwise("density"))
    settings(root, SETTINGS + "[tasks.t0]\nalpha = 0.0\n")


def longer_queries(root: Path) -> None:
    """A patched encoder does not normalise them, see ``patched``."""
    append_records(root / "tasks" / "t0" / "query.jsonl", records("long", 1.5 * clustered(4, 500)[3:]))


def another_seed(root: Path) -> None:
    """A patched stage function draws wrongly, see ``patched``."""
    settings(root, SETTINGS + "[tasks.t0]\nseed = 1\n")


def patched(monkeypatch) -> None:
    """What only a mistake in the code would do: no unit length, and the first example drawn again and again."""
    monkeypatch.setattr(precomputed, "unit_rows", lambda vectors: vectors)
    monkeypatch.setattr(
        "tsds_pipeline.assets.tasks.draw_examples",
        lambda task, settings, size, units, redraws, constraints: Drawn(
            units[[0] * size].with_columns(epoch=0, draw=pl.int_range(size)), certain=0.0
        ),
    )


@pytest.mark.parametrize(
    ("provoke", "node", "check", "figure", "remedy"),
    [
        (
            lose_own_count,
            "kde_densities|s0",
            "densities_at_least_one",
            "(the least is 0)",
            "delete storage/faiss_index/s0.parquet and storage/kernel_sums",
        ),
        (
            longer_queries,
            "query_embeddings|t0",
            "vector_lengths",
            "2 of 8 vectors are not of length 1 (largest deviation 0.5)",
            "delete storage/embedding_cache",
        ),
        (
            infinite_densities,
            "selection_probabilities|t0",
            "row_sums",
            "gives away nan of its share",
            "delete storage/kde_densities and storage/query_neighbors",
        ),
        (
            negative_density,
            "selection_probabilities|t0",
            "probabilities_sum_to_one",
            "the probabilities sum to 1.0",
            "delete storage/kde_densities and storage/query_neighbors",
        ),
        (
            another_seed,
            "sampled_subset|t0",
            "sample_size",
            "12 rows were drawn where 12 were asked for, 11 of them twice",
            "delete storage/selection_probabilities/t0.parquet",
        ),
    ],
    ids=["density", "query vector", "row of the plan", "probabilities", "sample"],
)
def test_what_fails_a_blocking_check_is_not_stored(
    project, monkeypatch, provoke: Callable, node, check, figure, remedy
):
    provoke(project)
    before = results(project)
    with monkeypatch.context() as patch:
        if provoke in (longer_queries, another_seed):
            patched(patch)
        steps = {step.node: step for step in refreshed(project, models=True)}
    asset, _, partition = node.partition("|")
    told = steps[node].reasons[0]
    assert steps[node].outcome == "failed"
    assert told.startswith(f"{asset}[{partition}]: ")
    assert figure in told
    assert f"{remedy} and run `tsds refresh`" in told

    event = last_result(project, node, check)
    assert not event.passed
    assert event.severity == ERROR
    assert event.description in told
    assert not any("NaN" in json.dumps(value) for value in figures(event).values())

    after = results(project)
    assert after[node] == before[node], "the last result stays"
    others = [name for name in steps if not is_model(name)]
    downstream = [name for name in others if node in behind(name, observe(Project.load(project)))]
    assert {steps[name].outcome for name in downstream} <= {"fresh", "waiting"}
    assert {name: after[name] for name in downstream} == {name: before[name] for name in downstream}
    found = status_of(project, node)
    assert found.state == "failed"
    assert found.reasons[0] == told
    assert told.endswith("(its last result stays in use)")
    assert found.tried


def test_nothing_follows_where_there_was_no_result_before(project):
    infinite_densities(project)
    for asset in ("selection_probabilities", "sampled_subset"):
        node_path(project / "storage", f"{asset}|t0").unlink()
    steps = {step.node: step.outcome for step in refreshed(project)}
    assert steps["selection_probabilities|t0"] == "failed"
    assert steps["sampled_subset|t0"] == "waiting"
    assert steps["sampled_subset|t1"] == "fresh"
    for asset in ("selection_probabilities", "sampled_subset"):
        assert not node_path(project / "storage", f"{asset}|t0").exists()
    assert not last_result(project, "selection_probabilities|t0", "row_sums").passed


def test_the_remedy_helps(project, monkeypatch):
    lose_own_count(project)
    refreshed(project)
    monkeypatch.setattr(kernel_sums, "_remembered", {})  # as in another process
    (project / "storage" / "faiss_index" / "s0.parquet").unlink()
    shutil.rmtree(project / "storage" / "kernel_sums")
    made(refreshed(project, models=True))
    assert last_result(project, "kde_densities|s0", "densities_at_least_one").passed


def test_bad_records_and_unreadable_files_are_told_apart(project):
    path = project / "sources" / "s0.jsonl"
    good = path.read_text()
    path.write_text("{broken\n" * 10 + good)
    (step,) = [step for step in refreshed(project) if step.outcome != "fresh"]
    assert (step.node, step.outcome) == ("candidate_corpus|s0", "failed")
    assert last_result(project, "candidate_corpus|s0", "readable").passed
    few = last_result(project, "candidate_corpus|s0", "few_bad_records")
    assert (few.passed, few.severity) == (False, ERROR)
    assert figures(few) == {"quarantined": 10, "share": 0.25, "max_quarantined": 0.05}
    assert "10 of 40 records (25.0%) cannot be used" in few.description

    path.rename(path.with_suffix(".parquet"))
    (step,) = [step for step in refreshed(project) if step.outcome != "fresh"]
    assert (step.node, step.outcome) == ("candidate_corpus|s0", "failed")
    readable = last_result(project, "candidate_corpus|s0", "readable")
    few = last_result(project, "candidate_corpus|s0", "few_bad_records")
    assert (readable.passed, readable.severity) == (False, ERROR)
    assert (few.passed, few.severity) == (False, WARN)
    assert few.description.startswith("not known")


def test_a_source_with_wrong_vector_lengths_blocks_nothing(project, monkeypatch):
    append_records(project / "sources" / "s1.jsonl", records("long", 2 * clustered(4, 500)[3:]))
    with monkeypatch.context() as patch:
        patch.setattr(precomputed, "unit_rows", lambda vectors: vectors)
        assert "sampled_subset|t0" in made(refreshed(project, models=True))
    event = last_result(project, "candidate_embeddings|s1", "vector_lengths")
    assert not event.passed
    assert figures(event) == {"largest_deviation": pytest.approx(1)}
    stored = read_artifact(node_path(project / "storage", "candidate_embeddings|s1"))
    assert set(stored.header.notes["failed_checks"]) == {"vector_lengths"}


@pytest.mark.parametrize(("factory", "severity"), [("PQ2x4", ERROR), ("IVF4,Flat", None)])
def test_the_recall_of_an_index_that_is_not_exact(tmp_path, factory, severity):
    text = SETTINGS.replace("[pool]", f'[pool]\nindex = "{factory}"')
    root = make_project(tmp_path, sources=1, tasks=1, n=700, settings=text).root
    assert "sampled_subset|t0" in made(refreshed(root, models=True)), "it blocks nothing"
    event = last_result(root, "query_neighbors|s0|t0", "recall")
    assert event.passed == (severity is None)
    assert figures(event)["queries"] == 7
    if severity:
        assert event.severity == severity
        assert figures(event)["recall"] < 0.95
        assert "of the nearest candidates of 7 queries" in event.description


def test_neighbourhoods_that_are_cut_short(project):
    settings(project, SETTINGS + "[tasks.t0]\nmax_neighbors = 2\nsize = 5\n")
    made(refreshed(project, models=True))
    event = last_result(project, "selection_probabilities|t0", "untruncated")
    assert (event.passed, event.severity) == (False, WARN)
    assert figures(event) == {"queries": 7}
    manifest = json.loads((project / "exports" / "t0" / "manifest.json").read_text())
    assert "of 7 queries were cut short" in manifest["solution"]["failed_checks"]["untruncated"]


def test_texts_of_the_test_set(project):
    """It decides the freshness of its task's sample alone."""
    chosen = load_selection(project, "t0").head(2)
    text = chosen["text"].to_list()
    path = project / "tasks" / "t0" / "test.jsonl"
    write_records(path, [{"text": f"  {text[0]}\r\n"}, {"text": text[1]}, {"text": "another"}])
    steps = refreshed(project, models=True)
    assert made(steps) == ["sampled_subset|t0"]
    event = last_result(project, "sampled_subset|t0", "no_query_text")
    assert (event.passed, event.severity) == (False, ERROR)
    assert figures(event) == {"left_out": 0, "with_query_text": 0, "with_test_text": 2}
    assert event.description.startswith("2 examples with the text of a test record (")
    assert all(f"{row['source']}: {row['id']}" in event.description for row in chosen.to_dicts())
    manifest = json.loads((project / "exports" / "t0" / "manifest.json").read_text())
    assert manifest["failed_checks"] == {"no_query_text": event.description}

    path.write_text("{broken\n")
    assert made(refreshed(project)) == ["sampled_subset|t0"]
    event = last_result(project, "sampled_subset|t0", "no_query_text")
    assert not event.passed
    assert "the test set could not be read: 1 of 1 test records cannot be used: " in event.description

    write_records(path, [{"text": "another"}])
    assert made(refreshed(project)) == ["sampled_subset|t0"]
    assert last_result(project, "sampled_subset|t0", "no_query_text").passed
    path.unlink()
    (step,) = [step for step in refreshed(project) if step.outcome == "made"]
    assert step.node == "sampled_subset|t0"
    assert step.reasons[0].startswith("test_set ")
    assert made(refreshed(project, models=True)) == []


def test_texts_of_the_queries(project):
    queries = records("t0", clustered(7, 100))
    write_records(project / "sources" / "s9.jsonl", [{**row, "id": f"copy-{row['id']}"} for row in queries])
    settings(project, SETTINGS + "[tasks.t0]\nalpha = 0.99\nsize = 6\n")
    made(refreshed(project, models=True))
    event = last_result(project, "sampled_subset|t0", "no_query_text")
    assert not event.passed
    found = figures(event)["with_query_text"]
    sample = load_selection(project, "t0")
    assert 0 < found == sample.filter(source="s9")["content_id"].n_unique()
    assert "s9: copy-t0-" in event.description
    assert last_result(project, "sampled_subset|t1", "no_query_text").passed


def test_a_sample_is_checked_against_the_queries_that_its_plan_has(project):
    """Queries that were made again alone belong to no plan yet."""
    path = project / "storage" / "query_examples" / "t0.parquet"
    artifact = read_artifact(path)
    write_artifact(path, Draft(artifact.frame, replace(artifact.header, version="other")))
    another_seed(project)
    assert not materialized(Project.load(project), "sampled_subset", "t0").success
    assert "another version of query_examples[t0]" in status_of(project, "sampled_subset|t0").reasons[0]


def test_vectors_of_any_length_need_only_be_finite():
    vectors = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)
    assert checks.vector_lengths(vectors, normalize=False).passed
    assert not checks.vector_lengths(vectors, normalize=True).passed
    vectors[1, 0] = np.nan
    for normalize in (False, True):
        found = checks.vector_lengths(vectors, normalize)
        assert not found.passed
        assert found.metadata["largest_deviation"].value == "nan"
    assert checks.vector_lengths(np.empty((0, 0), np.float32), normalize=True).passed


@pytest.mark.parametrize(
    ("density", "passed"), [(2.0, True), (1.9999999999, True), (1.5, False), (np.nan, False)]
)
def test_a_density_counts_the_copies_of_its_record(density, passed):
    table = pl.DataFrame({"count": [1, 2], "density": [1.0, density]})
    assert checks.densities_at_least_one("s", table).passed == passed


@pytest.mark.parametrize(
    ("share", "passed", "severity"), [(1, True, WARN), (0.99, False, WARN), (0.9, False, ERROR)]
)
def test_how_severe_a_low_recall_is(share, passed, severity):
    found = checks.recall(share, 16)
    assert (found.passed, found.severity) == (passed, severity)


def test_a_sample_of_several_epochs(project):
    settings(project, SETTINGS + "[tasks.t0]\nepochs = 3\n[tasks.t1]\nwith_replacement = true\nsize = 200\n")
    made(refreshed(project, models=True))
    for task, rows in (("t0", 36), ("t1", 200)):
        event = last_result(project, f"sampled_subset|{task}", "sample_size")
        assert figures(event) == {"rows": rows, "asked_for": rows, "repeated": 0}
        assert "failed_checks" not in load_result(project, "sampled_subset", task).header.notes
