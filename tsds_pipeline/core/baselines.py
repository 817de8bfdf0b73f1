"""Ways to select, under one interface: the plans of this project and what they are compared with.

``METHODS`` maps a name to a function of (target, size, rng) that gives ``size`` distinct candidates, int64, of distinct
sampling units, in the order of the method. Each raises ValueError where it cannot. They look at a ``Target``, which the
pools of ``array_pool`` and the pipeline's serve alike, and hold the distances of one block or one depth at a time.

| name | it takes |
| --- | --- |
| random | any |
| top_k | the candidates with the smallest distance to any query |
| round_robin | each query in turn its nearest candidate not taken yet (RDS+, Ivison et al. 2025) |
| round_robin_deduplicated | the same, passing over what lies within the kernel radius of one taken |
| dsir | a sample without replacement by the importance weights of n-grams (DSIR, Xie et al., NeurIPS 2023) |
| knn_uniform, knn_kde | a Pareto draw from the optimal plan, alpha "auto" (TSDS, Liu et al., NeurIPS 2024) |
| knn_tv | the same at alpha 0.6, or the next lower tenth at which there is enough |
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from tsds_pipeline.core.arrays import pair_distances, row_blocks, row_lengths, squared_distance_error
from tsds_pipeline.core.pool import CandidatePool
from tsds_pipeline.core.sampling import draw
from tsds_pipeline.core.transport import by_unit, solve, solve_auto

_FIRST_DEPTH = 64
# Pairs of queries and neighbours that are held at once.
_PAIRS_AT_ONCE = 2**22
# Candidates that are compared with those taken in one product, and rows of these that are read at once.
_COMPARED_AT_ONCE, _TAKEN_AT_ONCE = 256, 4096
# Of the pool, as in the authors' code, and of the target, their "Laplace smoothing" for small ones.
_POOL_PROBABILITY, _TARGET_COUNT = 1e-8, 1.0
_VARIATION_ALPHAS = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)


@dataclass(frozen=True, eq=False)
class Target:
    """What a method may look at: the queries of one task and its N candidates."""

    queries: np.ndarray
    """(M, dim) float32."""
    pool: CandidatePool
    """The candidates, weighted by n_j / rho_j."""
    uniform: CandidatePool
    """The same candidates in the same order, weighted by n_j."""
    vectors: Callable[[np.ndarray], np.ndarray]
    """Vectors of the candidates (c,), float32 (c, dim)."""
    units: np.ndarray | None = None
    """Sampling unit of each candidate, 0 to U - 1, int (N,): the same text in two sources is one. None: N units."""
    kernel_radius: float = 0.1
    """h, a plain distance."""
    log_weights: np.ndarray | None = None
    """DSIR's logarithms of importance weights, (N,); counts @ ``log_importance_ratios``."""

    @cached_property
    def unit_of(self) -> np.ndarray:
        """Sampling unit of each candidate, (N,)."""
        return np.arange(self.pool.size) if self.units is None else self.units

    @cached_property
    def first_of_unit(self) -> np.ndarray:
        """The first candidate of each sampling unit, (U,)."""
        units, first = np.unique(self.unit_of, return_index=True)
        if units[0] != 0 or units[-1] != len(units) - 1:
            raise ValueError(f"units must be numbered from 0 without gaps, got {units[0]} to {units[-1]}")
        return first

    def check(self, size: int) -> None:
        """ValueError where there are no ``size`` sampling units."""
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if size > len(self.first_of_unit):
            raise ValueError(
                f"{size} examples were asked for but there are only {len(self.first_of_unit)} candidates"
            )


def random_sample(target: Target, size: int, rng: np.random.Generator) -> np.ndarray:
    """Every set of ``size`` sampling units with the same probability."""
    target.check(size)
    return target.first_of_unit[rng.permutation(len(target.first_of_unit))[:size]]


