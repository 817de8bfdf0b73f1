"""Kernel densities under a pool, by fixed-radius search.

    rho_j = sum over records x of count_x * max(0, 1 - |x_j - x|^2 / h^2)           (TSDS, section 3.3)

The kernel has compact support, so only pairs within h matter; ``close_pairs`` finds them, or a GPU where there is one.
They are evaluated in float64 on the full vectors and summed in the order of the pool's rows.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property

import numpy as np

from tsds_pipeline.core.accelerator import PairsOfBlock, on_accelerator, pairs_on
from tsds_pipeline.core.arrays import all_distances, pair_distances, spread_sample
from tsds_pipeline.core.cells import Cells
from tsds_pipeline.core.close_pairs import PairsOfCell, all_pairs, close_pairs
from tsds_pipeline.core.machine import cores, one_thread_products, side_by_side
from tsds_pipeline.core.row_stack import RowStack, distinct_rows

# Tests of projected pairs, in all and for each point, up to which densities are exact in any case (seconds).
EXACT_TESTS, EXACT_TESTS_OF_POINT = 5e9, 5e4
# The largest relative error that is accepted of approximate ones, on a sample of so many points.
TOLERANCE, _AUDITED = 1e-4, 256
_PROBES, _AUDIT_BYTES = 32, 2**24


class KernelDensity:
    """Densities of points under ``pool`` (N, dim).

    ``radius`` is h, a plain L2 distance; ``counts`` (N,) the copies each row stands for. A point that is a row
    of the pool counts itself. Densities are exact, unless that is not asked for (``exact`` = False) and would take
    too many tests: then only the cells around each point are looked at, as many as it takes for the densities of a
    sample to be within TOLERANCE of the exact ones. ``error`` is the largest relative error on the sample of the
    latest densities, 0 where they are exact, as they are on a GPU.
    """

    def __init__(
        self, pool: RowStack, radius: float, counts: np.ndarray | None = None, *, exact: bool = True
    ):
        if not (np.isfinite(radius) and radius > 0):
            raise ValueError(f"kernel_radius must be a positive number, got {radius}")
        self.pool, self._radius, self._exact = pool, float(radius), exact
        self._counts = np.ones(len(pool)) if counts is None else np.asarray(counts, dtype=np.float64)
        self.error = 0.0

    @cached_property
    def cells(self) -> Cells:
        """The rows of the pool in cells; not needed on a GPU."""
        return Cells(self.pool, self._radius)

    def __call__(self, points: RowStack, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Densities of ``points`` (n, dim), float64 (n,). ``progress`` gets the points done so far."""
        first, inverse = distinct_rows(points)
        report = progress and (lambda done: progress(done * len(points) // len(first)))
        return self._sums(points.subset(first), None, report)[0][inverse]

    def mutual(self, points: RowStack, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Densities of ``points`` under the pool, and of the pool's rows under ``points`` with ``counts`` (n,).

        Each pair is found and evaluated once.
        """
        first, inverse = distinct_rows(points)
        at_points, at_pool = self._sums(points.subset(first), np.bincount(inverse, weights=counts), None)
        return at_points[inverse], at_pool

    def _sums(self, points, counts, progress) -> tuple[np.ndarray, np.ndarray]:
        """The sums at ``points`` and, with ``counts`` of the points, at the rows of the pool.

        The points are distinct: of a family of copies there would be quadratically many pairs.
        """
        self.error = 0.0
        sums = on_accelerator(
            lambda device: self._sums_of(
                pairs_on(device, self.pool, points, self._radius), points, counts, progress
            ),
            float(len(points)) * len(self.pool) * self.pool.shape[1],
        )
        return self._sums_over_cells(points, counts, progress) if sums is None else sums

    def _sums_over_cells(self, points, counts, progress) -> tuple[np.ndarray, np.ndarray]:
        parts, probes = list(close_pairs(self.cells, points, self._radius)), _PROBES
        if not self._exact:
            tests = sum(side_by_side(lambda part: part.tests, ((part,) for part in parts)))
            if tests <= EXACT_TESTS + EXACT_TESTS_OF_POINT * len(points):
                probes = len(self.cells)
        while not self._exact and probes < len(self.cells):
            nearest = [replace(part, probes=probes) for part in parts]
            sums = self._sums_of(nearest, points, counts, progress)
            error = self._error(points, counts, *sums)
            if error <= TOLERANCE:
                self.error = error
                return sums
            probes *= 2
        return self._sums_of(parts, points, counts, progress)

    def _error(self, points: RowStack, counts, at_points: np.ndarray, at_pool: np.ndarray) -> float:
        """The largest relative error on a sample of the points and, with ``counts``, of the rows of the pool."""
        rows = spread_sample(len(points), _AUDITED)
        sample = RowStack([points[rows]])
        exact, _ = self._sums_of([all_pairs(self.cells, sample, self._radius)], sample, None, None)
        error = _relative_error(at_points[rows], exact)
        if counts is None:
            return error
        rows = spread_sample(len(self.pool), _AUDITED)
        exact, sample = np.zeros(len(rows)), self.pool[rows]
        for start, block in points.blocks(_AUDIT_BYTES):
            kernel = np.maximum(0.0, 1.0 - (all_distances(sample, block) / self._radius) ** 2)
            exact += kernel @ counts[start : start + len(block)]
        return max(error, _relative_error(at_pool[rows], exact))

    def _sums_of(
        self, parts: list[PairsOfCell] | list[PairsOfBlock], points: RowStack, counts, progress
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sums at the points and, with ``counts`` of the points, at the rows of the pool."""
        at_points, at_pool, done = np.zeros(len(points)), np.zeros(len(self.pool)), 0

        def add(part: PairsOfCell | PairsOfBlock) -> list[tuple[np.ndarray, np.ndarray]]:
            found = []
            for point, row in part:
                distances = pair_distances(points, self.pool, point, row)
                kernel = np.maximum(0.0, 1.0 - (distances / self._radius) ** 2)
                # One after the other, so that the sum is the same however the pairs were cut into blocks.
                np.add.at(at_points, point, kernel * self._counts[row])
                if counts is not None:
                    rows, place = np.unique(row, return_inverse=True)
                    found.append((rows, np.bincount(place, weights=kernel * counts[point])))
            return found

        with one_thread_products(), ThreadPoolExecutor(cores()) as threads:
            for part, found in zip(parts, threads.map(add, parts), strict=True):
                for rows, sums in found:
                    at_pool[rows] += sums
                done += len(part.members)
                if progress:
                    progress(done)
        return at_points, at_pool


def _relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    """Relative to the density as a whole, which is at least 1."""
    return float((np.abs(found - exact) / np.maximum(exact, 1.0)).max())
