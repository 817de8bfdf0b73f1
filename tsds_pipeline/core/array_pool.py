"""The candidate pool of ``select``: two arrays, in memory or mapped from disk; densities when asked for."""

import numpy as np

from tsds_pipeline.core.arrays import all_distances
from tsds_pipeline.core.density import KernelDensity
from tsds_pipeline.core.neighbors import ExactSearch, Neighbors

# An exact scan costs nearly the same at any depth, so the first one goes deep and is remembered.
_FIRST_DEPTH = 512
_REMEMBERED = 2**23


class ArrayPool:
    """``queries`` (M, dim), ``candidates`` (N, dim) float32; ``counts`` (N,) copies each candidate stands for.

    With ``radius``, the kernel's h, densities can be computed. They make the weights a_j = n_j / rho_j;
    without a radius, or where not ``weighted``, the weights are n_j.
    """

    def __init__(
        self,
        queries: np.ndarray,
        candidates: np.ndarray,
        *,
        radius: float | None = None,
        counts: np.ndarray | None = None,
        weighted: bool = True,
    ):
        self.size = len(candidates)
        self._queries, self._candidates = queries, candidates
        self._counts = np.ones(self.size) if counts is None else np.asarray(counts, dtype=np.float64)
        self._search = ExactSearch(candidates)
        self._remembered: Neighbors | None = None
        self._density = None if radius is None else KernelDensity(candidates, radius, self._counts)
        self._weighted = weighted and radius is not None
        self.densities = np.full(self.size, np.nan)
        """rho_j of the candidates that were asked for so far, NaN elsewhere."""

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        if self._remembered is None:
            depth = min(max(k, _FIRST_DEPTH), max(k, _REMEMBERED // len(self._queries)))
            self._remembered = self._search.search(self._queries, depth)
        k = min(k, self.size)
        if k <= self._remembered.indices.shape[1]:
            return Neighbors(self._remembered.distances[rows, :k], self._remembered.indices[rows, :k])
        return self._search.search(np.ascontiguousarray(self._queries[rows]), k)

    def weights(self, candidates: np.ndarray) -> np.ndarray:
        if not self._weighted:
            return self._counts[candidates]
        self._look_up(candidates)
        return self._counts[candidates] / self.densities[candidates]

    def total_weight(self) -> tuple[float, float]:
        """A candidate not yet asked for weighs more than 0 and, as rho_j >= n_j, at most 1."""
        if not self._weighted:
            total = float(self._counts.sum())
            return total, total
        known = ~np.isnan(self.densities)
        low = float((self._counts[known] / self.densities[known]).sum())
        return low, low + float(np.count_nonzero(~known))

    def complete(self) -> None:
        """Compute the density of every candidate."""
        self._look_up(np.arange(self.size))

    def _look_up(self, candidates: np.ndarray) -> None:
        missing = np.unique(candidates[np.isnan(self.densities[candidates])])
        if len(missing):
            self.densities[missing] = self._density(self._candidates[missing])

    def distances(self, rows: np.ndarray) -> np.ndarray:
        return all_distances(self._queries[rows], self._candidates)
