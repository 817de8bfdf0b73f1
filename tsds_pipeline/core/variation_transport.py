"""knn_tv: the closed form of

    minimise  alpha/C sum_ij gamma_ij d_ij + (1 - alpha) 1/2 sum_ij |gamma_ij - n_j/(M S)|,    S = sum_j n_j

A candidate keeps n_j/(M S) in row i while d_ij - d_i1 < (1 - alpha) C / alpha; what the others lose goes to the
nearest one, or to those that tie, in proportion to n_j. (TSDS, appendix; its listing halves the threshold, its
theorem does not, and the theorem is right.)
"""

import warnings
from collections.abc import Callable
from functools import cached_property

import numpy as np

from tsds_pipeline.core import problem
from tsds_pipeline.core.problem import Solution, TransportProblem, nearest
from tsds_pipeline.core.rows import Block

_ROUNDING = 1e-12
_LEAST_SHARE_OF_DISTANCE = 1e-6
_SAMPLE_ROWS = 8


class VariationProblem(TransportProblem):
    """Problem RT with total variation as regulariser. Its spread is the threshold on d_ij - d_i1."""

    ordered = False

    def spread(self, alpha: float) -> float:
        if alpha:
            return (1.0 - alpha) * self.scale / alpha
        return self.bounded(np.finfo(float).max) if self.confined else np.inf

    def alpha(self, spread: float) -> float:
        return 0.0 if np.isinf(spread) else self.scale / (self.scale + spread)

    def solution(self, alpha: float) -> Solution:
        solution = super().solution(alpha)
        everything = int(solution.neighborhood_sizes.sum()) == self.m * self.pool.size
        if solution.spread > 0 and alpha and everything and self.pool.size > 1:
            warnings.warn(
                f"knn_tv keeps every candidate of every query: the threshold (1 - alpha) C / alpha = "
                f"{solution.spread:.4g} exceeds the range of distances; lower distance_scale or raise alpha",
                stacklevel=3,
            )
        return solution

    def masses(self, block: Block, spread: float) -> np.ndarray:
        gap = _gap(block)
        kept = (gap < spread) | (gap == 0)
        if block.reached is None:
            total = block.weights.sum(axis=1, where=kept)
        else:
            total = np.take_along_axis(block.reached, kept.sum(axis=1, keepdims=True) - 1, axis=1)[:, 0]
        lost = 1.0 - total / self._total
        lost[lost <= _ROUNDING] = 0.0
        mass = self._share(block) * kept
        row, column, share = nearest(block)
        mass[row, column] += lost[row] * share / self.m
        return mass

    def short(self, block: Block, spread: float) -> np.ndarray:
        gap = block.distances[:, -1] - block.distances[:, 0]
        return (gap < spread) | (gap == 0)

    def cut(self, block: Block, spread: float) -> np.ndarray:
        if self.whole is not None:
            return np.zeros(len(block.rows), dtype=bool)
        return self.short(block, spread) & self.limited(block)

    def penalty_part(self, block: Block, mass: np.ndarray) -> tuple[float, float]:
        return float(np.maximum(mass - self._share(block), 0.0).sum()), 0.0

    def penalty(self, parts: np.ndarray, full: bool) -> tuple[float, float]:
        moved = float(parts[:, 0].sum())
        return moved, moved

    def least_spread(self) -> float:
        gaps = np.concatenate(
            [(block.distances - block.distances[:, :1]).ravel() for block in self.known.blocks()]
        )
        furthest = max(block.distances.max() for block in self.known.blocks())
        least = gaps[gaps > 0].min(initial=np.inf)
        floor = max(_LEAST_SHARE_OF_DISTANCE * furthest, np.finfo(float).tiny)
        return float(np.clip(least, floor, max(furthest, floor)))

    def bounded(self, spread: float) -> float:
        self.blocks(spread)
        if self.whole is not None:
            return min(spread, self._widest)
        ends = [
            (block.distances[:, -1] - block.distances[:, 0], block.closed) for block in self.known.blocks()
        ]
        if not all(closed.all() for _, closed in ends):
            return spread
        return float(min(spread, np.nextafter(max(gap.max() for gap, _ in ends), np.inf)))

    def pairs_ahead(self, rows: np.ndarray, spread: float) -> int:
        # A few whole rows tell whether searching deeper and deeper would end in all pairs.
        sample = self.pool.distances(rows[:: -(-len(rows) // _SAMPLE_ROWS)])
        kept = np.count_nonzero(sample - sample.min(axis=1, keepdims=True) < spread, axis=1).mean()
        return max(super().pairs_ahead(rows, spread), int(kept * len(rows)))

    def correction(self, spread: float) -> Callable[[Block], np.ndarray] | None:
        pairs = self.m * self.pool.size
        rows = self.blocks(spread)
        if self.whole is None or pairs <= problem.MAX_EXPLICIT_PAIRS:
            return None
        kept = sum(int((_gap(block) < spread).sum()) for block in rows)
        return self._share if kept > pairs / 2 else None

    def _share(self, block: Block) -> np.ndarray:
        """The reference plan's mass of each pair of ``block``, n_j / (M S)."""
        return block.weights / (self.m * self._total)

    @cached_property
    def _total(self) -> float:
        return float(self.all_weights.sum())

    @cached_property
    def _widest(self) -> float:
        """The least threshold that keeps every pair."""
        return float(np.nextafter(max(_gap(block).max() for block in self.whole.blocks()), np.inf))


def _gap(block: Block) -> np.ndarray:
    """d_ij - d_i1, (b, k)."""
    return block.distances - block.distances.min(axis=1, keepdims=True)
