"""Exact neighbours against brute force; FAISS indexes behind the same interface."""

import faiss
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsds_pipeline.core import machine, neighbors
from tsds_pipeline.core.arrays import all_distances, as_vectors, pair_distances
from tsds_pipeline.core.cells import Cells
from tsds_pipeline.core.neighbors import CellSearch, ExactSearch, FaissSearch, InvertedFileSearch
from tsds_pipeline.core.row_stack import RowStack


def expected(queries: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    d = pair_distances(
        queries,
        candidates,
        np.repeat(np.arange(len(queries)), len(candidates)),
        np.tile(np.arange(len(candidates)), len(queries)),
    ).reshape(len(queries), len(candidates))
    order = np.argsort(d, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(d, order, axis=1), order


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 40),
    n=st.integers(1, 300),
    dim=st.sampled_from([1, 3, 50]),
    k=st.integers(1, 400),
    kind=st.sampled_from(["free", "lattice", "family", "offset"]),
)
def test_neighbors_are_those_of_brute_force_in_order_of_distance_then_row(seed, m, n, dim, k, kind):
    rng = np.random.default_rng(seed)
    x, q = rng.normal(size=(n, dim)), rng.normal(size=(m, dim))
    if kind == "lattice":
        x, q = np.round(x), np.round(q)
    if kind == "family":
        x[: n // 2] = x[0]
        q[0] = x[0]
    if kind == "offset":
        x, q = x + 1000, q + 1000
    x, q = x.astype(np.float32), q.astype(np.float32)
    found = ExactSearch(RowStack([x])).search(q, k)
    distances, indices = expected(q, x, min(k, n))
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.distances, distances)
    np.testing.assert_allclose(distances, np.sort(oracles.distances(q, x), axis=1)[:, :k], rtol=1e-12)


def test_a_family_of_copies_longer_than_the_search_is_searched_deeper():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(500, 8)), np.tile(rng.normal(size=(1, 8)), (3000, 1))]).astype(
        np.float32
    )
    x = x[rng.permutation(3500)]
    q = np.concatenate([x[:5], rng.normal(size=(30, 8)).astype(np.float32)])
    found = ExactSearch(RowStack([x])).search(q, 10)
    np.testing.assert_array_equal(found.indices, expected(q, x, 10)[1])


@pytest.mark.parametrize("k", [1, 40, 700])
def test_blocks_of_candidates_give_the_same_neighbors(monkeypatch, tmp_path, k):
    rng = np.random.default_rng(4)
    x, q = (rng.normal(size=(n, 8)).astype(np.float16) for n in (2000, 30))
    x[5::7] = x[3]
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    q = q.astype(np.float32)
    whole = ExactSearch(RowStack([x.astype(np.float32)])).search(q, k)
    monkeypatch.setattr(neighbors, "_LEAST_ROWS", 7)
    monkeypatch.setattr(machine, "_SMALLEST_BLOCK", 1024)
    monkeypatch.setattr(machine, "_LARGEST_BLOCKS", 1024)
    for stack in (RowStack([mapped]), RowStack([mapped[:100], mapped[100:]])):
        for found, expected_ in zip(ExactSearch(stack).search(q, k), whole, strict=True):
            np.testing.assert_array_equal(found, expected_)


