"""Draws without replacement that keep bounds for groups of candidates, a minimum for each query, or a budget.

A draw of ``sampling`` is the first of a ranking by Pareto order sampling. Here candidates are taken in the order of
such a ranking too, as far as the constraints leave room for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tsds_pipeline.core.sampling import inclusion_probabilities, permanent_random_numbers

# exp of them spans all floats; so many halvings leave nothing between two of them.
_WIDEST, _HALVINGS = 700.0, 80
# A count as near to a whole number as this is that.
_WHOLE = 1e-9


@dataclass(frozen=True)
class Bounds:
    """How many draws of an epoch may come from each group of candidates. G groups."""

    groups: np.ndarray
    """The group of each candidate, int64 (n,), from 0."""
    names: Sequence[str]
    """Of the groups, for messages, (G,)."""
    lower: np.ndarray
    """int64 (G,)"""
    upper: np.ndarray
    """int64 (G,)"""

    def expected_counts(self, probabilities: np.ndarray, size: int) -> np.ndarray:
        """How many of ``size`` draws each group has in expectation, float64 (G,), sum ``size``.

        With one c for all, a group has sum_j min(1, c p_j), or its bound where that is beyond it: inside each group
        candidates stay proportional to ``probabilities`` (n,), and so are groups that no bound touches. ValueError
        where no counts keep all bounds.
        """
        p, n_groups = np.asarray(probabilities, dtype=np.float64), len(self.names)
        support = np.bincount(self.groups[p > 0], minlength=n_groups)
        upper = np.minimum(self.upper, support)
        for name, least, most in zip(self.names, self.lower, upper, strict=True):
            if least > most:
                raise ValueError(f"at least {least:,} examples are to be of {name}, which can give {most:,}")
        if self.lower.sum() > size or upper.sum() < size:
            few = upper.sum() < size
            named = [
                f"{name} {'at most' if few else 'at least'} {bound:,}"
                for name, bound in zip(self.names, upper if few else self.lower, strict=True)
                if few or bound
            ]
            total = int(upper.sum() if few else self.lower.sum())
            raise ValueError(
                f"{size:,} examples were asked for and the bounds {'allow' if few else 'need'} {total:,} "
                f"({', '.join(named)})"
            )

        def counts(c: float) -> np.ndarray:
            free = np.bincount(self.groups, weights=np.minimum(1.0, c * p), minlength=n_groups)
            return np.clip(free, self.lower, upper)

        # In logarithms: c lies between none and all of the least probable candidate.
        low, high = -_WIDEST, _WIDEST
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if counts(np.exp(middle)).sum() < size else (low, middle)
        expected = counts(np.exp(high))
        # What rounding leaves goes to a group that has room for it.
        rest = size - expected.sum()
        room = np.minimum(expected - self.lower, upper - expected)
        expected[np.argmax(room)] += rest
        return expected


def rounded_counts(expected: np.ndarray, uniform: float) -> np.ndarray:
    """``expected`` (G,), whose sum is whole, rounded up or down, int64 (G,) of the same sum.

    Systematic sampling: over uniform numbers in (0, 1) the mean of each is ``expected``.
    """
    counts = np.floor(expected + _WHOLE).astype(np.int64)
    parts = np.cumsum(np.maximum(expected - counts, 0.0))
    up = round(float(expected.sum())) - int(counts.sum())
    # The last one is whole, whatever rounding says.
    parts = parts * (up / parts[-1]) if parts[-1] > 0 else parts
    return counts + np.diff(np.floor(parts + uniform), prepend=0.0).astype(np.int64)


@dataclass(frozen=True)
class Constraints:
    """What a draw without replacement keeps to, beside its size."""

    bounds: Bounds | None = None
    wanted: Sequence[np.ndarray] = ()
    """Candidates (rows) of which at least ``least`` are drawn, or all if there are fewer; one array a query."""
    least: int = 0
    costs: np.ndarray | None = None
    """What each candidate costs, (n,) int64; with it the size is only expected, see ``budget``."""
    budget: int | None = None
    """Examples are taken in the order of the draw while their cost is within it; ValueError where the first is not.

    Not together with ``bounds``.
    """


class Drawn(NamedTuple):
    """``epochs``: the rows drawn in each; ``certain``: the share of the first epoch's draws that is certain."""

    epochs: list[np.ndarray]
    certain: float


