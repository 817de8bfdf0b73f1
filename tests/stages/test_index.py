import gc

import numpy as np
import polars as pl
import pytest

from tests.projects import SETTINGS, clustered, made, make_project, refreshed
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.results import load_selection
from tsds_pipeline.stages.index import EXACT_UP_TO, build_index, index_factory, open_index
from tsds_pipeline.storage import Artifact, Draft, Header, write_artifact

VECTORS = clustered(300, seed=1)
QUERIES = clustered(8, seed=2)


def stored(tmp_path, factory: str) -> Artifact:
    table = pl.DataFrame(
        {"content_id": [f"{i:032d}" for i in range(len(VECTORS))], "count": [1] * len(VECTORS)}
    )
    payloads = {"index": build_index(VECTORS, factory)}
    if factory != "Flat":
        payloads["vectors"] = VECTORS
    return write_artifact(tmp_path / "s.parquet", Draft(table, Header("v", "1"), payloads))


def exact(k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = np.linalg.norm(QUERIES[:, None].astype(float) - VECTORS, axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


def test_the_automatic_index_is_exact_until_it_is_large():
    assert index_factory("auto", 10, 10**6) == index_factory("auto", EXACT_UP_TO, 10**6) == "Flat"
    assert index_factory("auto", 4_000_000, 24_000) == "Flat"
    assert index_factory("auto", 4_000_000, 24_001) == "IVF8000,Flat"
    assert index_factory("HNSW32", 10, 1) == "HNSW32"


# As many lists as are probed: exact as well.
@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW64"])
def test_neighbours_come_with_exact_distances(tmp_path, factory):
    found = open_index(stored(tmp_path, factory)).search.search(QUERIES, 20)
    distances, order = exact(20)
    np.testing.assert_allclose(found.distances, distances, atol=1e-12)
    assert np.array_equal(found.indices, order)


def test_a_coarse_index_ranks_what_it_finds_on_the_vectors(tmp_path):
    found = open_index(stored(tmp_path, "PQ4x4")).search.search(QUERIES, 20)
    truth = np.linalg.norm(QUERIES[:, None].astype(float) - VECTORS[found.indices], axis=2)
    np.testing.assert_allclose(found.distances, truth, atol=1e-12)
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_mapped_vectors_outlive_everything_else(tmp_path):
    vectors = open_index(stored(tmp_path, "Flat")).vectors
    gc.collect()
    assert np.array_equal(vectors, VECTORS)


@pytest.mark.parametrize("factory", ["IVF100000,Flat", "nonsense", "PQ5"])
def test_an_index_that_cannot_be_built_names_the_setting(factory):
    with pytest.raises(TsdsError, match=rf'\[pool\] index = "{factory}": cannot be built for 300 vectors'):
        build_index(VECTORS, factory)


def test_another_index_gives_the_same_selection_where_it_misses_nothing(tmp_path):
    make_project(tmp_path, sources=2, tasks=1)
    made(refreshed(tmp_path))
    before = load_selection(tmp_path, "t0")
    (tmp_path / "tsds.toml").write_text(SETTINGS.replace("[pool]", '[pool]\nindex = "IVF2,Flat"'))
    again = made(refreshed(tmp_path))
    assert {node.partition("|")[0] for node in again} >= {"faiss_index", "kde_densities", "query_neighbors"}
    assert "candidate_embeddings|s0" not in again
    assert load_selection(tmp_path, "t0").equals(before)
