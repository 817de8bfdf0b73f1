"""Exact neighbours against brute force; FAISS indexes behind the same interface."""

import faiss
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsds_pipeline.core.arrays import all_distances, as_vectors, pair_distances, unit_vectors
from tsds_pipeline.core.neighbors import ExactSearch, FaissSearch


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
    found = ExactSearch(x).search(q, k)
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
    found = ExactSearch(x).search(q, 10)
    np.testing.assert_array_equal(found.indices, expected(q, x, 10)[1])


def test_a_flat_index_finds_the_same_and_short_lists_stay_padded():
    rng = np.random.default_rng(1)
    x, q = (rng.normal(size=(n, 8)).astype(np.float32) for n in (400, 20))
    flat = faiss.IndexFlatL2(8)
    flat.add(x)
    for found, exact in zip(FaissSearch(flat, x).search(q, 7), ExactSearch(x).search(q, 7), strict=True):
        np.testing.assert_array_equal(found, exact)
    inverted = faiss.index_factory(8, "IVF40,Flat")
    inverted.train(x)
    inverted.add(x)
    found = FaissSearch(inverted, x).search(q, 60)
    padding = found.indices < 0
    assert padding.any()
    assert np.isinf(found.distances[padding]).all()
    assert (np.diff(np.where(padding, 1e9, found.distances), axis=1) >= 0).all()


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
        (np.array([[1.0], [np.nan]]), r"queries\[1\] has a value that is not finite"),
        (np.array([[1e300]]), r"queries\[0\] has a value that is not finite in float32"),
    ],
)
def test_what_is_no_array_of_vectors_is_named(array, message):
    with pytest.raises(ValueError, match=message):
        as_vectors(array, "queries")


def test_vectors_are_copied_only_where_they_must_be():
    x = np.random.default_rng(2).normal(size=(10, 4)).astype(np.float32)
    assert np.shares_memory(as_vectors(x, "x"), x)
    for other in (x.astype(np.float64), x.astype(np.float16), np.asfortranarray(x), x[::2, ::-1]):
        assert as_vectors(other, "x").flags.c_contiguous
        assert as_vectors(other, "x").dtype == np.float32
    unit = unit_vectors(x, "x")
    assert unit_vectors(unit, "x") is unit
    np.testing.assert_allclose(np.linalg.norm(unit.astype(float), axis=1), 1, atol=1e-6)
    partly = unit.copy()
    partly[3] *= 2
    np.testing.assert_allclose(unit_vectors(partly, "x"), unit, atol=1e-7)
    np.testing.assert_array_equal(unit_vectors(partly, "x")[:3], unit[:3])
    with pytest.raises(ValueError, match=r"x\[2\] is all zeros"):
        unit_vectors(np.concatenate([x[:2], np.zeros((1, 4), dtype=np.float32)]), "x")
