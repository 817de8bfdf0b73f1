"""Kernel densities over the whole pool, exact, by fixed-radius search.

    rho_j = sum over records x of count_x * max(0, 1 - |x_j - x|^2 / h^2)           (TSDS, section 3.3)

The kernel has compact support, so only pairs within h matter; ``close_pairs`` finds them. They are evaluated
in float64 on the full vectors and summed in the order of the pool's rows.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from tsds_pipeline.core.arrays import pair_distances
from tsds_pipeline.core.close_pairs import ClosePairs, PairsOfCell
from tsds_pipeline.core.row_stack import RowStack, distinct_rows

_POINTS_AT_ONCE = 16_384


class KernelDensity:
    """Densities of points under ``pool`` (N, dim) float32, or a sequence of such blocks, taken as one.

    ``radius`` is h, a plain L2 distance; ``counts`` (N,) the copies each row stands for. A point that is a row
    of the pool counts itself. Equal rows are evaluated once.
    """

    def __init__(
        self,
        pool: np.ndarray | Sequence[np.ndarray],
        radius: float,
        counts: np.ndarray | None = None,
    ):
        if not (np.isfinite(radius) and radius > 0):
            raise ValueError(f"kernel_radius must be a positive number, got {radius}")
        pool = RowStack([pool] if isinstance(pool, np.ndarray) else pool)
        first, inverse = distinct_rows(pool)
        self._pool, self._rows, self._radius = pool, first, float(radius)
        self._counts = np.bincount(inverse, weights=counts).astype(np.float64)
        with threadpool_limits(1, user_api="blas"):
            self._pairs = ClosePairs(pool if len(first) == len(pool) else pool[first], self._radius)

    def __call__(self, points: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Densities of ``points`` (n, dim) float32, float64 (n,). ``progress`` gets the points done so far."""
        densities = np.empty(len(points))
        for start in range(0, len(points), _POINTS_AT_ONCE):
            stop = min(start + _POINTS_AT_ONCE, len(points))
            block = np.ascontiguousarray(points[start:stop])
            first, inverse = distinct_rows(block)
            densities[start:stop] = self._distinct(block[first])[inverse]
            if progress:
                progress(stop)
        return densities

    def _distinct(self, points: np.ndarray) -> np.ndarray:
        densities = np.zeros(len(points))

        def add(pairs: PairsOfCell) -> None:
            for rows, columns in pairs:
                distances = pair_distances(points, self._pool, rows, self._rows[columns])
                kernel = np.maximum(0.0, 1.0 - (distances / self._radius) ** 2) * self._counts[columns]
                # One after the other, so that the sum is the same however the pairs were cut into blocks.
                np.add.at(densities, rows, kernel)

        # Cells side by side, each product in one thread: they are small, and on a busy machine the threads of
        # a BLAS wait for each other far longer than they work.
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(_cores()) as threads:
            for _ in threads.map(add, self._pairs.of(points)):
                pass
        return densities


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
