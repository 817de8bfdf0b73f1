"""The candidates of one task of ``select``: a prepared pool, seen from the task's queries."""

import numpy as np

from tsds_pipeline.core.arrays import all_distances
from tsds_pipeline.core.neighbors import Neighbors
from tsds_pipeline.core.prepared import PreparedPool

# A scan costs nearly the same at any depth, so the first one goes deep and is remembered.
_FIRST_DEPTH = 512
_REMEMBERED = 2**23


class ArrayPool:
    """``queries`` (M, dim) float32 and the candidates of ``pool``.

    Where ``weighted``, densities make the weights a_j = n_j / rho_j; otherwise the weights are n_j.
    """

    def __init__(self, queries: np.ndarray, pool: PreparedPool, *, weighted: bool):
        self.size = len(pool)
        self._queries, self._pool, self._weighted = queries, pool, weighted
        self._search, self._remembered = pool.search(), None

    @property
    def recall(self) -> float:
        """The share of the exact neighbours found for a sample of the queries; 1 for exact searches."""
        return getattr(self._search, "recall", 1.0)

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        if self._remembered is None:
            depth = min(max(k, _FIRST_DEPTH), max(k, _REMEMBERED // len(self._queries)))
            self._remembered = self._search.search(self._queries, depth)
        k = min(k, self.size)
        if k <= self._remembered.indices.shape[1]:
            return Neighbors(self._remembered.distances[rows, :k], self._remembered.indices[rows, :k])
        return self._search.search(np.ascontiguousarray(self._queries[rows]), k)

    def weights(self, candidates: np.ndarray) -> np.ndarray:
        counts = self._pool.counts[candidates]
        return counts / self._pool.look_up(candidates) if self._weighted else counts

    def total_weight(self) -> tuple[float, float]:
        """A candidate not yet asked for weighs more than 0 and, as rho_j >= n_j, at most 1."""
        counts, densities = self._pool.counts, self._pool.densities
        if not self._weighted:
            total = float(counts.sum())
            return total, total
        known = ~np.isnan(densities)
        low = float((counts[known] / densities[known]).sum())
        return low, low + float(np.count_nonzero(~known))

    def distances(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [all_distances(self._queries[rows], block) for _, block in self._pool.vectors.blocks()], axis=1
        )
