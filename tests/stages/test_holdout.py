"""Folds of the queries, and the pool as some of them see it."""

import numpy as np
import pytest

from tests.stages.test_pool import QUERIES, stored_pool
from tsds_pipeline.core.transport import solve
from tsds_pipeline.settings import Settings
from tsds_pipeline.stages import neighbors, pool
from tsds_pipeline.stages.holdout import QueriesOfPool, folds
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
