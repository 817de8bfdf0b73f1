"""Selecting by gradients from end to end, on the project of examples/gradients.py: what is trained, and when again."""

import os
import runpy
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pytest

from tests.projects import append_records, made, refreshed
from tsds_pipeline.assets.columns import COLUMNS
from tsds_pipeline.definitions import definitions
from tsds_pipeline.encoders.warmup import FOLDER
from tsds_pipeline.garbage import garbage
from tsds_pipeline.graph import ALSO_READ, WARMUP, is_model, nodes, observe, stored, upstream
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.orchestration.partitions import asset_key
from tsds_pipeline.orchestration.refresh import Refresh
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_selection
from tsds_pipeline.stages.gradient_warmup import encoder_of
from tsds_pipeline.status import next_nodes

# Not imported by who collects the tests: that takes seconds.
pytestmark = pytest.mark.skipif(find_spec("peft") is None, reason="the extra gradients is not installed")


@pytest.fixture(scope="module")
def done(tmp_path_factory, repository) -> Path:
    """The project of the example, refreshed; not to be changed."""
    root = tmp_path_factory.mktemp("gradients") / "project"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["gradients.py", str(root)])
        runpy.run_path(str(repository / "examples" / "gradients.py"), run_name="__main__")
    assert next_nodes(observe(Project.load(root))) >= {"candidate_corpus|sums", "candidate_corpus|animals"}
    assert WARMUP not in next_nodes(observe(Project.load(root))), "there is nothing to train on yet"
    steps = refreshed(root)
    assert made(steps).index(WARMUP) == 2, "after the records, before any vector"
    return root


@pytest.fixture
def root(done, tmp_path) -> Path:
    return shutil.copytree(done, tmp_path / "project")


def adapters(root: Path) -> str:
    return stored(root / "storage", WARMUP).version


def test_sums_are_selected_for_sums(done):
    sources = load_selection(done, "arithmetic")["source"].to_list()
    assert sources.count("sums") >= 10, "by chance it would be six of twelve"


def test_the_graph_is_what_dagster_draws(done):
    observed, graph = observe(Project.load(done)), definitions(str(done)).resolve_asset_graph()
    order = [node for node in nodes(observed) if not is_model(node)]
    seen = set(observed.versions)
    for node in order:
        assert set(upstream(node, observed)) <= seen
        parents = graph.get(asset_key(node)).parent_keys
        also = {asset_key(name) for name in ALSO_READ.get(node.partition("|")[0], ())}
        assert {asset_key(up) for up in upstream(node, observed)} | also == parents
        seen.add(node)
    assert order[2] == WARMUP
    assert set(stored(done / "storage", WARMUP).frame.columns) == set(COLUMNS[WARMUP])


def test_nothing_is_due_afterwards(done):
    assert made(refreshed(done)) == []
    assert not {node for node in next_nodes(observe(Project.load(done))) if not is_model(node)}


def test_new_records_train_nothing_and_are_encoded_alone(root):
    before = adapters(root)
    append_records(root / "sources" / "animals.jsonl", [{"text": "the owl sat there at noon ."}])
    changed = made(refreshed(root))
    assert "candidate_embeddings|animals" in changed
    assert not {WARMUP, "candidate_embeddings|sums", "query_embeddings|arithmetic"} & set(changed)
    assert adapters(root) == before
    of_animals = dg.AssetRecordsFilter(dg.AssetKey("candidate_embeddings"), asset_partitions=["animals"])
    with project_instance(Project.load(root)) as instance:
        (last,) = instance.fetch_materializations(of_animals, 1).records
    assert last.asset_materialization.metadata["encoded"].value == 1


def test_a_setting_that_decides_no_adapters_trains_none(root):
    before, toml = adapters(root), (root / "tsds.toml").read_text()
    (root / "tsds.toml").write_text(toml.replace("dimension = 512", "dimension = 256"))
    changed = made(refreshed(root))
    assert {WARMUP, "candidate_embeddings|sums", "query_embeddings|arithmetic"} <= set(changed)
    assert adapters(root) == before
    (root / "tsds.toml").write_text(toml.replace("warmup_epochs = 2", "warmup_epochs = 1"))
    refreshed(root)
    assert adapters(root) != before
    for path in (root / "storage" / FOLDER).iterdir():
        os.utime(path, (1e9, 1e9))  # what is new may be under way
    old = {one.path.name for one in garbage(observe(Project.load(root)), embeddings=True)}
    kept = stored(root / "storage", WARMUP).frame["checkpoint"][0].partition("/")[0]
    assert {path.name for path in (root / "storage" / FOLDER).iterdir()} - old == {kept}


def test_on_purpose_it_is_trained_on_the_records_of_now(root):
    before = adapters(root)
    list(Refresh(Project.load(root), nodes=[WARMUP], from_scratch=True).steps())
    assert adapters(root) == before, "the same records"
    append_records(root / "sources" / "animals.jsonl", [{"text": "the owl sat there at noon ."}])
    made(refreshed(root))
    list(Refresh(Project.load(root), nodes=[WARMUP], from_scratch=True).steps())
    assert adapters(root) != before
    changed = made(refreshed(root))
    assert {
        "candidate_embeddings|sums",
        "candidate_embeddings|animals",
        "query_embeddings|arithmetic",
    } <= set(changed)


def test_each_role_has_vectors_of_its_own_and_they_are_no_garbage(done):
    project = Project.load(done)
    prints = {encoder_of(project, role).fingerprint for role in ("candidate", "query")}
    assert len(prints) == 2
    assert not garbage(observe(project), embeddings=True)


def test_adapters_that_are_gone_are_trained_again(root):
    before = adapters(root)
    shutil.rmtree(root / "storage" / FOLDER)
    append_records(root / "sources" / "sums.jsonl", [{"text": "what is 1 plus 1 ?"}])
    (failed, *_) = [step for step in refreshed(root) if step.outcome == "failed"]
    assert failed.node == "candidate_embeddings|sums"
    assert "gradient_warmup.parquet and run `tsds refresh`" in failed.reasons[0]
    (root / "storage" / "gradient_warmup.parquet").unlink()
    assert WARMUP in made(refreshed(root))
    assert adapters(root) != before, "of the records as they are now"