def top_k(target: Target, size: int, rng: np.random.Generator) -> np.ndarray:
    """The candidates with the smallest distance to any query, ties by candidate order."""
    target.check(size)
    n = target.pool.size
    best = np.full(n, np.inf)
    pending, depth, limit = np.arange(len(target.queries)), _FIRST_DEPTH, np.inf
    while len(pending):
        last = []
        for start, stop in row_blocks(len(pending), min(depth, n), _PAIRS_AT_ONCE):
            distances, indices = (
                found[:, :depth] for found in target.pool.nearest(pending[start:stop], depth)
            )
            found = indices >= 0
            np.minimum.at(best, indices[found], distances[found])
            # Nothing beyond: all candidates are there, or the search finds no more.
            whole = ~found.all(axis=1) | (depth >= n)
            last.append(np.where(whole, np.inf, distances[:, -1]))
        order = _distinct(np.argsort(best, kind="stable")[: np.count_nonzero(np.isfinite(best))], target)[
            :size
        ]
        limit = best[order[-1]] if len(order) == size else np.inf
        # What a row has not shown yet is at least as far as its last one.
        pending, depth = pending[np.concatenate(last) <= min(limit, np.finfo(float).max)], 2 * depth
    return _enough(order, size)


def round_robin(
    target: Target, size: int, rng: np.random.Generator, *, deduplicated: bool = False
) -> np.ndarray:
    """Each query in turn takes its nearest candidate not taken yet, ties by candidate order.

    Where ``deduplicated``, a candidate within the kernel radius of one taken is passed over.
    """
    target.check(size)
    ranking = _Ranking(target)
    closed = np.zeros(len(target.first_of_unit), dtype=bool)
    taken = _Taken(size, target)
    chosen: list[int] = []
    rows = list(range(len(target.queries)))
    while rows and len(chosen) < size:
        left = []
        for place, row in enumerate(rows):
            coming = partial(ranking.coming, rows, place, closed)
            while (candidate := ranking.next_open(row, closed)) is not None:
                closed[target.unit_of[candidate]] = True
                if not deduplicated or taken.add(candidate, coming):
                    break
            if candidate is None:
                continue
            left.append(row)
            chosen.append(candidate)
            if len(chosen) == size:
                break
        rows = left
    return _enough(np.array(chosen, dtype=np.int64), size)


def dsir(target: Target, size: int, rng: np.random.Generator) -> np.ndarray:
    """The ``size`` largest log weights after independent Gumbel noise is added: a sample without replacement.

    A sampling unit counts once, with the weight of its first candidate.
    """
    target.check(size)
    if target.log_weights is None:
        raise ValueError("dsir needs log_weights: see log_importance_ratios")
    keys = target.log_weights[target.first_of_unit] + rng.gumbel(size=len(target.first_of_unit))
    return target.first_of_unit[np.argsort(-keys, kind="stable")[:size]]


def transport_draw(target: Target, size: int, rng: np.random.Generator, *, algorithm: str) -> np.ndarray:
    """A Pareto draw from the plan of ``algorithm`` at the largest alpha with an effective sample size of ``size``."""
    target.check(size)
    pool = target.pool if algorithm == "knn_kde" else target.uniform
    solution = solve_auto(pool, len(target.queries), size, algorithm=algorithm, units=target.units)
    return _drawn(solution.probabilities, target, size, rng)


def variation_draw(target: Target, size: int, rng: np.random.Generator) -> np.ndarray:
    """A Pareto draw from the plan of knn_tv at the first of alpha 0.6, 0.5, ... 0 with mass on ``size`` units.

    Not by the effective sample size: its plan gives most of a query's mass to the nearest candidate, so that only an
    alpha near 0, a nearly uniform plan, would have one of ``size``; and finding it takes a pass over all pairs.
    """
    target.check(size)
    for alpha in _VARIATION_ALPHAS:
        solution = solve(target.uniform, len(target.queries), algorithm="knn_tv", alpha=alpha)
        if np.count_nonzero(by_unit(solution.probabilities, target.units)) >= size:
            break
    return _drawn(solution.probabilities, target, size, rng)


