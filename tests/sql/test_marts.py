"""The shipped models, made by a refresh of a small project, against the same computed another way."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.projects import SETTINGS, clustered, made_models, make_project, records, refreshed
from tsds_pipeline.graph import nodes, observe
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_result
from tsds_pipeline.sql.making import make_model
from tsds_pipeline.sql.warehouse import scratch
from tsds_pipeline.stages.history import History

SOURCES, TASKS = ("s0", "s1", "s2"), ("t0", "t1")
TWO_EPOCHS = "\n[corpus]\nmax_quarantined = 0.5\n[tasks.t1]\nepochs = 2\nsize = 9\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A project that is up to date, in a folder whose name means something to SQL and to wildcards."""
    root = tmp_path_factory.mktemp("marts") / "it's [a] *project"
    make_project(root, 2, 2, n=30, settings=SETTINGS + TWO_EPOCHS)
    text = "".join(json.dumps(row) + "\n" for row in records("s2", clustered(4, 13)))
    (root / "sources" / "s2.jsonl").write_text(text + '{broken\n{"id": "x"}\n{"id": "y"}\n')
    steps = refreshed(root, models=True)
    assert made_models(steps) == list(observe(Project.load(root)).models)
    return root


def model(root: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(root / "storage" / f"{name}.parquet", glob=False)


def by_key(root: Path, asset: str, keys: tuple[str, ...], key: str) -> pl.DataFrame:
    paths = {name: root / "storage" / asset / f"{name}.parquet" for name in keys}
    tables = [
        pl.read_parquet(path, glob=False).with_columns(pl.lit(name).alias(key))
        for name, path in paths.items()
    ]
    return pl.concat(tables, how="diagonal")


def densities(root: Path) -> pl.DataFrame:
    table = by_key(root, "kde_densities", SOURCES, "source")
    return table.with_columns(crowded=pl.col("density") > pl.col("count") * (1 + 1e-9))


def mass(root: Path) -> pl.DataFrame:
    return by_key(root, "selection_probabilities", TASKS, "task")


def drawn(root: Path) -> pl.DataFrame:
    return by_key(root, "sampled_subset", TASKS, "task")


def test_staging(root):
    corpus = by_key(root, "candidate_corpus", SOURCES, "source").sort("source", "content_id")
    staged = model(root, "stg_candidates")
    assert staged.columns == ["source", "content_id", "id", "count", "variants", "characters"]
    assert staged["characters"].to_list() == corpus["text"].str.len_chars().to_list()
    assert staged["id"].to_list() == [variants[0]["record_id"] for variants in corpus["variants"].to_list()]
    assert len(model(root, "stg_queries")) == 14
    names = ["task", "source", "id", "content_id", "probability", "distance"]
    order = {"by": ["task", "probability", "source", "content_id"], "descending": [False, True, False, False]}
    assert_frame_equal(model(root, "stg_probabilities")[names], mass(root)[names].sort(**order))
    names = ["task", "epoch", "draw", "content_id"]
    assert_frame_equal(model(root, "stg_samples")[names], drawn(root)[names].sort(names))


def test_no_text_of_the_corpus_is_copied_by_staging(root):
    for path in (root / "storage").iterdir():
        if path.name.startswith("stg_"):
            assert "text" not in pl.read_parquet(path, glob=False).columns


def test_what_the_vectors_are_like(root):
    table = model(root, "stg_embeddings")
    assert table["source"].to_list() == list(SOURCES)
    assert table["vectors"].to_list() == [30, 30, 4]
    assert table["dimensions"].to_list() == [12] * 3
    for number, seed in enumerate((10, 11)):
        vectors = clustered(30, seed).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1)[:, None]
        assert table["mean_length"][number] == pytest.approx(1, abs=1e-6)
        assert table["concentration"][number] == pytest.approx(np.linalg.norm(vectors.mean(axis=0)), abs=1e-5)


def test_source_coverage(root):
    table = model(root, "source_coverage")
    assert len(table) == len(SOURCES) * len(TASKS)
    for row in table.iter_rows(named=True):
        of_task, sample = mass(root).filter(task=row["task"]), drawn(root).filter(task=row["task"])
        own, taken = of_task.filter(source=row["source"]), sample.filter(source=row["source"])
        assert row["candidates"] == {"s0": 30, "s1": 30, "s2": 4}[row["source"]]
        assert row["pool_share"] == row["candidates"] / 64
        assert row["with_mass"] == len(own)
        assert row["mass"] == pytest.approx(own["probability"].sum())
        assert row["drawn"] == len(taken)
        assert row["drawn_share"] == len(taken) / len(sample)
        assert row["lift"] == pytest.approx(len(taken) / len(sample) / row["pool_share"])
    assert table.group_by("task").agg(pl.col("drawn").sum()).sort("task")["drawn"].to_list() == [12, 18]


def test_near_duplicates(root):
    table, expected = model(root, "near_duplicates"), densities(root).filter("crowded")
    assert len(expected) > 3
    assert table["density"].is_sorted(descending=True)
    names = ["source", "content_id", "density", "count"]
    assert_frame_equal(table[names], expected[names], check_row_order=False)
    for row in table.iter_rows(named=True):
        own = mass(root).filter(source=row["source"], content_id=row["content_id"])
        taken = drawn(root).filter(pl.col("content_id") == row["content_id"])
        assert row["mass"] == pytest.approx(own["probability"].sum())
        assert [one["task"] for one in row["by_task"]] == own["task"].sort().to_list()
        assert row["drawn"] == sum(one["drawn"] for one in row["by_task"]) == len(taken)
        assert row["excerpt"].startswith("text ")


