"""Folds of the queries, and the pool as some of them see it."""

import numpy as np
import pytest

from tests.stages.test_pool import QUERIES, stored_pool
from tsds_pipeline.core.transport import solve
from tsds_pipeline.settings import Settings
from tsds_pipeline.stages import holdout, neighbors, pool
from tsds_pipeline.stages.holdout import QueriesOfPool, RememberingPool, folds
from tsds_pipeline.stages.probabilities import solve_task

IDS = [f"content {n}" for n in range(10)]


def test_folds_are_even_and_depend_on_contents_and_key_alone():
    found = folds(IDS, 4, "key")
    assert sorted(np.bincount(found)) == [2, 2, 3, 3]
    assert np.array_equal(folds(IDS[::-1], 4, "key")[::-1], found)
    assert not np.array_equal(folds(IDS, 4, "another"), found)


def test_copies_of_a_query_are_in_one_fold():
    found = folds(IDS + IDS[:5], 4, "key")
    assert np.array_equal(found[10:], found[:5])
    assert np.array_equal(found[:10], folds(IDS, 4, "key"))


@pytest.mark.parametrize(("contents", "expected"), [(3, 3), (2, 2), (1, 1)])
def test_fewer_contents_than_folds(contents, expected):
    assert set(folds(IDS[:contents] * 2, 4, "key")) == set(range(expected))


@pytest.mark.parametrize("algorithm", ["knn_kde", "knn_tv"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("depth", [3, 128])
def test_some_queries_solve_as_if_there_were_no_others(monkeypatch, depth, alpha, algorithm):
    for module in (neighbors, pool):
        monkeypatch.setattr(module, "DEPTH", depth)
    rows = np.array([7, 0, 4])
    everything, vectors, _ = stored_pool(uniform=algorithm != "knn_kde")
    some = QueriesOfPool(everything, rows)
    found = solve(some, len(rows), algorithm=algorithm, alpha=alpha)
    alone, _, _ = stored_pool(uniform=algorithm != "knn_kde", queries=QUERIES[rows])
    expected = solve(alone, len(rows), algorithm=algorithm, alpha=alpha)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-12, atol=1e-15)
    assert some.size == len(vectors)


def test_a_view_is_solved_like_a_task():
    everything, _, _ = stored_pool(uniform=False)
    some = QueriesOfPool(everything, np.array([1, 2, 8]))
    settings = Settings.model_validate({"selection": {"size": 20}}).resolved_task("t")
    solved = solve_task("t", settings, some)
    assert solved.solution.plan.n_queries == 3
    assert np.square(solved.solution.probabilities).sum() <= 1 / 20 + 1e-9


@pytest.mark.parametrize("remembered", [9 * 40, 2**23])
def test_a_pool_that_remembers_finds_the_same(monkeypatch, remembered):
    for module in (holdout, neighbors, pool):
        monkeypatch.setattr(module, "DEPTH", 3)
    monkeypatch.setattr(holdout, "_REMEMBERED", remembered)
    bare, vectors, _ = stored_pool(uniform=False)
    pools = [RememberingPool(bare)]
    pools.append(RememberingPool(bare, like=pools[0]))
    for k, rows in [
        (2, [1, 0]),
        (5, [8, 1]),
        (30, [1, 3]),
        (7, range(9)),
        (200, [2]),
        (999, [4, 0]),
    ]:
        rows, most = np.array(rows, dtype=np.int64), min(k, len(vectors))
        for remembering in pools:
            for found, expected in zip(remembering.nearest(rows, k), bare.nearest(rows, k), strict=True):
                assert np.array_equal(found[:, :most], expected[:, :most])
    for algorithm, alpha in [("knn_kde", 0.0), ("knn_kde", 0.6), ("knn_uniform", 0.95)]:
        found, expected = (
            solve(QueriesOfPool(one, np.arange(5)), 5, algorithm=algorithm, alpha=alpha)
            for one in (pools[1], bare)
        )
        assert np.array_equal(found.probabilities, expected.probabilities)


def test_a_pool_that_remembers_searches_once(monkeypatch):
    for module in (holdout, neighbors, pool):
        monkeypatch.setattr(module, "DEPTH", 3)
    bare, _, _ = stored_pool(uniform=False)
    searched = []
    nearest = bare.nearest
    monkeypatch.setattr(bare, "nearest", lambda rows, k: searched.append((list(rows), k)) or nearest(rows, k))
    remembering = RememberingPool(bare)
    for rows in ([0, 1, 2], [2, 1], [1, 2, 3]):
        QueriesOfPool(remembering, np.array(rows)).nearest(np.arange(len(rows)), 10)
    RememberingPool(bare, like=remembering).nearest(np.array([3, 0]), 40)
    assert searched == [([0, 1, 2], 40), ([3], 40)]


def test_a_pool_that_remembers_has_what_a_pool_has():
    bare, vectors, _ = stored_pool(uniform=False)
    remembering, some = RememberingPool(bare), np.array([200, 0, 91])
    for name in ("units", "queries", "content_ids"):
        assert np.array_equal(getattr(remembering, name), getattr(bare, name))
    for name in ("examples", "size"):
        assert getattr(remembering, name) == getattr(bare, name)
    assert remembering.total_weight() == bare.total_weight()
    assert np.array_equal(remembering.weights(some), bare.weights(some))
    assert np.array_equal(remembering.vectors(some), vectors[some])
    assert remembering.sources(some).equals(bare.sources(some))