def constrained_draw(
    probabilities: np.ndarray,
    size: int,
    constraints: Constraints,
    *,
    epochs: int = 1,
    ids: Sequence[str],
    key: str,
) -> Drawn:
    """As ``sampling.draw`` with ``ids``, within ``constraints``; without any it draws the same.

    Pareto order sampling ranks the candidates; an unconstrained draw is the first ``size``. Of each query that wants
    some the first in the ranking are taken that their groups have room for, then others in its order until their group,
    or the budget, is full: only the last ones make room. ValueError where that cannot be.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    support = np.flatnonzero(p)
    support = support[np.argsort([str(ids[j]) for j in support], kind="stable")]
    # What a budget buys is not known before its costs are added up.
    most = len(support) if constraints.costs is not None else size
    bounds = constraints.bounds or Bounds(
        np.zeros(len(p), np.int64), ("in all",), np.array([0]), np.array([most])
    )
    expected = bounds.expected_counts(p, size)
    found, certain = [], 0.0
    for epoch in range(epochs):
        epoch_key = f"{key}/epoch-{epoch}"
        chosen, pi = _draw_within(p, support, expected, bounds, constraints, ids, epoch_key)
        shuffle = permanent_random_numbers([ids[j] for j in chosen], f"{epoch_key}/order")
        found.append(chosen[np.argsort(shuffle, kind="stable")])
        if epoch == 0:
            certain = float(np.count_nonzero(pi[chosen] == 1.0) / max(1, len(chosen)))
    return Drawn(found, certain)


def _draw_within(p, support, expected, bounds, constraints, ids, key) -> tuple[np.ndarray, np.ndarray]:
    """The rows of one epoch, ascending in their ids, and the inclusion probabilities (n,) behind them."""
    groups, size = bounds.groups, round(float(expected.sum()))
    [uniform] = permanent_random_numbers(["counts"], f"{key}/groups")
    counts = rounded_counts(expected, uniform)
    pi = np.zeros(len(p))
    for group, count in enumerate(counts):
        mine = support[groups[support] == group]
        if count:
            pi[mine] = inclusion_probabilities(p[mine], int(count))
    u = permanent_random_numbers([ids[j] for j in support], key)
    with np.errstate(divide="ignore"):
        ratio = (u / (1.0 - u)) * ((1.0 - pi[support]) / pi[support])
    # Those of a group of which none is to be drawn come last, in the order of their numbers.
    ranked = support[np.lexsort((u, ratio))]
    needed = _needed(ranked, bounds, constraints)
    ranked = ranked[np.argsort(~needed[ranked], kind="stable")]
    if constraints.costs is not None:
        return _within_budget(ranked, needed, support, constraints), pi
    of_needed = np.bincount(groups[needed], minlength=len(counts))
    if (of_needed > counts).any():
        raised = replace(bounds, lower=np.maximum(bounds.lower, of_needed))
        counts = rounded_counts(raised.expected_counts(p, size), uniform)
    taken = np.zeros(len(p), bool)
    for group, count in enumerate(counts):
        taken[ranked[groups[ranked] == group][:count]] = True
    return support[taken[support]], pi


def _needed(ranked: np.ndarray, bounds: Bounds, constraints: Constraints) -> np.ndarray:
    """The first of ``ranked`` for each query that wants some, as far as their groups have room; bool (n,)."""
    needed = np.zeros(len(bounds.groups), bool)
    lacking = np.array([min(constraints.least, len(rows)) for rows in constraints.wanted], np.int64)
    if not lacking.any():
        return needed
    pairs = np.concatenate(constraints.wanted)
    by_candidate = np.argsort(pairs, kind="stable")
    query = np.repeat(np.arange(len(constraints.wanted)), [len(rows) for rows in constraints.wanted])[
        by_candidate
    ]
    ends = np.cumsum(np.bincount(pairs, minlength=len(needed)))
    room, left = bounds.upper.copy(), int(lacking.sum())
    for candidate in ranked:
        queries = query[ends[candidate - 1] if candidate else 0 : ends[candidate]]
        served = queries[lacking[queries] > 0]
        if len(served) and room[bounds.groups[candidate]]:
            needed[candidate] = True
            room[bounds.groups[candidate]] -= 1
            lacking[served] -= 1
            left -= len(served)
            if not left:
                return needed
    limits = ", ".join(
        f"{name} at most {most:,}" for name, most in zip(bounds.names, bounds.upper, strict=True)
    )
    raise ValueError(
        f"{np.count_nonzero(lacking):,} of {len(lacking):,} queries cannot have {constraints.least:,} each of "
        f"{int(bounds.upper.sum()):,} examples ({limits})"
    )


def _within_budget(ranked, needed, support, constraints: Constraints) -> np.ndarray:
    """The first of ``ranked`` whose costs are within the budget; all that are ``needed`` have to be."""
    spent = np.cumsum(constraints.costs[ranked])
    number = int(np.searchsorted(spent, constraints.budget, side="right"))
    if not number:
        raise ValueError(
            f"the first example drawn costs {int(spent[0]):,}, more than all of {constraints.budget:,}"
        )
    if number < (least := int(needed.sum())):
        raise ValueError(
            f"{least:,} examples are needed for the {len(constraints.wanted):,} queries to have "
            f"{constraints.least:,} each: they cost {int(spent[least - 1]):,}, more than "
            f"{constraints.budget:,}"
        )
    taken = np.zeros(len(needed), bool)
    taken[ranked[:number]] = True
    return support[taken[support]]
