"""Draws that keep bounds for groups, a minimum for each query, or a budget."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.core.test_sampling import assert_frequencies, capped, skewed
from tsds_pipeline.core.constrained_draw import Bounds, Constraints, constrained_draw, rounded_counts
from tsds_pipeline.core.sampling import draw, inclusion_probabilities, size_within

NAMES = ("a", "b", "c", "d")


def bounds(groups: np.ndarray, lower: list[int], upper: list[int]) -> Bounds:
    return Bounds(groups, NAMES[: len(lower)], np.array(lower), np.array(upper))


def names(n: int) -> list[str]:
    return [f"id-{i:04d}" for i in range(n)]


def water_filled(p: np.ndarray, found: Bounds, size: int) -> np.ndarray:
    """The oracle: groups beyond a bound are set aside at it, those of the side that is wrong by more, until none is."""
    n_groups = len(found.names)
    fixed, expected = np.zeros(n_groups, bool), np.zeros(n_groups)
    upper = np.minimum(found.upper, np.bincount(found.groups[p > 0], minlength=n_groups))
    while not fixed.all():
        free = ~fixed[found.groups]
        left = size - expected[fixed].sum()
        pi = np.zeros(len(p))
        pi[free] = capped(p[free], min(left, np.count_nonzero(p[free]))) if left > 0 else 0.0
        counts = np.bincount(found.groups, weights=pi, minlength=n_groups)
        over, under = np.maximum(counts - upper, 0), np.maximum(found.lower - counts, 0)
        over[fixed], under[fixed] = 0, 0
        if max(over.max(), under.max()) < 1e-9:
            return np.where(fixed, expected, counts)
        side, bound = (over, upper) if over.sum() >= under.sum() else (under, found.lower)
        wrong = side > 0
        expected[wrong], fixed = bound[wrong], fixed | wrong
    return expected


@st.composite
def bounded(draw_from):
    n_groups = draw_from(st.integers(1, 4))
    sizes = [draw_from(st.integers(0, 12)) for _ in range(n_groups)]
    groups = np.repeat(np.arange(n_groups), sizes)
    lower = [draw_from(st.integers(0, size)) for size in sizes]
    upper = [draw_from(st.integers(low, 14)) for low in lower]
    least, most = sum(lower), sum(min(u, s) for u, s in zip(upper, sizes, strict=True))
    assume(most >= 1)
    size = draw_from(st.integers(max(1, least), most))
    return skewed(len(groups), draw_from(st.integers(0, 99))), bounds(groups, lower, upper), size


@settings(max_examples=200)
@given(bounded())
def test_expected_counts_fill_up_like_water(case):
    p, within, size = case
    found = within.expected_counts(p, size)
    assert found.sum() == pytest.approx(size, abs=1e-9)
    np.testing.assert_allclose(found, water_filled(p, within, size), atol=1e-6)


@settings(max_examples=100)
@given(bounded(), st.floats(0.001, 0.999))
def test_rounded_counts_are_next_to_the_expected_ones(case, uniform):
    p, within, size = case
    expected = within.expected_counts(p, size)
    counts = rounded_counts(expected, uniform)
    assert counts.sum() == size
    assert (np.abs(counts - expected) < 1 + 1e-6).all()
    assert (counts >= within.lower).all()
    assert (counts <= within.upper).all()


def test_rounding_is_right_on_average():
    expected = np.array([1.25, 0.5, 3.0, 2.25])
    mean = np.mean([rounded_counts(expected, (i + 0.5) / 1000) for i in range(1000)], axis=0)
    np.testing.assert_allclose(mean, expected, atol=1e-3)


@settings(max_examples=60)
@given(bounded(), st.integers(0, 9))
def test_bounds_hold_in_every_epoch(case, seed):
    p, within, size = case
    found = constrained_draw(p, size, Constraints(within), epochs=4, ids=names(len(p)), key=str(seed))
    for rows in found.epochs:
        assert len(set(rows)) == len(rows) == size
        counts = np.bincount(within.groups[rows], minlength=len(within.names))
        assert (counts >= within.lower).all()
        assert (counts <= within.upper).all()


def test_inside_a_group_inclusion_is_proportional_to_the_probabilities():
    p, groups = skewed(90, 3), np.repeat([0, 1, 2], 30)
    within = bounds(groups, [0, 18, 0], [9, 30, 30])
    expected = within.expected_counts(p, 40)
    assert (expected[0], expected[1]) == (9, 18), "both bounds are felt"
    pi = np.concatenate([capped(p[groups == g], expected[g]) for g in range(3)])
    epochs = 3000
    found = constrained_draw(p, 40, Constraints(within), epochs=epochs, ids=names(90), key="k")
    # Pareto sampling of as few as nine is a little off, by less than this.
    counts = np.bincount(np.concatenate(found.epochs), minlength=90)
    np.testing.assert_allclose(counts / epochs, pi, atol=0.03)
    free = groups == 2
    assert_frequencies(counts[free & (pi < 1)][:25], pi[free & (pi < 1)][:25], epochs)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([4, 0], [9, 9], "at least 4 examples are to be of a, which can give 3"),
        ([3, 5], [9, 9], r"7 examples were asked for and the bounds need 8 \(a at least 3, b at least 5\)"),
        ([0, 0], [2, 4], r"7 examples were asked for and the bounds allow 6 \(a at most 2, b at most 4\)"),
    ],
)
def test_impossible_bounds_are_told_with_figures(lower, upper, message):
    with pytest.raises(ValueError, match=message):
        bounds(np.array([0] * 3 + [1] * 6), lower, upper).expected_counts(skewed(9), 7)


@settings(max_examples=60)
@given(seed=st.integers(0, 999), n=st.integers(1, 40), share=st.floats(0, 1))
def test_without_constraints_it_is_the_plain_draw(seed, n, share):
    p = skewed(n, seed)
    p[: n // 4] = 0
    size = 1 + int(share * (np.count_nonzero(p) - 1))
    plain = draw(p, size, epochs=2, ids=names(n), key="k")
    found = constrained_draw(p, size, Constraints(), epochs=2, ids=names(n), key="k")
    assert np.array_equal(found.epochs, plain)
    pi = inclusion_probabilities(p, size)
    assert found.certain == np.count_nonzero(pi == 1) / size


@settings(max_examples=100)
@given(seed=st.integers(0, 999), least=st.integers(1, 3), size=st.integers(10, 30))
def test_every_query_gets_its_minimum_with_the_least_change(seed, least, size):
    rng = np.random.default_rng(seed)
    n, p = 40, skewed(40, seed)
    wanted = [rng.choice(n, size=rng.integers(1, 6), replace=False) for _ in range(size // 3)]
    plain = set(draw(p, size, ids=names(n), key="k")[0])
    needs = Constraints(wanted=wanted, least=least)
    [rows] = constrained_draw(p, size, needs, ids=names(n), key="k").epochs
    found = set(rows)
    assert len(found) == len(rows) == size
    for candidates in wanted:
        assert len(found & set(candidates)) >= min(least, len(candidates))
    short = [c for c in wanted if len(plain & set(c)) < min(least, len(c))]
    lacking = sum(min(least, len(c)) - len(plain & set(c)) for c in short)
    assert len(found - plain) <= lacking
    assert (found == plain) == (not short)
    again = [*reversed(wanted)]
    [other] = constrained_draw(p, size, Constraints(wanted=again, least=least), ids=names(n), key="k").epochs
    assert np.array_equal(other, rows), "the order of queries does not matter"


def test_more_queries_than_examples_is_an_error_with_figures():
    wanted = [np.array([i]) for i in range(6)]
    with pytest.raises(
        ValueError, match=r"1 of 6 queries cannot have 1 each of 5 examples \(in all at most 5\)"
    ):
        constrained_draw(skewed(9), 5, Constraints(wanted=wanted, least=1), ids=names(9), key="k")


def test_a_minimum_and_bounds_together():
    p, groups = np.full(20, 0.05), np.repeat([0, 1], 10)
    within = bounds(groups, [0, 0], [4, 9])
    wanted = [np.array([i]) for i in range(4)]
    for epoch in constrained_draw(
        p, 8, Constraints(within, wanted, 1), epochs=20, ids=names(20), key="k"
    ).epochs:
        assert set(range(4)) <= set(epoch)
        assert (len(epoch), np.count_nonzero(groups[epoch] == 0)) == (8, 4)
    other_group = Constraints(within, [*wanted, np.array([9, 19])], 1)
    [rows] = constrained_draw(p, 8, other_group, ids=names(20), key="k").epochs
    assert {0, 1, 2, 3, 19} <= set(rows), "where a group is full the query's next is taken"
    too_many = Constraints(within, [*wanted, np.array([9])], 1)
    with pytest.raises(
        ValueError, match=r"1 of 5 queries cannot have 1 each of 13 examples \(a at most 4, b at most 9\)"
    ):
        constrained_draw(p, 8, too_many, ids=names(20), key="k")


@settings(max_examples=60)
@given(seed=st.integers(0, 999), budget=st.integers(30, 400))
def test_a_budget_is_spent_and_never_exceeded(seed, budget):
    rng = np.random.default_rng(seed)
    p, costs = skewed(60, seed), rng.integers(1, 30, size=60)
    size = size_within(p, costs, budget)
    pi = inclusion_probabilities(p, size)
    assert size == 1 or pi @ costs <= budget
    assert size == 60 or inclusion_probabilities(p, size + 1) @ costs > budget
    found = constrained_draw(
        p, size, Constraints(costs=costs, budget=budget), epochs=3, ids=names(60), key="k"
    )
    for rows in found.epochs:
        assert costs[rows].sum() <= budget
        assert len(rows) == 60 or costs[rows].sum() > budget - costs.max()
    needs = Constraints(wanted=[np.array([7])], least=1, costs=costs, budget=budget)
    assert 7 in constrained_draw(p, size, needs, ids=names(60), key="k").epochs[0]


def test_a_budget_that_buys_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"the first example drawn costs 10, more than all of 9"):
        constrained_draw(
            np.full(4, 0.25), 1, Constraints(costs=np.full(4, 10), budget=9), ids=names(4), key="k"
        )


def test_a_budget_that_cannot_serve_the_queries_is_an_error():
    needs = Constraints(wanted=[np.array([0]), np.array([1])], least=1, costs=np.full(4, 10), budget=15)
    with pytest.raises(ValueError, match=r"2 examples are needed for the 2 queries .* cost 20, more than 15"):
        constrained_draw(np.full(4, 0.25), 1, needs, ids=names(4), key="k")


def test_on_average_the_budget_is_spent_to_within_half_an_example():
    rng = np.random.default_rng(0)
    p, costs = skewed(500, 1), rng.integers(5, 50, size=500)
    size = size_within(p, costs, 2000)
    found = constrained_draw(
        p, size, Constraints(costs=costs, budget=2000), epochs=300, ids=names(500), key="k"
    )
    spent = [int(costs[rows].sum()) for rows in found.epochs]
    assert 2000 - 25 < np.mean(spent) <= 2000
    assert abs(np.mean([len(rows) for rows in found.epochs]) - size) < 0.05 * size
