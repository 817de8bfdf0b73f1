"""The figures of a task's summary are those of what is stored."""

import numpy as np
import polars as pl
import pytest

from tests.projects import clustered, make_project, records, refreshed, write_records
from tsds_pipeline.project import Project
from tsds_pipeline.summary import StoredVectors, summarize, summarize_pool, texts_of


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A third source holds nine near-duplicates of a query, and one exact copy."""
    root = tmp_path_factory.mktemp("summary")
    make_project(root, sources=2, tasks=1, n=30)
    near = np.repeat(clustered(7, 100)[3:4], 9, axis=0) + 1e-3 * np.random.default_rng(0).normal(size=(9, 12))
    rows = records("s2", near.astype(np.float32))
    write_records(root / "sources" / "s2.jsonl", [*rows, {**rows[0], "id": "copy"}])
    refreshed(root)
    return Project.load(root)


def test_a_task(project):
    summary = summarize(project, "t0")
    assert (summary.task, summary.queries, summary.size, summary.epochs) == ("t0", 7, 12, 1)
    assert summary.query_texts
    assert all(text.endswith(" of t0") for text in summary.query_texts)
    drawn = summary.drawn_by_source()
    assert sum(drawn.values()) == 12
    assert list(drawn.values()) == sorted(drawn.values(), reverse=True)
    assert summary.examples["distance"].is_sorted()
    assert summary.examples["distance"][0] == summary.sample["distance"].min()
    assert summary.examples["distance"][-1] == summary.sample["distance"].max()
    assert all(path.exists() for path in summary.files)


def test_near_duplicates_of_a_task(project):
    crowd = summarize(project, "t0").crowd
    table = pl.read_parquet(project.storage / "selection_probabilities" / "t0.parquet")
    crowded = table.filter(pl.col("density") > pl.col("count"))
    assert crowd.shared
    assert crowd.candidates == len(crowded)
    assert crowd.weight == pytest.approx((crowded["count"] / crowded["density"]).sum())
    assert set(crowd.group["source"]) == {"s2"}
    assert len(crowd.group) == 9
    assert crowd.group_weight == pytest.approx(1.0, abs=0.01)


def test_the_pool(project):
    pool = summarize_pool(project)
    assert pool.candidates["s2"] == 9
    assert pool.copies == 1
    assert pool.crowded_source == "s2"
    assert pool.density == pytest.approx(10, abs=0.1)
    assert pool.near_duplicates >= 9
    assert pool.total_weight < sum(pool.candidates.values()) - 8


def test_what_is_no_longer_there(project):
    gone = pl.DataFrame({"source": ["s0", "nowhere"], "content_id": ["0" * 32, "1" * 32]})
    assert texts_of(project, gone).to_list() == [None, None]
    assert np.isnan(StoredVectors(project).of(gone)).all()
