"""Every method against a slow counterpart, over pools with copies, ties and texts that stand in several sources."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.oracles import MatrixPool, densities, distances
from tsds_pipeline.core import baselines
from tsds_pipeline.core.array_pool import ArrayPool
from tsds_pipeline.core.baselines import METHODS, Target, log_importance_ratios
from tsds_pipeline.core.config import SelectionConfig
from tsds_pipeline.core.neighbors import Neighbors
from tsds_pipeline.core.prepared import PreparedPool
from tsds_pipeline.core.sampling import inclusion_probabilities
from tsds_pipeline.core.transport import solve, solve_auto

ORDERED = ["top_k", "round_robin", "round_robin_deduplicated"]


class ShortPool(MatrixPool):
    """Gives more columns than it is asked for, as the pipeline's does, and finds at most ``most`` neighbours."""

    def __init__(self, d: np.ndarray, weights: np.ndarray, most: int | None = None):
        super().__init__(d, weights)
        self.most = self.size if most is None else most

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        near = super().nearest(rows, min(k + 3, self.most))
        missing = max(0, min(k, self.size) - near.indices.shape[1])
        return Neighbors(
            np.pad(near.distances, ((0, 0), (0, missing)), constant_values=np.inf),
            np.pad(near.indices, ((0, 0), (0, missing)), constant_values=-1),
        )


@dataclass(frozen=True)
class Case:
    target: Target
    d: np.ndarray
    rows: np.ndarray
    size: int

    @property
    def units(self) -> np.ndarray:
        return self.target.unit_of


