"""Sampling: inclusion frequencies against the probabilities asked for, and what permanent random numbers promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsds_pipeline.core.sampling import draw, inclusion_probabilities, pareto_sample, permanent_random_numbers


def skewed(n: int, seed: int = 0) -> np.ndarray:
    p = np.random.default_rng(seed).lognormal(sigma=1.0, size=n)
    return p / p.sum()


def capped(p: np.ndarray, size: int) -> np.ndarray:
    """The oracle of pi = min(1, c p): certain candidates are set aside until none is above 1."""
    pi, certain = np.zeros(len(p)), np.zeros(len(p), dtype=bool)
    while True:
        pi = np.where(certain, 1.0, p * (size - certain.sum()) / max(p[~certain].sum(), 1e-300))
        more = (pi >= 1) & ~certain
        if not more.any():
            return np.where(p > 0, pi, 0.0)
        certain |= more


def assert_frequencies(counts: np.ndarray, expected: np.ndarray, draws: int) -> None:
    """``counts`` of Bernoulli(expected) over ``draws``: each within 5 standard errors, all of them by chi-square."""
    variance = draws * expected * (1 - expected)
    uncertain = variance > 0
    np.testing.assert_array_equal(counts[~uncertain], draws * expected[~uncertain])
    z = (counts - draws * expected)[uncertain] / np.sqrt(variance[uncertain])
    assert np.abs(z).max() < 5
    n = len(z)
    assert np.square(z).sum() < n + 5 * np.sqrt(2 * n)


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60), share=st.floats(0, 1), zeros=st.booleans())
def test_inclusion_probabilities_are_capped_and_proportional(seed, n, share, zeros):
    p = np.random.default_rng(seed).lognormal(sigma=2.0, size=n)
    if zeros:
        p[: n // 3] = 0
    size = 1 + int(share * (np.count_nonzero(p) - 1))
    pi = inclusion_probabilities(p, size)
    assert pi.sum() == pytest.approx(size, rel=1e-12)
    assert (pi <= 1).all()
    np.testing.assert_allclose(pi, capped(p, size), rtol=1e-9)


def test_more_than_have_mass_is_an_error_that_counts_them():
    with pytest.raises(ValueError, match="3 examples were asked for but only 2 candidates have mass"):
        inclusion_probabilities(np.array([0.5, 0.0, 0.5]), 3)
    with pytest.raises(ValueError, match="at least 1"):
        inclusion_probabilities(np.array([1.0]), 0)


@pytest.mark.parametrize("with_ids", [False, True])
def test_frequencies_without_replacement_are_the_inclusion_probabilities(with_ids):
    p, size, draws = skewed(120), 50, 4000
    p[:10] = 0
    pi = inclusion_probabilities(p, size)
    assert (pi * (1 - pi)).sum() >= 10
    assert (pi == 1).any()
    options = {"ids": np.arange(120), "key": "k"} if with_ids else {"rng": np.random.default_rng(1)}
    drawn = draw(p, size, epochs=draws, **options)
    assert all(len(set(epoch)) == size for epoch in drawn.tolist())
    assert_frequencies(np.bincount(drawn.ravel(), minlength=120), pi, draws)


@pytest.mark.parametrize("with_ids", [False, True])
def test_frequencies_with_replacement_are_the_probabilities(with_ids):
    p, draws = skewed(50), 100_000
    p[7] = 0
    p /= p.sum()
    options = {"ids": np.arange(50), "key": "k"} if with_ids else {"rng": np.random.default_rng(2)}
    drawn = draw(p, 1000, epochs=draws // 1000, with_replacement=True, **options)
    assert_frequencies(np.bincount(drawn.ravel(), minlength=50), p, draws)


def test_every_place_in_the_order_is_as_likely():
    p = np.full(10, 0.1)
    for options in ({"rng": np.random.default_rng(3)}, {"ids": range(10), "key": "order"}):
        first = draw(p, 5, epochs=5000, **options)[:, 0]
        assert_frequencies(np.bincount(first, minlength=10), p, 5000)


def test_certain_candidates_are_always_in_and_impossible_ones_never():
    pi = np.array([1.0, 0.0, 0.5, 0.5])
    for seed in range(50):
        chosen = pareto_sample(pi, np.random.default_rng(seed).random(4), 2)
        assert 0 in chosen
        assert 1 not in chosen


def test_permanent_random_numbers_are_uniform_and_depend_on_key_and_id_alone():
    u = permanent_random_numbers(range(20_000), "task/epoch-0")
    assert 0 < u.min() < u.max() < 1
    histogram = np.bincount((u * 50).astype(int), minlength=50)
    assert_frequencies(histogram, np.full(50, 0.02), 20_000)
    np.testing.assert_array_equal(permanent_random_numbers(["7", "3"], "task/epoch-0"), u[[7, 3]])
    other = permanent_random_numbers(range(20_000), "task/epoch-1")
    assert abs(np.corrcoef(u, other)[0, 1]) < 5 / np.sqrt(20_000)


@pytest.mark.parametrize("with_replacement", [False, True])
def test_with_ids_the_order_of_rows_does_not_matter(with_replacement):
    p, ids = skewed(300), np.array([f"record {j}" for j in range(300)])
    order = np.random.default_rng(4).permutation(300)
    options = {"epochs": 3, "with_replacement": with_replacement, "key": "seed 0"}
    one = ids[draw(p, 60, ids=ids, **options)]
    two = ids[order][draw(p[order], 60, ids=ids[order], **options)]
    np.testing.assert_array_equal(one, two)


def test_a_small_change_of_the_probabilities_swaps_few():
    p, ids = skewed(2000), np.arange(2000)
    changed = p * np.random.default_rng(5).normal(1, 0.02, 2000)
    one, two = (set(draw(q, 300, ids=ids, key="seed")[0].tolist()) for q in (p, changed))
    assert len(one & two) > 285
    fresh = set(draw(p, 300, ids=ids, key="other seed")[0].tolist())
    assert len(one & fresh) < 150


def test_epochs_differ_and_a_seed_repeats_them():
    p = skewed(200)
    one, two = (draw(p, 50, epochs=2, rng=np.random.default_rng(6)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert set(one[0].tolist()) != set(one[1].tolist())
    keyed = draw(p, 50, epochs=2, ids=range(200), key="k")
    assert set(keyed[0].tolist()) != set(keyed[1].tolist())
    assert one.dtype == keyed.dtype == np.int64
