"""Kernel densities over the whole pool, exact, by fixed-radius search.

    rho_j = sum over records x of count_x * max(0, 1 - |x_j - x|^2 / h^2)           (TSDS, section 3.3)

The kernel has compact support, so only pairs within h matter. An orthogonal projection never lengthens a
distance: pairs farther apart than h in the leading principal components are discarded exactly, the
survivors are evaluated in float64 on the full vectors.
"""

from collections.abc import Callable

import numpy as np

from tsds_pipeline.core.arrays import largest_norm, pair_distances, row_blocks, squared_distance_error

PROJECTED_DIM = 64
_SAMPLE_ROWS = 16_384
_FIRST_BATCH = 64
_LARGEST_BATCH = 4096
_PAIRS_PER_BATCH = 4_000_000


class KernelDensity:
    """Densities of points under ``pool`` (N, dim) float32, ``counts`` (N,) copies each row stands for.

    ``radius`` is h, a plain L2 distance. A point that is a row of the pool counts itself.
    """

    def __init__(self, pool: np.ndarray, radius: float, counts: np.ndarray | None = None):
        import faiss

        if not (np.isfinite(radius) and radius > 0):
            raise ValueError(f"kernel_radius must be a positive number, got {radius}")
        self.pool, self.radius = pool, float(radius)
        self.counts = np.ones(len(pool)) if counts is None else np.asarray(counts, dtype=np.float64)
        self._mean, self._basis = _leading_components(pool)
        self._index = faiss.IndexFlatL2(self._basis.shape[1])
        for start, stop in row_blocks(len(pool), pool.shape[1] * 8):
            self._index.add(self._project(pool[start:stop]))
        self._norm = largest_norm(
            faiss.rev_swig_ptr(self._index.get_xb(), self._index.ntotal * self._index.d).reshape(
                self._index.ntotal, self._index.d
            )
        )

    def __call__(self, points: np.ndarray, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Densities of ``points`` (n, dim) float32, float64 (n,). ``progress`` gets the points done so far."""
        densities = np.empty(len(points))
        start, batch = 0, _FIRST_BATCH
        while start < len(points):
            stop = min(start + batch, len(points))
            densities[start:stop], pairs = self._batch(points[start:stop])
            # Families of near-duplicates make many pairs: keep the pairs of a batch bounded.
            batch = int(np.clip(_PAIRS_PER_BATCH * (stop - start) // max(pairs, 1), 1, _LARGEST_BATCH))
            start = stop
            if progress:
                progress(start)
        return densities

    def _batch(self, points: np.ndarray) -> tuple[np.ndarray, int]:
        projected = self._project(points)
        error = squared_distance_error(self._index.d, largest_norm(projected), self._norm)
        limits, _, found = self._index.range_search(projected, self.radius**2 * (1 + 1e-5) + error)
        rows = np.repeat(np.arange(len(points)), np.diff(limits.astype(np.int64)))
        # A fixed order of summation, whatever order the search's threads found the pairs in.
        order = np.lexsort((found, rows))
        columns = found[order]
        distances = pair_distances(points, self.pool, rows, columns)
        kernel = np.maximum(0.0, 1.0 - (distances / self.radius) ** 2) * self.counts[columns]
        return np.bincount(rows, weights=kernel, minlength=len(points)), len(rows)

    def _project(self, vectors: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((vectors - self._mean) @ self._basis)


def _leading_components(pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (dim,) and orthonormal basis (dim, r) of the leading principal components of a sample, float32.

    The basis decides only how many pairs survive the filter, never the result.
    """
    sample = pool[:: -(-len(pool) // _SAMPLE_ROWS)].astype(np.float64)
    mean = sample.mean(axis=0)
    if pool.shape[1] <= PROJECTED_DIM:
        return mean.astype(np.float32), np.eye(pool.shape[1], dtype=np.float32)
    _, vectors = np.linalg.eigh((sample - mean).T @ (sample - mean))
    return mean.astype(np.float32), vectors[:, : -PROJECTED_DIM - 1 : -1].astype(np.float32)