@st.composite
def cases(draw) -> Case:
    """1 to 5 queries, 1 to 30 candidates on a coarse grid (ties and copies), units of one or more candidates."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m, n, dim = draw(st.integers(1, 5)), draw(st.integers(1, 30)), draw(st.integers(1, 3))
    grid = draw(st.sampled_from([1.0, 4.0, 1000.0]))
    queries, rows = (np.round(rng.normal(size=(k, dim)) * grid) / grid for k in (m, n))
    queries, rows = queries.astype(np.float32), rows.astype(np.float32)
    units = None
    if draw(st.booleans()):
        _, units = np.unique(rng.integers(0, n, n), return_inverse=True)
        _, first = np.unique(units, return_index=True)
        rows = rows[first[units]]  # the same text has the same vector
    d, radius = distances(queries, rows), draw(st.sampled_from([0.25, 1.0]))
    rho = densities(rows, radius, np.ones(n), rows)
    target = Target(
        queries,
        ShortPool(d, 1 / rho),
        ShortPool(d, np.ones(n)),
        rows.__getitem__,
        units,
        radius,
        rng.normal(size=n),
    )
    size = draw(st.integers(1, len(target.first_of_unit)))
    return Case(target, d, rows, size)


@pytest.fixture
def shallow(monkeypatch):
    """Has small pools searched deeper and deeper, in small blocks."""
    monkeypatch.setattr(baselines, "_FIRST_DEPTH", 1)
    monkeypatch.setattr(baselines, "_PAIRS_AT_ONCE", 8)
    monkeypatch.setattr(baselines, "_COMPARED_AT_ONCE", 3)
    monkeypatch.setattr(baselines, "_TAKEN_AT_ONCE", 2)


def slow_top_k(case: Case) -> list[int]:
    nearest = case.d.min(axis=0)
    chosen: list[int] = []
    for candidate in sorted(range(len(nearest)), key=lambda j: (nearest[j], j)):
        if case.units[candidate] not in case.units[chosen]:
            chosen.append(candidate)
    return chosen[: case.size]


def slow_round_robin(case: Case, radius: float | None) -> list[int]:
    """All that can be taken, up to the size, by looking at all candidates each time."""
    chosen: list[int] = []
    progress = True
    while progress:
        progress = False
        for row in case.d:
            for candidate in sorted(range(len(row)), key=lambda j: (row[j], j)):
                if case.units[candidate] in case.units[chosen]:
                    continue
                gaps = distances(case.rows[[candidate]], case.rows[chosen])[0] if chosen else np.array([])
                if radius is None or not (gaps <= radius).any():
                    chosen.append(candidate)
                    progress = True
                    break
            if len(chosen) == case.size:
                return chosen
    return chosen


def select(name: str, case: Case, seed: int = 0) -> np.ndarray:
    return METHODS[name](case.target, case.size, np.random.default_rng(seed))


@pytest.mark.usefixtures("shallow")
@given(cases())
def test_top_k(case):
    assert select("top_k", case).tolist() == slow_top_k(case)


@pytest.mark.usefixtures("shallow")
@given(cases())
def test_round_robin(case):
    assert select("round_robin", case).tolist() == slow_round_robin(case, None)


@pytest.mark.usefixtures("shallow")
@given(cases())
def test_round_robin_deduplicated(case):
    expected = slow_round_robin(case, case.target.kernel_radius)
    if len(expected) == case.size:
        assert select("round_robin_deduplicated", case).tolist() == expected
    else:
        with pytest.raises(ValueError, match=f"only {len(expected)} could be taken"):
            select("round_robin_deduplicated", case)


@pytest.mark.parametrize(("queries", "copies"), [(3, 0.0), (3, 0.9), (200, 0.0), (200, 0.5), (200, 0.95)])
def test_duplicates_are_looked_for_in_few_large_products(monkeypatch, queries, copies):
    """The same as one by one, but what was taken is read a quarter as often."""
    monkeypatch.setattr(baselines, "_COMPARED_AT_ONCE", 64)
    rng = np.random.default_rng(0)
    n, size = 3000, 1000 if copies < 0.9 else 250
    rows = rng.normal(size=(n, 8))
    same = np.flatnonzero(rng.random(n) < copies)
    rows[same] = rows[rng.integers(0, n, len(same))] + rng.normal(size=(len(same), 8)) * 0.01
    rows = rows.astype(np.float32)
    wanted = rng.normal(size=(queries, 8)).astype(np.float32)
    pool = MatrixPool(distances(wanted, rows), np.ones(n))
    target = Target(wanted, pool, pool, rows.__getitem__, kernel_radius=0.5)
    read, near = [], baselines._Taken._near
    monkeypatch.setattr(
        baselines._Taken,
        "_near",
        lambda self, some, start: read.append(self._count - start) or near(self, some, start),
    )
    found = METHODS["round_robin_deduplicated"](target, size, rng)
    expected, closed, at, asked = [], np.zeros(n, bool), np.zeros(queries, int), []
    order = np.argsort(pool.distances(np.arange(queries)), axis=1, kind="stable")
    while len(expected) < size:
        for row in range(queries):
            while True:
                candidate = order[row, at[row]]
                at[row] += 1
                if closed[candidate]:
                    continue
                closed[candidate] = True
                asked.append(len(expected))
                if (np.linalg.norm(rows[expected].astype(float) - rows[candidate], axis=1) > 0.5).all():
                    expected.append(candidate)
                    break
            if len(expected) == size:
                break
    assert found.tolist() == expected
    assert sum(read) < sum(asked) / 4


@given(cases(), st.sampled_from(sorted(METHODS)))
def test_distinct_units_and_the_same_again(case, name):
    try:
        chosen = select(name, case)
    except ValueError:
        assert name == "round_robin_deduplicated"
        return
    assert chosen.dtype == np.int64
    assert chosen.shape == (case.size,)
    assert len(np.unique(case.units[chosen])) == case.size
    np.testing.assert_array_equal(chosen, select(name, case))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_more_than_there_is(name):
    rows = np.eye(3, dtype=np.float32)[[0, 1, 1]]
    d = distances(rows[:2], rows)
    pool = MatrixPool(d, np.ones(3))
    target = Target(rows[:2], pool, pool, rows.__getitem__, np.array([0, 1, 1]), 0.1, np.zeros(3))
    assert len(METHODS[name](target, 2, np.random.default_rng(0))) == 2
    for size in (3, 0):
        with pytest.raises(ValueError):
            METHODS[name](target, size, np.random.default_rng(0))


@pytest.mark.parametrize("name", ORDERED)
def test_a_search_that_finds_too_few(name):
    d = np.arange(20.0).reshape(1, 20)
    pool, rows = ShortPool(d, np.ones(20), most=5), d.T.astype(np.float32)
    target = Target(np.zeros((1, 1), np.float32), pool, pool, rows.__getitem__)
    assert METHODS[name](target, 5, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="only 5 could be taken"):
        METHODS[name](target, 6, np.random.default_rng(0))


def test_random_is_uniform_over_units():
    pool = MatrixPool(np.ones((1, 5)), np.ones(5))
    target = Target(np.zeros((1, 1)), pool, pool, np.eye(5).__getitem__, np.array([0, 0, 0, 1, 2]))
    rng = np.random.default_rng(0)
    counts = np.bincount(
        np.concatenate([METHODS["random"](target, 2, rng) for _ in range(3000)]), minlength=5
    )
    np.testing.assert_allclose(counts / 3000, [2 / 3, 0, 0, 2 / 3, 2 / 3], atol=0.04)


def test_dsir_draws_one_after_the_other_by_the_weights():
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    pool = MatrixPool(np.ones((1, 4)), np.ones(4))
    target = Target(np.zeros((1, 1)), pool, pool, np.eye(4).__getitem__, log_weights=np.log(weights) + 7)
    rng, draws = np.random.default_rng(0), 4000
    first, second = np.array([METHODS["dsir"](target, 2, rng) for _ in range(draws)]).T
    np.testing.assert_allclose(np.bincount(first, minlength=4) / draws, weights, atol=0.03)
    after = [sum(weights[i] * weights[j] / (1 - weights[i]) for i in range(4) if i != j) for j in range(4)]
    np.testing.assert_allclose(np.bincount(second, minlength=4) / draws, after, atol=0.03)
    with pytest.raises(ValueError, match="dsir needs log_weights"):
        METHODS["dsir"](replace(target, log_weights=None), 2, rng)


@pytest.mark.parametrize("name", ["knn_kde", "knn_uniform", "knn_tv"])
def test_plans_are_drawn_from_with_their_probabilities(name):
    rng = np.random.default_rng(1)
    queries, rows = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(60, 3)).astype(np.float32)
    config = SelectionConfig(kernel_radius=1.0, normalize=False)
    prepared = PreparedPool(rows, config)
    weighted, uniform = (ArrayPool(queries, prepared, weighted=weighted) for weighted in (True, False))
    target = Target(queries, weighted, uniform, rows.__getitem__, kernel_radius=1.0)
    draws = np.concatenate([METHODS[name](target, 10, rng) for _ in range(250)])
    if name == "knn_tv":
        solutions = (solve(uniform, 4, algorithm=name, alpha=tenths / 10) for tenths in range(6, -1, -1))
        p = next(s.probabilities for s in solutions if np.count_nonzero(s.probabilities) >= 10)
    else:
        p = solve_auto(weighted if name == "knn_kde" else uniform, 4, 10, algorithm=name).probabilities
    assert not np.bincount(draws, minlength=60)[p == 0].any()
    np.testing.assert_allclose(
        np.bincount(draws, minlength=60) / 250, inclusion_probabilities(p, 10), atol=0.12
    )


def test_copies_take_the_place_of_others_except_where_they_are_known():
    """100 near-copies of the candidate that is nearest to all queries."""
    rng = np.random.default_rng(0)
    queries, rows = rng.normal(size=(5, 8)), rng.normal(size=(500, 8))
    rows[:100] = queries.mean(axis=0) + rng.normal(size=(100, 8)) * 0.001
    queries, rows = queries.astype(np.float32), rows.astype(np.float32)
    prepared = PreparedPool(rows, SelectionConfig(kernel_radius=0.1, normalize=False))
    weighted, uniform = (ArrayPool(queries, prepared, weighted=weighted) for weighted in (True, False))
    target = Target(queries, weighted, uniform, rows.__getitem__)
    copies = {
        name: np.count_nonzero(METHODS[name](target, 60, rng) < 100) for name in METHODS if name != "dsir"
    }
    assert copies["round_robin_deduplicated"] <= 1
    assert copies["knn_kde"] <= 4
    assert copies["top_k"] > 30
    assert copies["knn_uniform"] > 10


def test_units_without_gaps():
    pool = MatrixPool(np.ones((1, 3)), np.ones(3))
    target = Target(np.zeros((1, 1)), pool, pool, np.eye(3).__getitem__, np.array([0, 2, 2]))
    with pytest.raises(ValueError, match="numbered from 0 without gaps"):
        METHODS["random"](target, 1, np.random.default_rng(0))


def test_importance_weights_by_their_definition():
    pool = np.array([[2.0, 0, 1, 0], [0, 3, 0, 0], [0, 0, 0, 0]])
    target = np.array([[4.0, 0, 0, 1], [1, 0, 0, 0]])
    p_target = (target.sum(axis=0) + 1) / (target.sum() + 4)
    p_pool = pool.sum(axis=0) / pool.sum() + 1e-8
    expected = [
        sum(count * np.log(p / q) for count, p, q in zip(row, p_target, p_pool, strict=True)) for row in pool
    ]
    found = pool @ log_importance_ratios(pool.sum(axis=0), target.sum(axis=0))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.argmax() == 0
    with pytest.raises(ValueError, match="same buckets"):
        log_importance_ratios(pool.sum(axis=0), target[0, :3])
    with pytest.raises(ValueError, match="no n-grams"):
        log_importance_ratios(np.zeros(4), target[0])
