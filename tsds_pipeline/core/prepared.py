"""A pool of candidates that serves many tasks: what was computed of it for one is there for the next."""

from functools import cached_property

import numpy as np

from tsds_pipeline.core.accelerator import accelerator
from tsds_pipeline.core.cells import Cells
from tsds_pipeline.core.config import SelectionConfig
from tsds_pipeline.core.density import KernelDensity
from tsds_pipeline.core.neighbors import CellSearch, ExactSearch, NeighborSearch
from tsds_pipeline.core.row_stack import RowStack

SMALL_POOL = 20_000
"""Up to here everything is exact and complete in no time to speak of."""


class PreparedPool:
    """``candidates`` (N, dim), in memory or mapped from disk; ``counts`` (N,) copies each of them stands for.

    ``densities`` (N,) float64 holds rho_j of the candidates that were asked for so far, NaN elsewhere.
    """

    def __init__(self, candidates: np.ndarray, config: SelectionConfig, counts: np.ndarray | None = None):
        self.vectors = RowStack.of(candidates, "candidates", normalize=config.normalize)
        self.config = config
        self.counts = _checked_counts(counts, len(self))
        self.densities = np.full(len(self), np.nan)
        self.density_error = 0.0
        """The largest relative error on samples of the densities computed so far; 0 while all are exact."""
        self._cells: Cells | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self) -> NeighborSearch:
        """A search for one task, which no other changes."""
        return ExactSearch(self.vectors) if self._cells is None else CellSearch(self._cells)

    @cached_property
    def density(self) -> KernelDensity:
        """The kernel density under the pool."""
        return KernelDensity(self.vectors, self.config.kernel_radius, self.counts, exact=self.config.exact)

    def look_up(self, candidates: np.ndarray) -> np.ndarray:
        """Densities of ``candidates`` (c,), computed where they are not known yet."""
        missing = np.unique(candidates[np.isnan(self.densities[candidates])])
        if len(missing):
            points = self.vectors if len(missing) == len(self) else self.vectors.subset(missing)
            self.densities[missing] = self.density(points)
            self.density_error = max(self.density_error, self.density.error)
        return self.densities[candidates]

    def index(self) -> None:
        """From now on, look for neighbours in the cells around a query."""
        self._cells = self.density.cells

    def complete(self) -> None:
        """Compute the density of every candidate."""
        self.look_up(np.arange(len(self)))


def prepare(
    candidates: np.ndarray, config: SelectionConfig | None = None, counts: np.ndarray | None = None
) -> PreparedPool:
    """The index and the densities of ``candidates`` (N, dim), to be given to ``select`` in their place.

    It pays from the second task on. Unless ``config.exact``, and without a GPU, neighbours are then sought in the cells
    around each query, with a recall that is checked for every task on a sample of its queries.

    ``config`` and ``counts`` are as for ``select``; kernel_radius, normalize and exact have to be the same there.
    ValueError for input that cannot be used.
    """
    config = SelectionConfig() if config is None else config
    pool = PreparedPool(candidates, config, counts)
    if config.algorithm == "knn_kde" or config.whole_pool_densities:
        pool.complete()
    if not config.exact and len(pool) > SMALL_POOL and accelerator() is None:
        pool.index()
    return pool


def _checked_counts(counts: np.ndarray | None, n: int) -> np.ndarray:
    if counts is None:
        return np.ones(n)
    counts = np.asarray(counts)
    if counts.shape != (n,) or counts.dtype.kind not in "iuf":
        raise ValueError(f"counts must hold {n} numbers, one for each candidate, got shape {counts.shape}")
    wrong = ~((counts >= 1) & (counts == np.floor(counts)) & np.isfinite(counts))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"counts[{row}] is {counts[row]}: a candidate stands for a whole number of copies from 1"
        )
    return counts.astype(np.float64)
