"""What the two kinds of transport problem share: rows as deep as needed, the extreme plans, and the assembly.

Every optimum is a function of one number, its *spread*: how far a query reaches past its nearest candidate
(s* for knn_kde and knn_uniform, a distance for knn_tv). Spread 0 is the plan of alpha = 1, infinity the
reference plan of alpha = 0. ``kernel_transport`` and ``variation_transport`` say what lies between.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tsds_pipeline.core.plan import Plan, reference_plan
from tsds_pipeline.core.pool import CandidatePool
from tsds_pipeline.core.rows import WHOLE_BYTES, Block, Neighborhoods, WholeRows

# Pairs that neighbourhoods may hold (some 50 bytes each); beyond, the whole pool is passed over in blocks instead.
MAX_KNOWN_PAIRS = 2**26
# A plan that touches every pair is held entry by entry up to here, and as a background beyond.
MAX_EXPLICIT_PAIRS = 4_000_000
# Entries of a plan that no background shortens (24 bytes each).
MAX_PLAN_ENTRIES = 2**28
_WEIGHT_BATCH = 2**16


@dataclass(frozen=True, eq=False)
class Solution:
    """The optimal plan for one ``alpha``, and what it costs (see ``transport.solve``).

    ``spread`` is s* (knn_kde, knn_uniform; 0 when alpha = 1), or the distance past the nearest candidate up to
    which mass stays (knn_tv); infinite for the reference plan. ``objective`` is the midpoint of
    ``objective_bounds``, which differ only where S is not known. ``deepened`` counts the queries searched
    deeper than at first, ``cut_rows`` those that ``max_neighbors``, or a search that found too few, cut short.
    """

    plan: Plan
    alpha: float
    spread: float
    objective: float
    objective_bounds: tuple[float, float]
    transport_cost: float
    diversity_penalty: float
    neighborhood_sizes: np.ndarray
    cut_rows: int
    deepened: int

    @property
    def probabilities(self) -> np.ndarray:
        """p_j, (N,) float64."""
        return self.plan.probabilities

    @property
    def truncated(self) -> bool:
        return self.cut_rows > 0


class TransportProblem(ABC):
    """One task's problem over ``pool``, for any alpha; what was learned for one alpha serves the next."""

    ordered: bool
    """Whether whole rows have to come in order of distance."""

    def __init__(self, pool: CandidatePool, n_queries: int, scale: float, max_neighbors: int | None = None):
        self.pool, self.m, self.scale = pool, n_queries, float(scale)
        self.known = Neighborhoods(pool, n_queries, max_neighbors)
        self.whole: WholeRows | None = None

    @property
    def confined(self) -> bool:
        """Whether rows may not reach every candidate (``max_neighbors``): the reference plan is not feasible then."""
        return self.known.limit < self.pool.size

    # What distinguishes the algorithms.

    @abstractmethod
    def spread(self, alpha: float) -> float:
        """The spread of the optimum at ``alpha``; finite where the problem is ``confined``."""

    @abstractmethod
    def alpha(self, spread: float) -> float:
        """The supremum of the alphas whose optimum spreads at least as far as ``spread``."""

    @abstractmethod
    def masses(self, block: Block, spread: float) -> np.ndarray:
        """gamma for the leading columns of ``block``, (b, w); the further columns have none."""

    @abstractmethod
    def short(self, block: Block, spread: float) -> np.ndarray:
        """Which rows (b,) end before the plan with this spread is certain."""

    @abstractmethod
    def penalty_part(self, block: Block, mass: np.ndarray) -> tuple[float, float]:
        """What ``block`` with ``mass`` (b, w) contributes to ``penalty``."""

    @abstractmethod
    def penalty(self, parts: np.ndarray, full: bool) -> tuple[float, float]:
        """Bounds on G from the parts of all blocks, one a row; ``full`` where every pair has mass."""

    @abstractmethod
    def least_spread(self) -> float:
        """A positive spread from which the search for a wider one may start."""

    @abstractmethod
    def bounded(self, spread: float) -> float:
        """``spread``, or the widest that the rows allow short of the reference plan, if that is less."""

    @abstractmethod
    def cut(self, block: Block, spread: float) -> np.ndarray:
        """Which rows (b,) are closed before the plan with this spread is certain."""

    def correction(self, spread: float) -> Callable[[Block], np.ndarray] | None:
        """Where the plan is shorter as corrections of the reference plan: that plan's mass (b, k) in a block."""
        return None

    def pairs_ahead(self, rows: np.ndarray, spread: float) -> int:
        """How many pairs would at least be held once ``rows`` are deep enough for ``spread``."""
        return self.known.pairs_after(rows)

    # What they share.

    @cached_property
    def all_weights(self) -> np.ndarray:
        """a_j of the whole pool, (N,)."""
        n = self.pool.size
        starts = range(0, n, _WEIGHT_BATCH)
        return np.concatenate([self.pool.weights(np.arange(i, min(i + _WEIGHT_BATCH, n))) for i in starts])

    @cached_property
    def reference(self) -> np.ndarray:
        """The share of each candidate in the reference plan, a_j / S, (N,)."""
        return self.all_weights / self.all_weights.sum()

    @cached_property
    def reference_transport(self) -> float:
        """sum_ij gamma_ij d_ij of the reference plan."""
        step = max(1, WHOLE_BYTES // (8 * self.pool.size))
        blocks = [np.arange(i, min(i + step, self.m)) for i in range(0, self.m, step)]
        return sum(float((self.pool.distances(rows) @ self.reference).sum()) for rows in blocks) / self.m

    def reach(self, spread: float) -> bool:
        """Search deeper, once, where rows are too short for ``spread``; False if that was needed."""
        if self.whole is not None:
            return True
        short = [block.rows[self.short(block, spread) & ~block.closed] for block in self.known.blocks()]
        rows = np.sort(np.concatenate(short))
        if not len(rows):
            return True
        if self.known.limit == self.pool.size and self.pairs_ahead(rows, spread) > MAX_KNOWN_PAIRS:
            self.whole = WholeRows(self.pool, self.known, self.all_weights, ordered=self.ordered)
        else:
            self.known.deepen(rows)
        return False

    def blocks(self, spread: float) -> Iterable[Block]:
        """Rows that are deep enough for ``spread``, or as deep as they may be."""
        while not self.reach(spread):
            pass
        return (self.whole or self.known).blocks()

    def limited(self, block: Block) -> np.ndarray:
        """Rows (b,) that are closed although the pool has more candidates."""
        return block.closed & (np.count_nonzero(block.candidates >= 0, axis=1) < self.pool.size)

    def probabilities(self, spreads: Sequence[float]) -> np.ndarray:
        """p of the plan of each spread, (len(spreads), N), in one pass over the rows."""
        totals = np.zeros((len(spreads), self.pool.size))
        finite = [t for t, spread in enumerate(spreads) if np.isfinite(spread)]
        for t in set(range(len(spreads))) - set(finite):
            totals[t] = self.reference
        for block in self.blocks(max(spreads[t] for t in finite)) if finite else ():
            for t in finite:
                totals[t] += block.sum_by_candidate(self.masses(block, spreads[t]), self.pool.size)
        return totals

    def solution(self, alpha: float) -> Solution:
        """The optimum at ``alpha`` in [0, 1]."""
        spread = self.spread(alpha)
        if np.isfinite(spread):
            return self._solution_of(alpha, spread)
        explicit = self.m * self.pool.size <= MAX_EXPLICIT_PAIRS
        plan, sizes = reference_plan(self.m, self.reference, explicit), np.full(self.m, self.pool.size)
        return self._solution(alpha, spread, plan, self.reference_transport, (0.0, 0.0), sizes, 0)

    def _solution_of(self, alpha: float, spread: float) -> Solution:
        """The plan of a finite ``spread``, collected block by block with the sums its objective needs."""
        background = self.correction(spread)
        entries, parts, transport, cut_rows, count = [], [], 0.0, 0, 0
        sizes = np.zeros(self.m, dtype=np.int64)
        for block in self.blocks(spread):
            mass = self.masses(block, spread)
            transport += float(np.einsum("ij,ij->", mass, block.distances[:, : mass.shape[1]]))
            sizes[block.rows] = np.count_nonzero(mass, axis=1)
            parts.append(self.penalty_part(block, mass))
            cut_rows += int(np.count_nonzero(self.cut(block, spread)))
            entries.append(_entries(block, mass - background(block) if background else mass))
            count += len(entries[-1][0])
            _check_entries(count)
        share = (0.0, None) if background is None else (1.0, self.reference)
        plan = Plan(self.m, self.pool.size, *_in_order(entries), *share)
        bounds = self.penalty(np.array(parts), int(sizes.sum()) == self.m * self.pool.size)
        return self._solution(alpha, spread, plan, transport, bounds, sizes, cut_rows)

    def _solution(self, alpha, spread, plan, transport, penalties, sizes, cut_rows) -> Solution:
        low, high = (alpha / self.scale * transport + (1.0 - alpha) * penalty for penalty in penalties)
        return Solution(
            plan=plan,
            alpha=alpha,
            spread=spread,
            objective=(low + high) / 2,
            objective_bounds=(low, high),
            transport_cost=transport,
            diversity_penalty=sum(penalties) / 2,
            neighborhood_sizes=sizes,
            cut_rows=cut_rows,
            deepened=self.known.deepened,
        )


def nearest(block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and share of each row's nearest candidate, or of those that tie, in proportion to weight.

    Sums here and in ``masses`` run in one order, so that no bit depends on how deep a row was searched.
    """
    row, column = np.nonzero(block.distances == block.distances.min(axis=1, keepdims=True))
    weights = block.weights[row, column]
    return row, column, weights / np.bincount(row, weights=weights)[row]


def _entries(block: Block, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, column = np.nonzero(values)
    return block.rows[row], block.candidates[row, column], values[row, column]


def _in_order(entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Query, candidate and mass of all entries, ordered by query."""
    arrays = [np.concatenate(pieces) for pieces in zip(*entries, strict=True)]
    entries.clear()
    if (np.diff(arrays[0]) >= 0).all():
        return arrays
    order = np.argsort(arrays[0], kind="stable")
    return [array[order] for array in arrays]


def _check_entries(count: int) -> None:
    if count > MAX_PLAN_ENTRIES:
        raise ValueError(
            f"the plan has more than {MAX_PLAN_ENTRIES:,} explicit entries: "
            "raise alpha, lower distance_scale or set max_neighbors"
        )
