"""The closed forms against linear programming, and every way to the optimum against every other."""

import warnings

import numpy as np
import oracles
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instances import Instance, instances

from tsds_pipeline import SelectionConfig
from tsds_pipeline.core import kernel_transport, problem, rows, transport
from tsds_pipeline.core.array_pool import ArrayPool
from tsds_pipeline.core.prepared import PreparedPool
from tsds_pipeline.core.transport import ALGORITHMS, solve

pytestmark = pytest.mark.filterwarnings("ignore:knn_tv keeps every candidate")
fixed_by_fixture = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def weights(case: Instance, algorithm: str) -> np.ndarray:
    return case.a if algorithm == "knn_kde" else np.ceil(case.a)


def solved(case: Instance, algorithm: str, pool=None, **options):
    pool = oracles.MatrixPool(case.d, weights(case, algorithm)) if pool is None else pool
    options = {"alpha": case.alpha, "distance_scale": case.scale, **options}
    return solve(pool, len(case.d), algorithm=algorithm, **options)


def rounding(gamma: np.ndarray, a: np.ndarray) -> float:
    """What float64 rounding of gamma may do to G, which divides by small weights."""
    return 16 * np.finfo(float).eps * (len(gamma) * gamma / a).max()


def assert_plan(gamma: np.ndarray) -> None:
    assert (gamma >= 0).all()
    np.testing.assert_allclose(gamma.sum(axis=1), 1 / len(gamma), rtol=1e-13)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=200)
