"""alpha = "auto": the largest alpha whose plan suits the sample size."""

import numpy as np
import oracles
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instances import Instance, instances

from tsds_pipeline import SelectionConfig, select
from tsds_pipeline.core.transport import (
    ALGORITHMS,
    automatic_size,
    by_unit,
    effective_sample_size,
    solve,
    solve_auto,
)

pytestmark = pytest.mark.filterwarnings("ignore:knn_tv keeps every candidate")
GRID = np.concatenate([10.0 ** np.linspace(-5, -1, 50), np.linspace(0.1, 1, 151)])


def pool_of(case: Instance, algorithm: str) -> oracles.MatrixPool:
    return oracles.MatrixPool(case.d, case.a if algorithm == "knn_kde" else np.ceil(case.a))


def suits(solution, size: int, units=None) -> bool:
    p = by_unit(solution.probabilities, units)
    return effective_sample_size(p) >= size * (1 - 1e-9) and np.count_nonzero(p) >= size


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(case=instances(6, 40) | instances(3, 9), share=st.floats(0, 1))
def test_no_alpha_of_a_dense_grid_is_larger(algorithm, case, share):
    m, n = case.shape
    size = 1 + int(share * (n - 1))
    options = {"algorithm": algorithm, "distance_scale": case.scale}
    solution = solve_auto(pool_of(case, algorithm), m, size, **options)
    pool = pool_of(case, algorithm)
    good = [alpha for alpha in GRID if suits(solve(pool, m, alpha=alpha, **options), size)]
    if not suits(solution, size):
        assert solution.alpha == 0
        assert not good
        return
    # A larger one on the grid could only be an island beyond a gap that the search stepped over.
    larger = [alpha for alpha in good if alpha > solution.alpha * (1 + 1e-8)]
    gaps = [a for a in GRID if solution.alpha * (1 + 1e-8) < a and a not in larger]
    assert not larger or min(gaps, default=1) < min(larger)
    assert len(larger) <= 3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_slightly_larger_alpha_no_longer_suits(algorithm):
    rng = np.random.default_rng(0)
    d = rng.random((20, 1)) * 0.2 + rng.random((20, 500))
    pool = oracles.MatrixPool(d, np.ones(500))
    for size in (25, 60, 200, 400):
        solution = solve_auto(pool, 20, size, algorithm=algorithm)
        assert suits(solution, size)
        closer = solve(pool, 20, algorithm=algorithm, alpha=min(1.0, solution.alpha * (1 + 1e-6)))
        assert not suits(closer, size)
        again = solve(pool, 20, algorithm=algorithm, alpha=solution.alpha)
        np.testing.assert_array_equal(again.plan.dense(), solution.plan.dense())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.usefixtures("whole_rows_only")
def test_whole_rows_find_the_same_alpha(algorithm, monkeypatch):
    rng = np.random.default_rng(1)
    pool = oracles.MatrixPool(rng.random((7, 150)), 10 ** rng.uniform(-2, 0, 150))
    pool.a = pool.a if algorithm == "knn_kde" else np.ceil(pool.a)
    for size in (10, 60):
        whole = solve_auto(pool, 7, size, algorithm=algorithm)
        with monkeypatch.context() as patch:
            patch.setattr("tsds_pipeline.core.problem.MAX_KNOWN_PAIRS", 2**24)
            known = solve_auto(pool, 7, size, algorithm=algorithm)
        assert whole.alpha == pytest.approx(known.alpha, rel=1e-5)
        np.testing.assert_allclose(whole.probabilities, known.probabilities, rtol=1e-5, atol=1e-9)


def test_enough_nearest_candidates_give_alpha_one():
    d = np.ones((5, 20)) - np.eye(5, 20)
    assert solve_auto(oracles.MatrixPool(d, np.ones(20)), 5, 5).alpha == 1.0
    assert solve_auto(oracles.MatrixPool(d, np.ones(20)), 5, 6).alpha < 1.0


def test_copies_of_one_unit_do_not_count_as_many():
    rng = np.random.default_rng(2)
    d = np.sort(rng.random((3, 60)), axis=1)
    pool, units = oracles.MatrixPool(d, np.ones(60)), np.arange(60) // 6
    one = solve_auto(pool, 3, 8)
    two = solve_auto(pool, 3, 8, units=units)
    assert two.alpha < one.alpha
    assert suits(two, 8, units)


