"""The rows of a pool in cells: projected on their leading principal components and grouped around centres.

What two rows of different cells have between them is at least what their projections on the line through the two
centres have. ``close_pairs`` uses that to leave out cells without missing a pair, ``neighbors.CellSearch`` looks
for neighbours in the cells around a query.
"""

import numpy as np

from tsds_pipeline.core.arrays import all_distances, row_blocks
from tsds_pipeline.core.machine import side_by_side
from tsds_pipeline.core.row_stack import RowStack

_ROWS_PER_CELL, _CELLS_PER_ROOT = 256, 4.0  # so many cells for each sqrt(n) at most
_SAMPLE_ROWS, _SAMPLE_PER_CELL, _ROUNDS = 16_384, 16, 3
_TESTED_ROWS = 1024
_DIMS = (32, 64, 128)
# Seconds that a pair costs: in a product, for each dimension; when it survives and is evaluated in float64.
_COST_OF_DIM, _COST_OF_SURVIVOR = 1.5e-11, 5e-7
_BLOCK = 2**22
_EPS = float(np.finfo(np.float32).eps)


class Cells:
    """The rows of ``pool`` (n, dim) in cells, for searches within ``radius`` of a point.

    ``order`` (n,) lists the rows cell by cell, ``starts`` (cells + 1,) says where each cell begins in it, and
    ``lifted`` (n, r + 1) holds, in that order, (y, -|y|^2/2) of the projected rows y.
    """

    def __init__(self, pool: RowStack, radius: float):
        self.pool = pool
        n = len(pool)
        self.mean, self._basis = _projection(pool, radius)
        self.lifted = np.empty((n, self._basis.shape[1] + 1), dtype=np.float32)
        rows = self.lifted[:, :-1]
        self.norm = self._project(pool, rows)
        self.centers = _centers(rows)
        self.lifted_centers = lift(self.centers)
        cell, nearness = nearest_center(rows, self.centers)
        self.lifted[:, -1] = np.einsum("ij,ij->i", rows, rows) / -2
        self.order = np.argsort(cell, kind="stable")
        self.starts = np.searchsorted(cell[self.order], np.arange(len(self) + 1))
        for column in self.lifted.T:  # one after the other: a second copy of them all would be large
            column[:] = column[self.order]
        # |y|^2 - |y - c|^2 of each row y and its own centre c.
        self._inside = 2 * nearness[self.order]
        # Filled row by row, where asked for: see ``measure``.
        self.least_margins, self.inverse_gaps = np.empty((2, len(self), len(self)), dtype=np.float32)
        self._measured = np.zeros(len(self), dtype=bool)

    def __len__(self) -> int:
        return len(self.centers)

    def project(self, vectors: RowStack) -> tuple[np.ndarray, float]:
        """Projected rows (n, r) float32, and the length of the longest row about the mean."""
        result = np.empty((len(vectors), self._basis.shape[1]), dtype=np.float32)
        return result, self._project(vectors, result)

    def _project(self, vectors: RowStack, result: np.ndarray) -> float:
        longest = 0.0
        for start, block in vectors.blocks(_BLOCK):
            centred = block - self.mean
            longest = max(longest, float(np.einsum("ij,ij->i", centred, centred).max()))
            result[start : start + len(block)] = centred @ self._basis
        return float(np.sqrt(longest)) * (1 + vectors.shape[1] * _EPS)

    def projection_error(self, norm: float) -> float:
        """Bound on what rounding in ``project`` may add to a distance between rows of length ``norm``."""
        dim, kept = self._basis.shape
        return float(2 * np.sqrt(kept) * (dim + 16) * _EPS * norm)

    def measure(self, cells: np.ndarray) -> None:
        """See to it that the rows ``cells`` of two matrices (cells, cells) hold, for a of these and each cell c:

        ``least_margins``, the least distance, towards a, of any row of c from the plane half way between the two
        centres, infinite where c has none; ``inverse_gaps``, 1 / |a - c|, and 0 for equal centres.
        """
        fresh = cells[~self._measured[cells]]
        for start, stop in row_blocks(len(fresh), 16 * len(self)):
            self._measure(fresh[start:stop])
        self._measured[fresh] = True

    def _measure(self, fresh: np.ndarray) -> None:
        gaps = all_distances(self.centers[fresh], self.centers)
        gaps[gaps == 0] = np.inf  # a centre and itself, or its equal: no line, no bound
        self.inverse_gaps[fresh] = 1.0 / gaps
        margins = np.full((len(self), len(fresh)), np.inf, dtype=np.float32)
        toward = np.column_stack([-2 * self.centers[fresh], np.ones(len(fresh), dtype=np.float32)]).T

        def least(c: int) -> None:
            first, last = self.starts[c], self.starts[c + 1]
            for start, stop in row_blocks(last - first, 4 * len(fresh), _BLOCK):
                rows = self.lifted[first + start : first + stop].copy()
                rows[:, -1] = self._inside[first + start : first + stop]
                np.minimum(margins[c], (rows @ toward).min(axis=0), out=margins[c])

        side_by_side(least, ((c,) for c in range(len(self))))
        filled = np.diff(self.starts) > 0
        margins[filled] += np.einsum("ij,ij->i", self.centers[fresh], self.centers[fresh])
        margins[filled] *= self.inverse_gaps[fresh].T[filled] / 2
        self.least_margins[fresh] = margins.T


