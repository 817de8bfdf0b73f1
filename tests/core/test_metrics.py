"""The quality metrics, against brute force and against libraries."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import linear_sum_assignment, linprog

from tests.core.oracles import distances
from tsds_pipeline.core import arrays, metrics
from tsds_pipeline.core.metrics import (
    energy_distance,
    facility_location,
    kl_reduction,
    maximum_mean_discrepancy,
    near_duplicate_rate,
    sliced_transport_distance,
    transport_distance,
    unique_share,
    vendi_score,
)

PAIRWISE = [transport_distance, sliced_transport_distance, energy_distance, maximum_mean_discrepancy]


@st.composite
def point_sets(draw) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of 1 to 9 points in 1 to 4 dimensions, often with points in common and repeated."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m, dim = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    points = rng.normal(size=(draw(st.integers(1, 12)), dim)).astype(np.float32)
    return points[rng.integers(0, len(points), n)], points[rng.integers(0, len(points), m)]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(metrics, "row_blocks", lambda n, size: arrays.row_blocks(n, size, 4000))


def sample(n: int, dim: int = 3, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32) + np.float32(shift)


def transport_by_linear_programme(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    n, m = len(a), len(b)
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    marginals = np.concatenate([weights, np.full(m, 1 / m)])
    return linprog(distances(a, b).ravel(), A_eq=np.vstack([rows, columns]), b_eq=marginals).fun


@given(point_sets(), st.integers(0, 2**32 - 1))
def test_transport_is_the_optimum_of_a_linear_programme(sets, seed):
    a, b = sets
    weights = np.random.default_rng(seed).integers(0, 4, len(a)) + np.eye(len(a))[0]
    expected = transport_by_linear_programme(a, b, weights / weights.sum())
    assert transport_distance(a, b, weights) == pytest.approx(expected, abs=1e-9)
    equal = transport_by_linear_programme(a, b, np.full(len(a), 1 / len(a)))
    assert transport_distance(a, b) == pytest.approx(equal, abs=1e-9)


def test_transport_of_equal_numbers_is_an_assignment():
    a, b = sample(200, 30), sample(200, 30, seed=1, shift=0.2)
    d = distances(a, b)
    assert transport_distance(a, b) == pytest.approx(d[linear_sum_assignment(d)].mean(), rel=1e-9)


def test_in_one_dimension_both_transports_are_scipys():
    a, b = sample(70, 1), sample(40, 1, seed=1, shift=0.5)
    expected = stats.wasserstein_distance(a[:, 0], b[:, 0])
    assert transport_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert sliced_transport_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_sliced_distance_is_below_the_exact_one_and_repeatable():
    a, b = sample(50, 8), sample(60, 8, seed=1, shift=0.3)
    first = sliced_transport_distance(a, b, seed=1)
    assert first == sliced_transport_distance(a, b, seed=1)
    assert first != sliced_transport_distance(a, b, seed=2)
    assert 0 < first < transport_distance(a, b)


def test_too_many_pairs_for_exact_transport(monkeypatch):
    monkeypatch.setattr(metrics, "EXACT_PAIRS", 20)
    assert transport_distance(sample(4), sample(5)) > 0
    with pytest.raises(ValueError, match="take sliced_transport_distance"):
        transport_distance(sample(4), sample(6))


@pytest.mark.parametrize(("weights"), [[1.0], [0.0, 0.0], [1.0, -1.0], [np.nan, 1.0]])
def test_weights_that_are_none(weights):
    with pytest.raises(ValueError, match="a_weights must be 2 finite"):
        transport_distance(sample(2), sample(3), np.array(weights))


def test_importing_pot_imports_no_torch_and_leaves_the_environment_alone():
    code = """
import os, sys
import numpy as np
from tsds_pipeline.core.metrics import transport_distance
before = dict(os.environ)
assert transport_distance(np.ones((1, 2)), np.zeros((2, 2))) > 1
assert "ot" in sys.modules and "torch" not in sys.modules
assert dict(os.environ) == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@given(point_sets())
def test_energy_distance_by_its_definition(sets):
    a, b = sets
    expected = 2 * distances(a, b).mean() - distances(a, a).mean() - distances(b, b).mean()
    assert energy_distance(a, b) == pytest.approx(max(0, expected), abs=1e-9)


@pytest.mark.usefixtures("small_blocks")
def test_in_one_dimension_the_energy_distance_is_scipys_squared():
    a, b = sample(70, 1), sample(40, 1, seed=1, shift=0.5)
    assert energy_distance(a, b) == pytest.approx(stats.energy_distance(a[:, 0], b[:, 0]) ** 2, rel=1e-6)