def clustered(n: int, m: int, dim: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    centers = rng.normal(size=(30, dim))
    x, q = (centers[rng.integers(30, size=c)] + 0.4 * rng.normal(size=(c, dim)) for c in (n, m))
    return x.astype(np.float32), q.astype(np.float32)


def test_the_cells_around_a_query_hold_its_neighbors_or_more_are_looked_at(monkeypatch):
    monkeypatch.setattr(neighbors, "_PROBES", 1)
    monkeypatch.setattr(neighbors, "_AUDITED", 199)
    x, q = clustered(60_000, 200)
    search = CellSearch(Cells(RowStack([x]), 0.1))
    found, (distances, indices) = search.search(q, 10), expected(q, x, 10)
    assert search.recall >= neighbors.RECALL
    np.testing.assert_array_equal(found.distances, distances)
    np.testing.assert_array_equal(found.indices, indices)
    monkeypatch.setattr(neighbors, "_AUDITED", 20)
    found = search.search(q, 10)
    assert (found.distances <= distances[:, -1:]).mean() > 0.99
    assert (np.diff(found.distances, axis=1) >= 0).all()
    same = found.indices == indices
    np.testing.assert_array_equal(found.distances[same], distances[same])


def test_where_cells_would_be_most_of_the_pool_all_of_it_is_searched(monkeypatch):
    x, q = clustered(5000, 50)
    search = CellSearch(Cells(RowStack([x]), 0.1))
    found = search.search(q, 300)
    np.testing.assert_array_equal(found.indices, expected(q, x, 300)[1])
    assert search.recall == 1.0


def test_a_flat_index_finds_the_same():
    rng = np.random.default_rng(1)
    x, q = (rng.normal(size=(n, 8)).astype(np.float32) for n in (400, 20))
    flat = faiss.IndexFlatL2(8)
    flat.add(x)
    found, exact = (
        search.search(q, 7) for search in (FaissSearch(flat, RowStack([x])), ExactSearch(RowStack([x])))
    )
    np.testing.assert_array_equal(found.distances, exact.distances)
    np.testing.assert_array_equal(found.indices, exact.indices)


@pytest.mark.parametrize("factory", ["IVF300,Flat", "PCA12,IVF300,SQ8"])
def test_as_many_lists_of_an_inverted_file_are_probed_as_the_recall_needs(monkeypatch, factory):
    monkeypatch.setattr(neighbors, "_PROBES", 1)
    monkeypatch.setattr(neighbors, "_AUDITED", 199)
    x, q = clustered(20_000, 200)
    index = faiss.index_factory(24, factory)
    index.train(x)
    index.add(x)
    index.search(q, 1)
    search = InvertedFileSearch(index, RowStack([x]))
    found, (distances, _) = search.search(q, 10), expected(q, x, 10)
    assert (found.distances <= distances[:, -1:]).mean() >= neighbors.RECALL
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert neighbors.RECALL <= search.recall <= (found.distances <= distances[:, -1:]).mean() + 1e-9


@pytest.mark.parametrize("kind", ["cells", "inverted file"])
def test_cells_of_too_few_rows_are_no_reason_to_find_fewer(monkeypatch, kind):
    monkeypatch.setattr(neighbors, "_PROBES", 1)
    monkeypatch.setattr(neighbors, "_ROWS_PER_NEIGHBOR", 0)
    monkeypatch.setattr(neighbors, "_AUDITED", 1)
    rng = np.random.default_rng(6)
    x = rng.normal(size=(20_000, 8)).astype(np.float32)
    x[:40] += 100  # a group of its own
    q = x[:3] + np.float32(0.01)
    if kind == "cells":
        search = CellSearch(Cells(RowStack([x]), 0.1))
    else:
        index = faiss.index_factory(8, "IVF100,Flat")
        index.train(x)
        index.add(x)
        search = InvertedFileSearch(index, RowStack([x]))
    for queries in (q[:2], q):
        found = search.search(queries, 300)
        np.testing.assert_array_equal(found.indices, expected(queries, x, 300)[1])


def test_where_float32_cannot_tell_all_is_searched():
    x, q = clustered(30_000, 50)
    x, q = x + 3000, q + 3000
    search = CellSearch(Cells(RowStack([x]), 0.1))
    np.testing.assert_array_equal(search.search(q, 10).indices, expected(q, x, 10)[1])
    assert search.recall == 1.0


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_all_distances_keep_their_digits_where_they_are_small(seed, scale):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(30, 20)) + 5).astype(np.float32)
    y = np.concatenate(
        [x[:10], x[10:20] * np.float32(1 + 1e-6), rng.normal(size=(20, 20)).astype(np.float32)]
    )
    x, y = x * np.float32(scale), y * np.float32(scale)
    np.testing.assert_allclose(all_distances(x, y), oracles.distances(x, y), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(3), r"shape \(n, dim\), got shape \(3,\)"),
        (np.ones((0, 3)), "non-empty"),
        (np.ones((3, 0)), "non-empty"),
        (np.array([["a"]]), "real numbers"),
        (np.array([[1j]]), "real numbers"),
    ],
)
def test_what_is_no_array_of_vectors_is_named(array, message):
    with pytest.raises(ValueError, match=message):
        as_vectors(array, "queries")
    with pytest.raises(ValueError, match=message):
        RowStack.of(array, "queries", normalize=False)
