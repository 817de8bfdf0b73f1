"""The rules for kernel radius and distance scale against slow ones, and on distances made to measure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tsds_pipeline import SelectionConfig
from tsds_pipeline.core.array_pool import ArrayPool
from tsds_pipeline.core.calibration import (
    CAUGHT,
    CAUGHT_AT,
    LADDER,
    MERGED,
    RadiusEvidence,
    distance_scale,
    equivalent_alpha,
    kernel,
    ladder,
    propose_radius,
    rounded_digits,
)
from tsds_pipeline.core.prepared import PreparedPool
from tsds_pipeline.core.transport import DEFAULT_DISTANCE_SCALES, solve, sweep

DISTANCES = arrays(np.float64, st.integers(1, 30), elements=st.floats(0.01, 2.0))


def evidence(pairs, others, pair_weights=None, other_weights=None) -> RadiusEvidence:
    pairs, others = np.asarray(pairs, float), np.asarray(others, float)
    ones = [np.ones(len(pairs)), np.ones(len(others))]
    weights = [
        one if given is None else given
        for one, given in zip(ones, (pair_weights, other_weights), strict=True)
    ]
    return RadiusEvidence(pairs, weights[0], others, weights[1])


def slow_share(distances, weights, radius) -> float:
    """Of the weights, those of pairs that count as at least CAUGHT_AT of a duplicate."""
    total = sum(
        w for d, w in zip(distances, weights, strict=True) if 1 - (d / radius) ** 2 >= CAUGHT_AT - 1e-9
    )
    return total / sum(weights)


@given(DISTANCES, DISTANCES, st.integers(0, 99))
def test_the_proposal_is_the_smallest_that_catches_or_the_largest_that_merges_little(pairs, others, seed):
    rng = np.random.default_rng(seed)
    weights = (
        rng.integers(1, 5, size=len(pairs)).astype(float),
        rng.integers(1, 5, size=len(others)).astype(float),
    )
    found = propose_radius(evidence(pairs, others, *weights))
    radii = np.sort(pairs) / (1 - CAUGHT_AT) ** 0.5
    slow = next(radius for radius in radii if slow_share(pairs, weights[0], radius) >= CAUGHT - 1e-9)
    assert found.needed == pytest.approx(slow)
    assert slow_share(others, weights[1], found.allowed * (1 - 1e-6)) <= MERGED + 1e-9
    assert slow_share(others, weights[1], found.allowed * (1 + 1e-6)) > MERGED - 1e-9
    assert found.radius <= found.allowed
    if found.separates and found.radius >= found.needed:
        assert found.radius <= rounded_digits(found.needed, up=True)
    else:
        assert found.radius == rounded_digits(found.allowed, up=False)


def test_pairs_far_below_the_others_are_told_apart():
    found = propose_radius(evidence(np.linspace(0.01, 0.1, 100), np.linspace(0.5, 1.2, 100)))
    assert found.separates
    assert found.radius == 0.13  # 0.091 / sqrt(1/2), up
    figures = evidence([0.05, 0.2], [0.1, 0.5]).at(0.1)
    assert figures.caught == 0.5
    assert figures.mean_weight == pytest.approx(0.375)
    assert (figures.merged, figures.touched) == (0.0, 0.5)


def test_where_none_separates_few_are_merged():
    rng = np.random.default_rng(0)
    found = propose_radius(evidence(rng.uniform(0.2, 1.0, 500), rng.uniform(0.3, 1.2, 1000)))
    assert not found.separates
    assert found.radius == pytest.approx((0.3 + 0.05 * 0.9) / 0.5**0.5, abs=0.02)


def test_some_natural_duplicates_do_not_matter():
    pairs, others = np.full(50, 0.1), np.linspace(0.6, 1.2, 970)
    clean = propose_radius(evidence(pairs, others))
    assert propose_radius(evidence(pairs, np.concatenate([others, np.full(30, 0.01)]))).radius == clean.radius


def test_extremes():
    with pytest.raises(ValueError, match="at least one pair"):
        propose_radius(evidence([], [1.0]))
    assert propose_radius(evidence([0.3], [])).radius == 0.43
    assert propose_radius(evidence([0.0, 0.0], [0.5])).radius is None
    assert propose_radius(evidence([0.3], [0.0, 0.5])).radius is None
    figures = evidence([], [0.5]).at(1.0)
    assert np.isnan(figures.caught)
    assert np.isnan(figures.mean_weight)


def test_the_ladder_follows_the_embeddings():
    assert ladder(1.37) == LADDER
    assert ladder(14.0) == pytest.approx([10 * radius for radius in LADDER])


def test_the_kernel_ends_at_the_radius():
    np.testing.assert_allclose(kernel(np.array([0.0, 0.25, 0.5, 2.0]), 0.5), [1, 0.75, 0, 0])


@pytest.mark.parametrize(
    ("value", "up", "expected"),
    [
        (0.1274, True, 0.13),
        (0.1274, False, 0.12),
        (0.13, True, 0.13),
        (1234.0, False, 1200.0),
        (0.0, True, 0.0),
    ],
)
def test_two_digits(value, up, expected):
    assert rounded_digits(value, up=up) == expected


def slow_cost(distances: np.ndarray, weights: np.ndarray, s: float) -> float:
    """c_i(s) = sum_{l<k} a_l (d_ik - d_il) for s_i,k-1 < s <= s_ik."""
    order = np.argsort(distances)
    reached = 0.0
    for k in order:
        if reached + weights[k] >= s:
            nearer = [j for j in order if distances[j] < distances[k]]
            return sum(weights[j] * (distances[k] - distances[j]) for j in nearer)
        reached += weights[k]
    raise AssertionError(s)


def test_the_costs_are_those_of_the_closed_form():
    rng = np.random.default_rng(3)
    distances, weights = rng.uniform(1, 2, size=(5, 60)), rng.uniform(0.3, 1.0, size=60)
    found = distance_scale(distances, weights, 5.0)
    total = weights.sum()
    for cost, s in ((found.least, 2.0), (found.fitting, total / 4), (found.most, total / 2)):
        assert cost == pytest.approx(np.mean([slow_cost(row, weights, s) for row in distances]))
    threshold = distance_scale(distances, np.ones(60), 0.3, threshold=True)
    ranked = np.sort(distances, axis=1)
    assert threshold.fitting == pytest.approx((ranked[:, 14] - ranked[:, 0]).mean())


def clustered_pool(scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Queries and 2,000 candidates around 12 centres, as far apart as sentences are, times ``scale``."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 96))
    made = [centres[rng.integers(12, size=n)] + 1.2 * rng.normal(size=(n, 96)) for n in (10, 2000)]
    queries, candidates = (scale * rows / np.linalg.norm(rows, axis=1)[:, None] for rows in made)
    return queries.astype(np.float32), candidates.astype(np.float32)


def regime(scale: float, algorithm: str = "knn_kde"):
    queries, candidates = clustered_pool(scale)
    distances = np.linalg.norm(queries[:, None].astype(float) - candidates, axis=2)
    c = DEFAULT_DISTANCE_SCALES[algorithm]
    return distance_scale(distances, np.ones(len(candidates)), c, threshold=algorithm == "knn_tv")


@pytest.mark.parametrize("algorithm", ["knn_kde", "knn_tv"])
def test_the_default_fits_unit_vectors_and_not_others(algorithm):
    unit = regime(1.0, algorithm)
    assert unit.fits
    for scale in (10.0, 20.0, 0.1, 0.01):
        other = regime(scale, algorithm)
        assert not other.fits
        assert other.ratio == pytest.approx(unit.ratio / scale, rel=1e-3)
        assert other.proposed == pytest.approx(unit.fitting * scale, rel=0.1)


def test_distances_close_to_each_other_are_noticed():
    rng = np.random.default_rng(0)
    flat = distance_scale(rng.uniform(1.0, 1.01, size=(5, 3000)), np.ones(3000), 5.0)
    assert not flat.fits
    assert flat.ratio > 10
    equal = distance_scale(np.ones((5, 100)), np.ones(100), 5.0)
    assert not equal.fits
    assert equal.proposed is None


def pool_of(queries, candidates) -> ArrayPool:
    config = SelectionConfig(normalize=False)
    return ArrayPool(queries, PreparedPool(candidates, config, None), weighted=False)


@pytest.mark.parametrize("scale", [10.0, 0.01])
def test_with_the_proposed_scale_alpha_does_what_it_does_on_unit_vectors(scale):
    queries, candidates = clustered_pool(scale)
    found = regime(scale)
    pool = pool_of(queries, candidates)
    options = {"algorithm": "knn_uniform", "distance_scale": found.proposed}
    middle = solve(pool, len(queries), alpha=0.5, **options)
    assert middle.spread == pytest.approx(100, rel=0.15)
    low, high = distance_scale(
        np.linalg.norm(queries[:, None].astype(float) - candidates, axis=2), np.ones(2000), found.proposed
    ).useful_alphas
    assert solve(pool, len(queries), alpha=low * 0.98, **options).spread >= 1000
    assert solve(pool, len(queries), alpha=min(high * 1.02, 0.9999), **options).spread <= 2
    assert 2 < solve(pool, len(queries), alpha=(low + high) / 2, **options).spread < 1000


@pytest.mark.parametrize("algorithm", ["knn_uniform", "knn_tv"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_the_scale_only_says_what_alpha_means(algorithm, alpha):
    queries, candidates = clustered_pool()
    pool = pool_of(queries, candidates)
    c = DEFAULT_DISTANCE_SCALES[algorithm]
    here = solve(pool, len(queries), algorithm=algorithm, alpha=alpha, distance_scale=c)
    there = equivalent_alpha(alpha, c, 7 * c)
    again = solve(pool, len(queries), algorithm=algorithm, alpha=there, distance_scale=7 * c)
    np.testing.assert_allclose(again.probabilities, here.probabilities, atol=1e-12)


@pytest.mark.filterwarnings("ignore:knn_tv keeps every candidate")
@pytest.mark.parametrize("algorithm", ["knn_uniform", "knn_tv"])
def test_a_sweep_finds_what_solving_finds(algorithm):
    queries, candidates = clustered_pool()
    alphas = [0.0, 0.05, 0.5, 0.9, 1.0]
    found = list(sweep(pool_of(queries, candidates), len(queries), alphas, algorithm=algorithm))
    assert [one.alpha for one in found] == alphas[::-1]
    for one in found:
        alone = solve(pool_of(queries, candidates), len(queries), algorithm=algorithm, alpha=one.alpha)
        np.testing.assert_allclose(one.probabilities, alone.probabilities, rtol=1e-9, atol=1e-15)
        assert np.array_equal(one.neighborhood_sizes, alone.neighborhood_sizes)
