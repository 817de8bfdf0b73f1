"""A pool of candidates that serves many tasks: what was computed of it for one is there for the next."""

from functools import cached_property

import numpy as np

from tsds_pipeline.core.config import SelectionConfig
from tsds_pipeline.core.density import KernelDensity
from tsds_pipeline.core.neighbors import CellSearch, ExactSearch, NeighborSearch, ProbedSearch
from tsds_pipeline.core.row_stack import RowStack

# Up to here an exact search takes no time to speak of.
_EXACT_UP_TO = 20_000


class PreparedPool:
    """``candidates`` (N, dim), in memory or mapped from disk; ``counts`` (N,) copies each of them stands for.

    ``densities`` (N,) float64 holds rho_j of the candidates that were asked for so far, NaN elsewhere.
    """

    def __init__(self, candidates: np.ndarray, config: SelectionConfig, counts: np.ndarray | None = None):
        self.vectors = RowStack.of(candidates, "candidates", normalize=config.normalize)
        self.config = config
        self.counts = _checked_counts(counts, len(self))
        self.densities = np.full(len(self), np.nan)
        self.search: NeighborSearch = ExactSearch(self.vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def recall(self) -> float:
        """The least share of the exact neighbours found for a sample of a task's queries; 1 for exact searches."""
        return self.search.recall if isinstance(self.search, ProbedSearch) else 1.0

    @property
    def density_error(self) -> float:
        """The largest relative error seen of a sample of densities; 0 while all are exact."""
        return self.density.largest_error if "density" in self.__dict__ else 0.0

    @cached_property
    def density(self) -> KernelDensity:
        """The kernel density under the pool."""
        return KernelDensity(self.vectors, self.config.kernel_radius, self.counts, exact=self.config.exact)

    def look_up(self, candidates: np.ndarray) -> np.ndarray:
        """Densities of ``candidates`` (c,), computed where they are not known yet."""
        missing = np.unique(candidates[np.isnan(self.densities[candidates])])
        if len(missing) == len(self):
            self.densities[:] = self.density(self.vectors)
        elif len(missing):
            self.densities[missing] = self.density(RowStack([self.vectors[missing]]))
        return self.densities[candidates]

    def complete(self) -> None:
        """Compute the density of every candidate."""
        self.look_up(np.arange(len(self)))


def prepare(
    candidates: np.ndarray, config: SelectionConfig | None = None, counts: np.ndarray | None = None
) -> PreparedPool:
    """The index and the densities of ``candidates`` (N, dim), to be given to ``select`` in their place.

    It pays from the second task on. Unless ``config.exact``, neighbours are then sought in the cells around each
    query, with a recall that is checked for every task on a sample of its queries. ``config`` and ``counts`` are as
    for ``select``; kernel_radius, normalize and exact have to be the same there. ValueError for input that cannot be
    used.
    """
    config = SelectionConfig() if config is None else config
    pool = PreparedPool(candidates, config, counts)
    if config.algorithm == "knn_kde" or config.whole_pool_densities:
        pool.complete()
    if not config.exact and len(pool) > _EXACT_UP_TO:
        pool.search = CellSearch(pool.density.cells)
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
