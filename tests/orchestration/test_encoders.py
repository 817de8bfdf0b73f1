"""Several encoders side by side: each task has the results that it would have if its encoder were the only one."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.commands import tsds
from tests.projects import SETTINGS, made, make_project, refreshed
from tsds_pipeline.definitions import definitions
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.garbage import garbage
from tsds_pipeline.graph import (
    ALSO_READ,
    OF_ENCODER,
    WARMUP,
    Observed,
    describe,
    is_model,
    nodes,
    observe,
    stored,
    upstream,
)
from tsds_pipeline.node_names import asset_of, node_name, split_name
from tsds_pipeline.orchestration.partitions import asset_key
from tsds_pipeline.project import Project
from tsds_pipeline.provenance import lineage
from tsds_pipeline.results import load_selection
from tsds_pipeline.settings import load_settings
from tsds_pipeline.status import next_nodes
from tsds_pipeline.summary import summarize

RAW = """
[encoders.raw]
kind = "precomputed"
normalize = false
kernel_radius = 0.3

[tasks.t1]
encoder = "raw"
"""
ONLY_RAW = SETTINGS.replace('kind = "precomputed"', 'kind = "precomputed"\nnormalize = false').replace(
    "kernel_radius = 0.1", "kernel_radius = 0.3"
)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """Task t0 with the default encoder, t1 with another one."""
    root = tmp_path_factory.mktemp("both") / "project"
    make_project(root, sources=2, n=30, settings=SETTINGS + RAW)
    made(refreshed(root))
    return root


@pytest.fixture(scope="module")
def observed(both) -> Observed:
    return observe(Project.load(both))


def tables(root: Path, task: str) -> list[pl.DataFrame]:
    storage = root / "storage"
    names = [f"sampled_subset/{task}", f"selection_probabilities/{task}", f"query_neighbors/s0/{task}"]
    return [pl.read_parquet(storage / f"{name}.parquet") for name in names]


def test_a_task_has_what_its_encoder_alone_would_give(both, tmp_path):
    make_project(tmp_path, sources=2, n=30, settings=ONLY_RAW)
    made(refreshed(tmp_path, task="t1"))
    for found, expected in zip(tables(both, "t1"), tables(tmp_path, "t1"), strict=True):
        assert found.equals(expected)


def test_the_encoders_differ(both):
    assert not tables(both, "t0")[1].equals(tables(both, "t1")[1])
    first, second = (load_selection(both, task)["density"].max() for task in ("t0", "t1"))
    assert first != second


def test_near_duplicates_are_those_of_the_tasks_own_encoder(both, tmp_path):
    root = shutil.copytree(both, tmp_path / "project")
    refreshed(root, models=True)
    shares = pl.read_parquet(root / "storage" / "near_duplicate_shares.parquet")
    drawn = []
    for row in shares.iter_rows(named=True):
        sample, mass, _ = tables(root, row["task"])
        crowded = mass.filter(pl.col("density") > pl.col("count") * (1 + 1e-9))
        drawn.append(len(sample.join(crowded, on="content_id", how="semi")))
        assert row["near_duplicates"] == len(crowded)
        assert (row["drawn"], row["drawn_share"]) == (drawn[-1], drawn[-1] / len(sample))
    assert len(set(drawn)) == 2, "the encoders tell other candidates apart"


def test_each_node_is_there_once_and_after_its_upstream(observed):
    order = list(nodes(observed))
    assert len(order) == len(set(order))
    seen = set(observed.versions)
    for node in order:
        assert set(upstream(node, observed)) <= seen, node
        seen.add(node)
    of_raw = {asset_of(node) for node in order if split_name(node).encoder == "raw"}
    assert of_raw == set(OF_ENCODER) - {"pool_map", WARMUP}  # no task wants a report, nothing is trained


def test_a_task_is_made_from_nothing_of_another_encoder(both, observed):
    for task, encoder in (("t0", "default"), ("t1", "raw")):
        versions, _ = lineage(both / "storage", stored(both / "storage", f"sampled_subset|{task}").header)
        decided = [node for node in versions if asset_of(node) in (*OF_ENCODER, "encoder_settings")]
        assert {split_name(node).encoder for node in decided} == {encoder}


def test_dagster_draws_the_same_graph(both, observed):
    graph = definitions(str(both)).resolve_asset_graph()
    for node in (node for node in nodes(observed) if not is_model(node)):
        parents = graph.get(asset_key(node)).parent_keys
        assert {asset_key(up) for up in upstream(node, observed)} <= parents, node
        own = split_name(node).encoder
        if asset_of(node) in OF_ENCODER:
            assert {own, "default"} >= {split_name("/".join(key.path)).encoder for key in parents}
        for read in ALSO_READ.get(asset_of(node), ()):
            assert asset_key(read) in parents


def test_nothing_is_due_afterwards(both):
    assert made(refreshed(both)) == []
    assert not {node for node in next_nodes(observe(Project.load(both))) if "|" in node}


def test_a_change_of_one_encoder_reaches_its_tasks_only(both, tmp_path):
    root = shutil.copytree(both, tmp_path / "project")
    before = tables(root, "t0")
    (root / "tsds.toml").write_text((SETTINGS + RAW).replace("kernel_radius = 0.3", "kernel_radius = 0.4"))
    changed = made(refreshed(root))
    assert changed[:3] == [
        *(node_name("kde_densities", s, "raw") for s in ("s0", "s1")),
        node_name("pool_summary", encoder="raw"),
    ]
    assert {node.rpartition("|")[2] for node in changed[3:]} == {"t1"}
    assert all(found.equals(expected) for found, expected in zip(tables(root, "t0"), before, strict=True))
    # Back to one encoder: what the other one made is garbage, and its task is made with the default one.
    (root / "tsds.toml").write_text(SETTINGS)
    changed = made(refreshed(root))
    assert changed == [
        "query_embeddings|t1",
        *(f"query_neighbors|{source}|t1" for source in ("s0", "s1")),
        "selection_probabilities|t1",
        "sampled_subset|t1",
    ]
    found = {str(one.path.relative_to(root / "storage")) for one in garbage(observe(Project.load(root)))}
    assert "encoders/raw" in found


def test_people_are_told(both):
    assert describe("encoders/raw/kde_densities|s0") == "kde_densities[s0] of encoder raw"
    assert summarize(Project.load(both), "t1").pool == {"s0": 30, "s1": 30}
    assert "task t1    fresh" in tsds("status", "--project", both).stdout
    assert "query 1" in tsds("show", "t1", "--project", both).stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[tasks.t1]\nencoder = "rew"\n[encoders.raw]\n',
            r'\[tasks.t1\] encoder = "rew": .*did you mean "raw"',
        ),
        ("[encoders.default]\n", r"the default encoder is \[encoder\]"),
        (
            '[encoder]\nkind = "precomputed"\n[encoders.b]\nkind = "precomputed"\nfield = "b"\n',
            "one field holds the vectors of all records, found b, embedding",
        ),
        ("[encoders.a]\nmodle = 1\n", r"\[encoders.a\] modle: unknown key \(did you mean"),
        ("[encoders.a]\nkernel_radius = -1\n", r"\[encoders.a\] kernel_radius = -1: must be a finite number"),
    ],
)
def test_wrong_settings(tmp_path, text, message):
    (tmp_path / "tsds.toml").write_text(text)
    with pytest.raises(TsdsError, match=message):
        load_settings(tmp_path / "tsds.toml")