def nearest_center(rows: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of ``centers`` (c, r) is nearest to each of ``rows`` (n, r), and x.c - |c|^2/2 of the two; (n,) each."""
    cell, nearness = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.float32)
    lifted = lift(centers).T

    def assign(start: int, stop: int) -> None:
        products = with_one(rows[start:stop]) @ lifted
        cell[start:stop] = np.argmax(products, axis=1)
        nearness[start:stop] = np.take_along_axis(products, cell[start:stop, None], axis=1)[:, 0]

    side_by_side(assign, row_blocks(len(rows), 4 * len(centers), _BLOCK))
    return cell, nearness


def lift(rows: np.ndarray) -> np.ndarray:
    """(y, -|y|^2/2) of ``rows`` y (n, r)."""
    return np.column_stack([rows, np.einsum("ij,ij->i", rows, rows) / -2])


def with_one(rows: np.ndarray) -> np.ndarray:
    """(x, 1) of ``rows`` x: its product with a lifted y is x.y - |y|^2/2, the larger the nearer."""
    return np.column_stack([rows, np.ones(len(rows), dtype=np.float32)])


def _projection(pool: RowStack, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean (dim,) and orthonormal basis (dim, r) of the leading principal components of a sample, float32.

    r is chosen for speed, from how many pairs of a sample would survive; no choice changes what is found.
    """
    n, dim = pool.shape
    sample = pool[:: -(-n // _SAMPLE_ROWS)].astype(np.float64)
    mean = sample.mean(axis=0)
    if dim <= _DIMS[0] or n <= dim:
        return mean.astype(np.float32), np.eye(dim, dtype=np.float32)
    _, vectors = np.linalg.eigh((sample - mean).T @ (sample - mean))
    vectors = vectors[:, ::-1]
    step = -(-len(sample) // (2 * _TESTED_ROWS))
    tested = (sample[::step] - mean) @ vectors
    dims = [r for r in _DIMS if r < dim] + ([dim] if dim < 2 * _DIMS[-1] else [])
    costs = [_COST_OF_DIM * r + _COST_OF_SURVIVOR * _surviving(tested[:, :r], radius) for r in dims]
    return mean.astype(np.float32), vectors[:, : dims[int(np.argmin(costs))]].astype(np.float32)


def _surviving(tested: np.ndarray, radius: float) -> float:
    """The share of pairs of the first with the second half of ``tested`` that lie within ``radius``."""
    half = len(tested) // 2
    return float((all_distances(tested[:half], tested[half:]) <= radius).mean()) if half else 0.0


def _centers(rows: np.ndarray) -> np.ndarray:
    """Centres (cells, r) by a few rounds of k-means on a sample, near ones side by side."""
    n = len(rows)
    cells = int(np.clip(min(n // _ROWS_PER_CELL, _CELLS_PER_ROOT * n**0.5), 1, n))
    sample = rows[:: -(-n // max(_SAMPLE_ROWS, _SAMPLE_PER_CELL * cells))]
    centers = sample[np.linspace(0, len(sample) - 1, cells).astype(np.int64)].copy()
    for _ in range(_ROUNDS):
        cell, _ = nearest_center(sample, centers)
        order = np.argsort(cell, kind="stable")
        present, first, count = np.unique(cell[order], return_index=True, return_counts=True)
        centers[present] = np.add.reduceat(sample[order], first, axis=0) / count[:, None]
    group, _ = nearest_center(centers, centers[:: max(1, int(cells**0.5))])
    return centers[np.argsort(group, kind="stable")]