Method = Callable[[Target, int, np.random.Generator], np.ndarray]
METHODS: dict[str, Method] = {
    "random": random_sample,
    "top_k": top_k,
    "round_robin": round_robin,
    "round_robin_deduplicated": partial(round_robin, deduplicated=True),
    "dsir": dsir,
    "knn_uniform": partial(transport_draw, algorithm="knn_uniform"),
    "knn_tv": variation_draw,
    "knn_kde": partial(transport_draw, algorithm="knn_kde"),
}


def log_importance_ratios(pool_counts: np.ndarray, target_counts: np.ndarray) -> np.ndarray:
    """Logarithm of p_target / p_pool of each bucket of n-grams, float64 (buckets,).

    ``pool_counts`` and ``target_counts`` (buckets,) count the n-grams of all texts of their side. One n-gram is added
    to every bucket of the target and 1e-8 to every probability of the pool. A candidate's importance weight is the
    product over its n-grams: its own counts @ these are the logarithm. DSIR, Xie et al., NeurIPS 2023, section 4.
    """
    pool, target = (np.asarray(counts, dtype=np.float64) for counts in (pool_counts, target_counts))
    if pool.shape != target.shape:
        raise ValueError(f"counts must be of the same buckets, got {len(pool)} and {len(target)}")
    if not pool.sum():
        raise ValueError("the pool has no n-grams")
    target = target + _TARGET_COUNT
    return np.log(target / target.sum()) - np.log(pool / pool.sum() + _POOL_PROBABILITY)