def test_where_no_effective_size_is_enough_the_widest_plan_is_taken():
    a = np.array([1.0, *[0.01] * 19])
    solution = solve_auto(oracles.MatrixPool(np.random.default_rng(3).random((2, 20)), a), 2, 15)
    assert solution.alpha == 0
    assert effective_sample_size(solution.probabilities) < 15


def test_too_few_candidates_are_an_error_that_counts_them():
    pool = oracles.MatrixPool(np.random.default_rng(4).random((2, 9)), np.ones(9))
    with pytest.raises(ValueError, match="10 examples were asked for but there are only 9 candidates"):
        solve_auto(pool, 2, 10)
    assert solve_auto(pool, 2, 10, with_replacement=True).alpha == 0
    with pytest.raises(ValueError, match="within max_neighbors only"):
        solve_auto(pool, 2, 9, max_neighbors=2)


def test_under_a_limit_the_widest_plan_within_it_is_taken():
    rng = np.random.default_rng(5)
    pool = oracles.MatrixPool(rng.random((3, 100)), 10 ** rng.uniform(-2, 0, 100))
    support = np.count_nonzero(solve(pool, 3, alpha=1e-6, max_neighbors=5).probabilities)
    solution = solve_auto(pool, 3, int(support), max_neighbors=5)
    assert np.count_nonzero(solution.probabilities) == support
    assert solution.truncated
    assert 0 < solution.alpha < 1


def test_automatic_size_is_the_effective_size_rounded_down():
    rng = np.random.default_rng(6)
    pool, units = oracles.MatrixPool(rng.random((5, 100)), np.ones(100)), np.arange(100) // 2
    solution = solve(pool, 5, alpha=0.6)
    assert automatic_size(solution) == int(effective_sample_size(solution.probabilities))
    assert automatic_size(solution, units) == int(
        effective_sample_size(by_unit(solution.probabilities, units))
    )
    single = oracles.MatrixPool(np.ones((1, 1)), np.ones(1))
    assert automatic_size(solve(single, 1, alpha=0.6)) == 1


def test_ties_that_make_the_plan_of_alpha_one_a_single_point():
    d = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]])
    solution = solve_auto(oracles.MatrixPool(d, np.ones(3)), 2, 2)
    assert suits(solution, 2)


def test_a_reference_plan_that_does_not_suit_where_the_half_plan_does():
    q, c = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [np.cos(0.5), np.sin(0.5)]])
    config = SelectionConfig(algorithm="knn_uniform")
    found = select(q, c, 2, config, 0, counts=np.array([2, 6]))
    assert found.alpha == 0
    assert found.probabilities == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("seed", range(2))
def test_it_ends_whatever_ties_and_limits_there_are(seed):
    rng, refused = np.random.default_rng(seed), []
    for _ in range(250):
        m, n, dim = (int(k) for k in rng.integers([1, 1, 1], [4, 12, 4]))
        q, c = rng.normal(size=(m, dim)), rng.normal(size=(n, dim))
        if rng.random() < 0.5:
            q, c = np.round(q), np.round(c)
        most = None if rng.random() < 0.7 else int(rng.integers(1, n + 1))
        config = SelectionConfig(
            algorithm=str(rng.choice(ALGORITHMS)),
            normalize=False,
            kernel_radius=float(rng.choice([0.1, 1, 3])),
            distance_scale=float(rng.choice([0.1, 5, 100])),
            max_neighbors=most,
            with_replacement=bool(rng.random() < 0.3),
        )
        size, counts = int(rng.integers(1, n + 1)), rng.integers(1, 50, size=n)
        try:
            found = select(q, c, size, config, 0, counts=counts)
        except ValueError as error:
            refused.append((most, str(error)))
            continue
        assert found.plan.row_sums == pytest.approx(1 / m)
        assert found.effective_size >= size * (1 - 1e-6) or found.alpha == 0 or found.truncated
        if most is not None:
            assert found.neighborhood_sizes.max() <= most
    assert all(most and "within max_neighbors only" in error for most, error in refused)