def test_near_duplicate_shares(root):
    table, crowd = model(root, "near_duplicate_shares"), densities(root)
    assert table["task"].to_list() == list(TASKS)
    assert table["pool_share"].to_list() == [crowd["crowded"].sum() / 64] * 2
    keys = ["source", "content_id"]
    for row in table.iter_rows(named=True):
        own = mass(root).filter(task=row["task"]).join(crowd[[*keys, "crowded"]], on=keys)
        sample = drawn(root).filter(task=row["task"]).join(crowd[[*keys, "crowded"]], on=keys)
        assert row["with_mass"] == len(own)
        assert row["near_duplicates"] == own["crowded"].sum()
        assert row["mass"] == pytest.approx(own.filter("crowded")["probability"].sum())
        assert row["drawn"] == sample["crowded"].sum()
        assert row["drawn_share"] == sample["crowded"].sum() / len(sample)


def test_task_overlap(root):
    (row,) = model(root, "task_overlap").iter_rows(named=True)
    first, second = (set(drawn(root).filter(task=task)["content_id"]) for task in TASKS)
    assert (row["task"], row["other_task"]) == TASKS
    assert (row["examples"], row["other_examples"], row["shared"]) == (
        len(first),
        len(second),
        len(first & second),
    )
    assert row["jaccard"] == len(first & second) / len(first | second)


def test_quarantine_reasons(root):
    table = model(root, "quarantine_reasons")
    stored = pl.read_parquet(root / "storage" / "quarantine" / "s2.parquet", glob=False)
    assert table["records"].sum() == len(stored) == 3
    assert table["source"].unique().to_list() == ["s2"]
    for row in table.iter_rows(named=True):
        first = stored.filter(reason=row["reason"]).sort("file", "line").row(0, named=True)
        assert (row["first_file"], row["first_line"], row["excerpt"]) == (
            first["file"],
            first["line"],
            first["excerpt"],
        )


def test_asset_costs(root):
    table = model(root, "asset_costs")
    paths = sorted((root / "storage" / "materializations").iterdir())
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    lines = [line for line in lines if line["asset"] != "asset_costs"]
    assert set(table["asset"]) == {line["asset"] for line in lines}
    for row in table.iter_rows(named=True):
        own = [line for line in lines if line["asset"] == row["asset"]]
        assert row["runs"] == len(own)
        assert row["seconds"] == pytest.approx(sum(line["seconds"] for line in own))
        assert row["median_seconds"] == pytest.approx(np.median([line["seconds"] for line in own]))
        assert row["peak_memory"] == max(line["peak_memory"] for line in own)
        assert row["bytes"] == sum(line["bytes"] for line in own)
        assert row["rows"] == sum(line["rows"] for line in own)


def test_the_log_has_a_line_for_every_result(root):
    observed = observe(Project.load(root))
    lines = [
        json.loads(line) for path in (root / "storage" / "materializations").iterdir() for line in path.open()
    ]
    logged = ["|".join(filter(None, (one["asset"], one["source"], one["task"]))) for one in lines]
    assert sorted(logged) == sorted(nodes(observed))
    for one in lines:
        assert one["made_because"] == "missing"
    sample = load_result(root, "sampled_subset", "t0")
    (line,) = [one for one in lines if one["asset"] == "sampled_subset" and one["task"] == "t0"]
    assert (line["version"], line["rows"], line["bytes"]) == (sample.version, 12, sample.path.stat().st_size)


def test_drift(tmp_path):
    """Of a history that is made up, as a report takes seconds."""
    project = make_project(tmp_path, 1, 1, n=5)
    history = History(project.storage, "t0")
    notes = {"size": 3, "epochs": 1, "seed": 0, "redraws": 0}, {"algorithm": "knn_kde", "alpha": 0.5}
    for version, ids, metrics in (
        ("v1", "abc", {"leaks": 0.0}),
        ("v2", "abd", {"leaks": 0.0, "new": 2.0}),
        ("v3", "xyd", {}),
    ):
        history.record(pl.DataFrame({"content_id": list(ids)}), version, *notes, 0.1, metrics)
    observed = observe(project)
    with scratch(observed) as connection:
        made, _ = make_model(connection, observed.models["selection_drift"], observed)
    names = ["task", "number", "version", "kept", "added", "dropped", "leaks", "new", "examples"]
    assert made.frame[names].rows() == [
        ("t0", 1, "v1", None, None, None, 0.0, None, 3),
        ("t0", 2, "v2", 2, 1, 1, 0.0, 2.0, 3),
        ("t0", 3, "v3", 1, 2, 2, None, None, 3),
    ]
    assert made.frame["kept_share"].to_list() == [None, 2 / 3, 1 / 3]
    assert made.frame["left_of_first"].to_list() == [1.0, 2 / 3, 0.0]
    assert made.frame["made_at"].dtype == pl.Datetime("us")


def test_the_same_inputs_give_the_same_bytes(root):
    paths = {name: root / "storage" / f"{name}.parquet" for name in observe(Project.load(root)).models}
    del paths["asset_costs"]  # tells of the time
    before = {name: path.read_bytes() for name, path in paths.items()}
    for path in paths.values():
        path.unlink()
    assert set(made_models(refreshed(root, models=True))) == paths.keys(), "and nothing for their sake"
    assert {name: path.read_bytes() for name, path in paths.items()} == before