@given(case=instances())
def test_objective_is_that_of_the_linear_programme(algorithm, case):
    a = weights(case, algorithm)
    solution = solved(case, algorithm)
    gamma = solution.plan.dense()
    assert_plan(gamma)
    np.testing.assert_allclose(solution.plan.row_sums, gamma.sum(axis=1), rtol=1e-12)
    best = oracles.optimum(case.d, a, algorithm, case.alpha, case.scale)
    reached = oracles.objective(gamma, case.d, a, algorithm, case.alpha, case.scale)
    tolerance = {"rel": 1e-9, "abs": rounding(gamma, a)}
    assert reached == pytest.approx(best, **tolerance)
    assert solution.objective == pytest.approx(reached, **tolerance)
    assert solution.transport_cost == pytest.approx((gamma * case.d).sum(), rel=1e-12)
    assert solution.diversity_penalty == pytest.approx(oracles.penalty(gamma, a, algorithm), **tolerance)
    assert solution.neighborhood_sizes.tolist() == np.count_nonzero(gamma, axis=1).tolist()
    assert not solution.truncated


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=80)
@given(case=instances(), most=st.integers(1, 7))
def test_under_a_limit_too_it_is_that_of_the_linear_programme(algorithm, case, most):
    a, (_, n) = weights(case, algorithm), case.shape
    solution = solved(case, algorithm, max_neighbors=most)
    gamma = solution.plan.dense()
    assert_plan(gamma)
    assert np.count_nonzero(gamma, axis=1).max() <= most
    best = oracles.optimum(case.d, a, algorithm, case.alpha, case.scale, most)
    reached = oracles.objective(gamma, case.d, a, algorithm, case.alpha, case.scale)
    tolerance = {"rel": 1e-9, "abs": rounding(gamma, a)}
    assert reached == pytest.approx(best, **tolerance)
    assert solution.objective == pytest.approx(reached, **tolerance)
    free = oracles.optimum(case.d, a, algorithm, case.alpha, case.scale)
    assert solution.truncated or reached == pytest.approx(free, **tolerance)
    assert most < n or not solution.truncated


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@fixed_by_fixture
@given(case=instances(8, 60))
def test_deepened_neighborhoods_give_what_full_ones_give(algorithm, monkeypatch, case):
    full = solved(case, algorithm)
    with monkeypatch.context() as patch:
        patch.setattr(rows, "FIRST_DEPTH", 2)
        small = solved(case, algorithm)
    np.testing.assert_array_equal(full.plan.dense(), small.plan.dense())
    assert full.spread == small.spread
    assert full.objective == pytest.approx(small.objective, rel=1e-13, abs=1e-15)
    assert not small.truncated


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@fixed_by_fixture
@given(case=instances(8, 60))
def test_whole_rows_and_backgrounds_give_what_explicit_entries_give(algorithm, monkeypatch, case):
    explicit = solved(case, algorithm)
    assert explicit.plan.background == 0
    with monkeypatch.context() as patch:
        patch.setattr(problem, "MAX_KNOWN_PAIRS", 0)
        patch.setattr(problem, "MAX_EXPLICIT_PAIRS", 0)
        patch.setattr(rows, "FIRST_DEPTH", 2)
        patch.setattr(rows, "WHOLE_BYTES", 1000)
        other = solved(case, algorithm)
    assert_plan(np.maximum(other.plan.dense(), 0))
    np.testing.assert_allclose(other.plan.dense(), explicit.plan.dense(), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(other.probabilities, explicit.probabilities, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(other.plan.row_sums, 1 / len(case.d), rtol=1e-11)
    assert other.objective == pytest.approx(
        explicit.objective, rel=1e-9, abs=rounding(explicit.plan.dense(), weights(case, algorithm))
    )
    assert other.neighborhood_sizes.tolist() == explicit.neighborhood_sizes.tolist()


@fixed_by_fixture
@given(case=instances(6, 40))
def test_weights_not_asked_for_leave_only_the_objective_open(monkeypatch, case):
    known = solved(case, "knn_kde")
    pool = oracles.UnseenPool(case.d, case.a, most=case.a.max())
    with monkeypatch.context() as patch:
        patch.setattr(rows, "FIRST_DEPTH", 2)
        unseen = solved(case, "knn_kde", pool)
    np.testing.assert_array_equal(known.plan.dense(), unseen.plan.dense())
    low, high = unseen.objective_bounds
    slack = 1e-9 * abs(known.objective) + rounding(known.plan.dense(), case.a)
    assert low - slack <= known.objective <= high + slack
    assert unseen.objective == (low + high) / 2


@settings(max_examples=100)
@given(case=instances(20, 300))
def test_spread_is_that_of_the_priority_queue(case):
    if not 0 < case.alpha < 1:
        return
    expected = oracles.priority_queue_spread(case.d, case.a, case.alpha, case.scale)
    half = case.a.sum() / 2
    spread = solved(case, "knn_kde").spread
    if expected < half * (1 - 1e-9):
        assert spread == pytest.approx(expected, rel=1e-9)
    else:
        assert spread == pytest.approx(half, rel=1e-9) or spread == np.inf


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=100)
@given(case=instances(4, 6))
def test_a_collapsed_pool_gives_what_its_copies_give(algorithm, case):
    rng = np.random.default_rng(case.shape)
    copies = rng.integers(1, 5, case.shape[1])
    density = 1 / case.a if algorithm == "knn_kde" else np.ones(case.shape[1])
    collapsed = oracles.MatrixPool(case.d, copies / density)
    expanded = oracles.MatrixPool(np.repeat(case.d, copies, axis=1), np.repeat(1 / density, copies))
    one = solve(collapsed, len(case.d), algorithm=algorithm, alpha=case.alpha, distance_scale=case.scale)
    two = solve(expanded, len(case.d), algorithm=algorithm, alpha=case.alpha, distance_scale=case.scale)
    tolerance = rounding(two.plan.dense(), expanded.a)
    assert one.objective == pytest.approx(two.objective, rel=1e-9, abs=tolerance)
    if len(np.unique(case.d)) == case.d.size:  # without ties the plan itself is unique
        groups = np.repeat(np.arange(case.shape[1]), copies)
        summed = np.bincount(groups, weights=two.probabilities, minlength=case.shape[1])
        np.testing.assert_allclose(one.probabilities, summed, rtol=1e-9, atol=1e-12)


def test_at_alpha_one_ties_share_by_weight():
    d = np.array([[0.5, 0.1, 0.1], [0.2, 0.3, 0.4]])
    for algorithm in ALGORITHMS:
        gamma = solve(oracles.MatrixPool(d, [1.0, 1.0, 3.0]), 2, algorithm=algorithm, alpha=1.0).plan.dense()
        np.testing.assert_allclose(gamma, [[0, 0.125, 0.375], [0.5, 0, 0]], rtol=1e-15)


def test_at_alpha_one_a_family_of_ties_longer_than_the_first_search_is_found_whole():
    d = np.ones((2, 200))
    d[1, 150:] = 0.5
    for algorithm in ALGORITHMS:
        solution = solve(oracles.MatrixPool(d, np.ones(200)), 2, algorithm=algorithm, alpha=1.0)
        assert solution.neighborhood_sizes.tolist() == [200, 50]


def test_a_nearest_candidate_heavier_than_s_takes_its_whole_row():
    d = np.array([[0.1, 0.9, 1.0], [0.9, 0.1, 1.0]])
    pool = oracles.MatrixPool(d, [5.0, 0.01, 10.0])
    solution = solve(pool, 2, algorithm="knn_kde", alpha=0.9999)
    assert solution.spread == 0.01
    np.testing.assert_allclose(solution.plan.dense(), [[0.5, 0, 0], [0, 0.5, 0]])


def test_above_half_of_the_total_both_plans_occur_and_each_is_the_optimum():
    rng = np.random.default_rng(11)
    seen = {"filled to S/2": 0, "reference": 0}
    for _ in range(200):
        d, a = rng.random((3, 6)), 10 ** rng.uniform(-1, 0, 6)
        alpha = float(10 ** rng.uniform(-1.5, 0))
        solution = solve(oracles.MatrixPool(d, a), 3, alpha=alpha, distance_scale=1.0)
        if solution.spread < a.sum() / 2:
            continue
        seen["reference" if np.isinf(solution.spread) else "filled to S/2"] += 1
        assert solution.objective == pytest.approx(oracles.optimum(d, a, "knn_kde", alpha, 1.0), rel=1e-9)
    assert min(seen.values()) >= 10


def test_alpha_zero_is_the_reference_plan_for_every_query():
    a = np.array([1.0, 2.0, 5.0])
    solution = solve(oracles.MatrixPool(np.random.default_rng(0).random((4, 3)), a), 4, alpha=0)
    np.testing.assert_allclose(solution.plan.dense(), np.tile(a / 32, (4, 1)), rtol=1e-15)
    assert solution.diversity_penalty == 0
    assert solution.spread == np.inf


def test_a_limit_gives_the_optimum_among_that_many_neighbors_and_says_so():
    rng = np.random.default_rng(4)
    d, a = rng.random((6, 50)), 10 ** rng.uniform(-2, 0, 50)
    full = solve(oracles.MatrixPool(d, a), 6, alpha=0.3)
    limited = solve(oracles.MatrixPool(d, a), 6, alpha=0.3, max_neighbors=5)
    assert limited.truncated
    assert 0 < limited.cut_rows <= 6
    assert not full.truncated
    assert limited.neighborhood_sizes.max() <= 5
    assert limited.objective > full.objective
    enough = solve(
        oracles.MatrixPool(d, a), 6, alpha=0.3, max_neighbors=int(full.neighborhood_sizes.max()) + 1
    )
    assert not enough.truncated
    np.testing.assert_array_equal(enough.plan.dense(), full.plan.dense())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_what_is_needed_is_searched(algorithm):
    rng = np.random.default_rng(5)
    pool = oracles.MatrixPool(rng.random((5, 4000)), np.ones(4000))
    solution = solve(pool, 5, algorithm=algorithm, alpha=0.97, distance_scale=0.5)
    assert 0 < solution.neighborhood_sizes.max() < 200
    assert pool.deepest <= 256


def test_a_search_that_finds_too_few_is_reported():
    class Padded(oracles.MatrixPool):
        def nearest(self, rows, k):
            found = super().nearest(rows, k)
            found.distances[:, 3:], found.indices[:, 3:] = np.inf, -1
            return found

    pool = Padded(np.random.default_rng(6).random((3, 100)), np.ones(100))
    solution = solve(pool, 3, algorithm="knn_uniform", alpha=0.1)
    assert solution.cut_rows == 3
    assert solution.neighborhood_sizes.tolist() == [3, 3, 3]
    assert_plan(solution.plan.dense())


def test_knn_tv_warns_when_it_keeps_every_candidate():
    pool = oracles.MatrixPool(np.random.default_rng(7).random((3, 20)), np.ones(20))
    with pytest.warns(UserWarning, match="exceeds the range of distances"):
        solve(pool, 3, algorithm="knn_tv", alpha=0.5, distance_scale=5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(pool, 3, algorithm="knn_tv", alpha=0.5, distance_scale=0.1)
        solve(oracles.MatrixPool(np.ones((3, 20)), np.ones(20)), 3, algorithm="knn_tv", alpha=1.0)


def test_a_plan_with_too_many_entries_is_refused(monkeypatch):
    monkeypatch.setattr(problem, "MAX_PLAN_ENTRIES", 10)
    pool = oracles.MatrixPool(np.random.default_rng(8).random((3, 20)), np.ones(20))
    with pytest.raises(ValueError, match="raise alpha"):
        solve(pool, 3, alpha=0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha must be a number from 0 to 1, got 1.5"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"alpha": 0.5, "algorithm": "knn"}, "algorithm must be one of knn_kde"),
        ({"alpha": 0.5, "distance_scale": 0.0}, "distance_scale must be"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    pool = oracles.MatrixPool(np.ones((1, 1)), np.ones(1))
    with pytest.raises(ValueError, match=message):
        solve(pool, 1, **options)


def array_pool(
    q: np.ndarray, x: np.ndarray, counts: np.ndarray | None = None, *, weighted: bool
) -> ArrayPool:
    return ArrayPool(q, PreparedPool(x, SelectionConfig(normalize=False), counts), weighted=weighted)


def test_copied_groups_keep_their_probability_under_knn_kde_only():
    """1 % of the candidates copied 1000 times, no other record within h: as counts."""
    rng = np.random.default_rng(9)
    x, q = (rng.normal(size=(n, 16)).astype(np.float32) for n in (2000, 30))
    counts = np.ones(2000)
    counts[rng.choice(2000, 20, replace=False)] = 1000
    before, after = (
        {
            "knn_kde": solve(array_pool(q, x, n, weighted=True), 30, algorithm="knn_kde", alpha=0.2),
            "knn_uniform": solve(array_pool(q, x, n, weighted=False), 30, algorithm="knn_uniform", alpha=0.2),
        }
        for n in (np.ones(2000), counts)
    )
    np.testing.assert_allclose(
        after["knn_kde"].probabilities, before["knn_kde"].probabilities, rtol=1e-9, atol=1e-12
    )
    uniform = np.abs(after["knn_uniform"].probabilities - before["knn_uniform"].probabilities)
    assert uniform.sum() / 2 > 0.1


def test_repeated_rows_share_the_probability_of_one_under_knn_kde_only():
    """The same with real rows, 100 copies of each."""
    rng = np.random.default_rng(10)
    x, q = (rng.normal(size=(n, 16)).astype(np.float32) for n in (600, 10))
    copied = rng.choice(600, 6, replace=False)
    owner = np.concatenate([np.arange(600), np.repeat(copied, 99)])
    for algorithm, same in (("knn_kde", True), ("knn_uniform", False)):
        before, after = (
            solve(array_pool(q, rows, weighted=same), 10, algorithm=algorithm, alpha=0.2).probabilities
            for rows in (x, x[owner])
        )
        summed = np.bincount(owner, weights=after)
        assert np.allclose(summed, before, rtol=1e-9, atol=1e-12) == same


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 3000),
    kind=st.sampled_from(["free", "decades", "ties", "one"]),
)
def test_the_first_point_that_reaches_a_budget_needs_no_sorting(seed, n, kind):
    rng = np.random.default_rng(seed)
    points = {
        "free": rng.random(n),
        "decades": 10 ** rng.uniform(-9, 3, n),
        "ties": np.round(rng.random(n), 2),
        "one": np.ones(n),
    }[kind]
    growth = np.where(
        rng.random(n) < 0.2, 0.0, rng.integers(0, 100, n).astype(float)
    )  # sums without rounding
    growth[rng.random(n) < 0.001] = np.inf
    order = np.argsort(points, kind="stable")
    costs = np.cumsum(growth[order])
    finite = costs[np.isfinite(costs)]
    for budget in (0.5, float(rng.choice(finite)) + 0.5 if len(finite) else 1.0, 1e9):
        first = np.searchsorted(costs, budget, side="left")
        expected = points[order[first]] if first < n else np.inf
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel_transport, "_SORTED", 3)
            patch.setattr(kernel_transport, "_BUCKETS", 8)
            assert kernel_transport.first_reaching(points, growth, budget) == expected


def test_default_scales_exist_for_every_algorithm():
    assert set(transport.DEFAULT_DISTANCE_SCALES) == set(ALGORITHMS)