@given(point_sets(), st.floats(0.1, 10))
def test_maximum_mean_discrepancy_by_its_definition(sets, bandwidth):
    a, b = sets

    def mean(x: np.ndarray, y: np.ndarray) -> float:
        return np.mean([[np.exp(-np.sum((p - q) ** 2) / (2 * bandwidth**2)) for p in x] for q in y])

    a64, b64 = a.astype(float), b.astype(float)
    expected = mean(a64, a64) + mean(b64, b64) - 2 * mean(a64, b64)
    assert maximum_mean_discrepancy(a, b, bandwidth) ** 2 == pytest.approx(max(0, expected), abs=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_the_bandwidth_is_the_median_distance_within_b():
    a, b = sample(30), sample(40, seed=1, shift=1.0)
    d = distances(b, b)
    bandwidth = float(np.median(d[np.triu_indices(40, 1)]))
    assert maximum_mean_discrepancy(a, b) == pytest.approx(maximum_mean_discrepancy(a, b, bandwidth))
    assert maximum_mean_discrepancy(a, b[:1]) > 0, "the median of all where b is one point"


@pytest.mark.parametrize("metric", PAIRWISE)
def test_no_distance_from_itself_and_a_growing_one_from_what_moves_away(metric):
    a = sample(20)
    assert metric(a, a) == pytest.approx(0, abs=1e-6)
    assert metric(a[:1], a[:1]) == 0
    assert metric(np.repeat(a, 3, axis=0), a) == pytest.approx(0, abs=1e-6)
    found = [metric(a + np.float32(shift), a) for shift in (0.1, 0.5, 1.0)]
    assert found == sorted(found)
    assert found[0] > 0


@pytest.mark.parametrize("metric", PAIRWISE)
def test_points_that_cannot_be_compared(metric):
    with pytest.raises(ValueError, match=r"b\[1\] has a value that is not finite"):
        metric(sample(3), np.where(np.arange(9).reshape(3, 3) == 4, np.nan, sample(3)))
    with pytest.raises(ValueError, match="a must be a non-empty array"):
        metric(sample(3)[:0], sample(3))
    with pytest.raises(ValueError):
        metric(sample(3), sample(3, dim=4))


def test_kl_reduction_against_scipy():
    rng = np.random.default_rng(0)
    target, pool, selected = rng.integers(0, 6, (3, 50))
    p, q, r = (stats.entropy(target + 0.1, counts + 0.1) for counts in (target, pool, selected))
    assert p == 0
    assert kl_reduction(target, pool, selected) == pytest.approx(q - r, abs=1e-12)
    assert kl_reduction(target, pool, pool) == 0
    assert kl_reduction(target, pool, target) == pytest.approx(q)


@pytest.mark.parametrize("counts", [np.ones(4), np.ones((1, 3)), np.array([1.0, -1.0, 0.0]), np.array([])])
def test_counts_that_are_none(counts):
    with pytest.raises(ValueError):
        kl_reduction(counts, np.ones(3), np.ones(3))


@given(point_sets())
def test_facility_location_by_its_definition(sets):
    points, selected = sets

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    points, selected = points.astype(float), selected.astype(float)
    expected = np.mean([max(cosine(point, row) for row in selected) for point in points])
    assert facility_location(points, selected) == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_facility_location_in_blocks():
    points, selected = sample(100, 5), sample(40, 5, seed=1)
    parts = [facility_location(points[start : start + 10], selected) for start in range(0, 100, 10)]
    assert facility_location(points, selected) == pytest.approx(np.mean(parts))


@given(point_sets())
def test_vendi_score_by_its_definition(sets):
    rows = sets[0].astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.clip(np.linalg.eigvalsh(rows @ rows.T / len(rows)), 1e-300, None)
    assert vendi_score(sets[0]) == pytest.approx(np.exp(stats.entropy(values)), rel=1e-6)


def test_vendi_score_of_what_is_known():
    assert vendi_score(np.ones((1, 4))) == pytest.approx(1)
    assert vendi_score(np.ones((10, 4))) == pytest.approx(1)
    assert vendi_score(np.eye(4)) == pytest.approx(4)
    assert vendi_score(np.repeat(np.eye(4), 100, axis=0)) == pytest.approx(4)


@given(point_sets(), st.sampled_from([0.5, 1.0, 3.0]), st.booleans())
def test_near_duplicate_rate_by_its_definition(sets, radius, all_pairs):
    d = distances(sets[0], sets[0]) + np.diag(np.full(len(sets[0]), np.inf))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_ALL_PAIRS", 4096 if all_pairs else 0)
        assert near_duplicate_rate(sets[0], radius) == pytest.approx((d < radius).any(axis=1).mean())


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("all_pairs", [True, False])
def test_near_duplicates_in_blocks(all_pairs, monkeypatch):
    monkeypatch.setattr(metrics, "_ALL_PAIRS", 4096 if all_pairs else 0)
    rows = sample(300, 4)
    rows[200:] = rows[:100] + np.float32(0.01)
    assert near_duplicate_rate(rows, 0.03) >= 2 / 3
    assert near_duplicate_rate(rows[:200], 1e-6) == 0


def test_unique_share():
    assert unique_share(np.array([4, 4, 2, 9])) == 0.75
    assert unique_share(np.array([1])) == 1
    with pytest.raises(ValueError, match="non-empty"):
        unique_share(np.array([]))


@pytest.mark.parametrize("metric", [vendi_score, lambda rows: facility_location(rows, rows)])
def test_rows_without_a_direction(metric):
    with pytest.raises(ValueError, match=r"\[1\] is all zeros"):
        metric(np.array([[1.0, 0.0], [0.0, 0.0]]))