class _Ranking:
    """The candidates of each query in order of distance, searched as deep as somebody asks."""

    def __init__(self, target: Target):
        self._target, self._depth = target, _FIRST_DEPTH
        self._at = np.zeros(len(target.queries), dtype=np.int64)
        self._indices = self._fetch(np.arange(len(target.queries)), self._depth)

    def next_open(self, row: int, closed: np.ndarray) -> int | None:
        """The nearest candidate of query ``row`` whose unit is not ``closed`` (U,); None where there is none."""
        while True:
            rest = self._indices[row][self._at[row] :]
            is_open = ~closed[self._target.unit_of[rest]]
            if is_open.any():
                self._at[row] += int(np.argmax(is_open))
                return int(self._indices[row][self._at[row]])
            self._at[row] += len(rest)
            if not self._deepen(row):
                return None

    def coming(self, rows: list[int], place: int, closed: np.ndarray, count: int, each: int) -> list[int]:
        """At most ``count`` open candidates of the rows from ``rows[place]`` on, around to it, at most ``each`` of one.

        Those that are next as far as is known without a search; duplicates of one another may be among them.
        """
        each = max(each, count // len(rows))
        found: dict[int, None] = {}
        for step in range(min(len(rows), -(-count // each))):
            row = rows[(place + step) % len(rows)]
            rest = self._indices[row][self._at[row] : self._at[row] + 2 * each + _FIRST_DEPTH]
            found.update(dict.fromkeys(rest[~closed[self._target.unit_of[rest]]][:each].tolist()))
        return list(found)[:count]

    def _deepen(self, row: int) -> bool:
        """Twice as deep for ``row`` and all others that are past half of what they have; False where it was all."""
        have = len(self._indices[row])
        depth = 2 * have
        lengths = np.array([len(found) for found in self._indices])
        rows = np.flatnonzero((lengths == have) & (2 * self._at >= have))
        for one, found in zip(rows, self._fetch(rows, depth), strict=True):
            self._indices[one] = found
        return len(self._indices[row]) > have

    def _fetch(self, rows: np.ndarray, depth: int) -> list[np.ndarray]:
        found = []
        for start, stop in row_blocks(len(rows), min(depth, self._target.pool.size), _PAIRS_AT_ONCE):
            near = self._target.pool.nearest(rows[start:stop], depth).indices[:, :depth]
            found += [row[row >= 0].astype(np.int32) for row in near]
        return found


class _Taken:
    """The vectors of the candidates taken so far, none within the kernel radius of another.

    One product compares a candidate and those expected after it with all taken, instead of one for each of them, which
    would read all these vectors each time. What is taken in between each is compared with when its turn comes.
    """

    def __init__(self, size: int, target: Target):
        self._target, self._count, self._asked = target, 0, 0
        self._rows = np.empty((size, target.queries.shape[1]), dtype=np.float32)
        self._squared = np.empty(size)
        self._apart: dict[int, int] = {}
        """Of candidates, from how many of those taken they are known to be apart; -1: not from all."""

    def add(self, candidate: int, coming: Callable[[int, int], list[int]]) -> bool:
        """Whether ``candidate`` is farther than the kernel radius from all taken, and is taken, too.

        ``coming`` (count, each) says what is likely to be asked next, ``each`` times for every one that is taken.
        """
        n, self._asked = self._count, self._asked + 1
        apart = self._apart.get(candidate, 0)
        if apart >= 0 and n - apart > _COMPARED_AT_ONCE:
            each = -(-self._asked // n)
            self._compare([candidate, *(one for one in coming(_COMPARED_AT_ONCE, each) if one != candidate)])
        apart = self._apart.pop(candidate, 0)
        if apart < 0:
            return False
        row = self._target.vectors(np.array([candidate]))
        if self._near(row, apart).any():
            return False
        self._rows[n], self._squared[n], self._count = row[0], row_lengths(row)[0] ** 2, n + 1
        return True

    def _compare(self, candidates: list[int]) -> None:
        known = np.array([self._apart.get(candidate, 0) for candidate in candidates])
        stale = (known >= 0) & (self._count - known > _COMPARED_AT_ONCE)
        some = np.array(candidates)[stale]
        near = self._near(self._target.vectors(some), int(known[stale].min()))
        self._apart.update(zip(some.tolist(), np.where(near, -1, self._count).tolist(), strict=True))

    def _near(self, rows: np.ndarray, start: int) -> np.ndarray:
        """Which of ``rows`` (b, dim) lie within the kernel radius of one of those taken from the ``start``-th on.

        What a float32 product cannot tell from that is evaluated again.
        """
        near = np.zeros(len(rows), dtype=bool)
        lengths, radius = row_lengths(rows), self._target.kernel_radius
        for first in range(start, self._count, _TAKEN_AT_ONCE):
            part = slice(first, min(first + _TAKEN_AT_ONCE, self._count))
            taken, squared = self._rows[part], self._squared[part]
            error = squared_distance_error(rows.shape[1], lengths.max(), squared.max() ** 0.5)
            nearness = rows @ taken.T
            nearness -= (squared / 2).astype(np.float32)
            least = ((lengths**2 - radius**2 - error) / 2).astype(np.float32)
            row, column = np.nonzero(nearness >= least[:, None])
            near[row[pair_distances(rows, taken, row, column) <= radius]] = True
        return near


def _drawn(probabilities: np.ndarray, target: Target, size: int, rng: np.random.Generator) -> np.ndarray:
    """A Pareto draw of ``size`` sampling units from ``probabilities`` (N,), as their first candidates."""
    return target.first_of_unit[draw(by_unit(probabilities, target.units), size, rng=rng)[0]]


def _distinct(order: np.ndarray, target: Target) -> np.ndarray:
    """``order`` (candidates) without those whose sampling unit came before."""
    if target.units is None:
        return order
    _, first = np.unique(target.units[order], return_index=True)
    return order[np.sort(first)]


def _enough(chosen: np.ndarray, size: int) -> np.ndarray:
    if len(chosen) < size:
        raise ValueError(f"{size} examples were asked for but only {len(chosen)} could be taken")
    return chosen.astype(np.int64)
