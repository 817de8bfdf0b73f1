"""Which pairs of points may lie within a radius of each other: an exact filter, two bounds deep.

Points are first projected on their leading principal components; an orthogonal projection never lengthens a
distance. Then the pool is cut into cells around centres. For x of cell A and y of cell c,

    |x - y|  >=  m_x + m_y,     m_x = (|x - c|^2 - |x - A|^2) / (2 |A - c|),   m_y likewise,

the distance of their projections on the line through the two centres: where it exceeds the radius, neither the
cell nor the point has to be looked at. What is left goes through a matrix product. Every bound is widened by
what float32 rounding may amount to, so that no pair within the radius is lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tsds_pipeline.core.arrays import all_distances, row_blocks, squared_distance_error
from tsds_pipeline.core.row_stack import RowStack

_SAMPLE_ROWS = 16_384
_TESTED_ROWS = 512
_DIMS = (16, 32, 64, 128)
# Seconds that a pair costs: in a product, for each dimension; when it survives and is evaluated in float64.
_COST_OF_DIM, _COST_OF_SURVIVOR = 4e-11, 5e-7
_ROWS_PER_CELL, _MAX_CELLS, _ROUNDS = 256, 1024, 3
_POINTS_AT_ONCE, _ROWS_AT_ONCE = 1024, 4096
# Covers the rounding of margins, beside that of the squared distances in them.
_SLACK = 1e-5
_EPS = float(np.finfo(np.float32).eps)


class ClosePairs:
    """Finds, for given points, every row of ``pool`` (u, dim) float32 within ``radius``, and a few others."""

    def __init__(self, pool: np.ndarray | RowStack, radius: float):
        self._radius = radius
        self._mean, self._basis = _projection(pool, radius)
        self._rows, self._norm = self._project(pool)
        self._centers = _centers(self._rows)
        gaps = all_distances(self._centers, self._centers)
        gaps[gaps == 0] = np.inf  # a centre and itself, or its equal: no line, no bound
        self._inverse_gap = (1.0 / gaps).astype(np.float32)
        self._assign_rows()

    def of(self, points: np.ndarray) -> Iterator["PairsOfCell"]:
        """Iterables, independent of each other, of (rows of ``points``, rows of the pool), (p,) int64 each.

        Every possible pair is in one of them. All pairs of a point are in the same one, in ascending order of
        the pool's rows.
        """
        projected, norm = self._project(points)
        norm = max(norm, self._norm)
        error = squared_distance_error(projected.shape[1], norm, norm)
        radius = (self._radius + self._projection_error(norm)) * (1 + _SLACK)
        squared = _squared(projected, self._centers)
        cell = np.argmin(squared, axis=1)
        for a in np.unique(cell):
            members = np.flatnonzero(cell == a)
            margins = (squared[members] - squared[members, a][:, None]) * (self._inverse_gap[a] / 2)
            # The largest m_y that still allows a pair, for each cell.
            allowed = radius + 2 * error * self._inverse_gap[a] - margins.min(axis=0)
            yield PairsOfCell(self, int(a), members, projected[members], allowed, radius**2 + error)

    def near(self, a: int, allowed: np.ndarray) -> np.ndarray:
        """Rows of the pool, ascending, whose margin towards cell ``a`` is at most ``allowed`` (cells,)."""
        rows = np.flatnonzero((self._least_margin[:, a] <= allowed)[self._cell])
        cell = self._cell[rows]
        squared = self._row_norms[rows] + self._center_norms[a] - 2 * (self._rows[rows] @ self._centers[a])
        margin = (squared - self._own[rows]) * (self._inverse_gap[a][cell] / 2)
        return rows[margin <= allowed[cell]]

    def lifted(self, rows: np.ndarray) -> np.ndarray:
        """(y, -|y|^2/2) of the projected ``rows``."""
        return np.column_stack([self._rows[rows], self._row_norms[rows] / -2])

    def _project(self, vectors: np.ndarray | RowStack) -> tuple[np.ndarray, float]:
        """Projected rows (n, r), and the length of the longest row about the mean."""
        result, longest = np.empty((len(vectors), self._basis.shape[1]), dtype=np.float32), 0.0
        for start, stop in row_blocks(len(vectors), vectors.shape[1] * 8):
            centred = vectors[start:stop] - self._mean
            longest = max(longest, float(np.einsum("ij,ij->i", centred, centred).max()))
            np.matmul(centred, self._basis, out=result[start:stop])
        return result, float(np.sqrt(longest)) * (1 + vectors.shape[1] * _EPS)

    def _projection_error(self, norm: float) -> float:
        """Bound on what rounding in ``_project`` may add to a distance."""
        dim, kept = self._basis.shape
        return float(2 * np.sqrt(kept) * (dim + 16) * _EPS * norm)

    def _assign_rows(self) -> None:
        """Each row's cell, and the least margin of any row of a cell c towards cell a, (cells, cells)."""
        cells, n = len(self._centers), len(self._rows)
        self._row_norms = np.einsum("ij,ij->i", self._rows, self._rows)
        self._center_norms = np.einsum("ij,ij->i", self._centers, self._centers)
        self._cell, self._own = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.float32)
        self._least_margin = np.full((cells, cells), np.inf)
        for start, stop in row_blocks(n, cells * 16):
            squared = _squared(self._rows[start:stop], self._centers)
            cell = np.argmin(squared, axis=1)
            own = squared[np.arange(len(cell)), cell]
            self._cell[start:stop], self._own[start:stop] = cell, own
            order = np.argsort(cell, kind="stable")
            present, first = np.unique(cell[order], return_index=True)
            least = np.minimum.reduceat(squared[order] - own[order, None], first, axis=0)
            least = least * (self._inverse_gap[present] / 2)
            self._least_margin[present] = np.minimum(self._least_margin[present], least)


@dataclass(frozen=True, eq=False)
class PairsOfCell:
    """The possible pairs of the points of cell ``a``: ``members`` (n,) names them, ``points`` (n, r) are they."""

    pool: ClosePairs
    a: int
    members: np.ndarray
    points: np.ndarray
    allowed: np.ndarray
    limit: float

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        near = self.pool.near(self.a, self.allowed)
        norms = np.einsum("ij,ij->i", self.points, self.points)
        # |x|^2 + |y|^2 - 2xy <= limit as (x, 1)(y, -|y|^2/2) >= (|x|^2 - limit)/2: one product, one test.
        points = np.column_stack([self.points, np.ones(len(norms), dtype=np.float32)])
        bound = (norms[:, None] - self.limit) / 2
        for i in range(0, len(points), _POINTS_AT_ONCE):
            some = slice(i, i + _POINTS_AT_ONCE)
            for j in range(0, len(near), _ROWS_AT_ONCE):
                rows = near[j : j + _ROWS_AT_ONCE]
                found = np.flatnonzero(points[some] @ self.pool.lifted(rows).T >= bound[some])
                if len(found):
                    point, row = np.divmod(found, len(rows))
                    yield self.members[some][point], rows[row]


def _projection(pool: np.ndarray | RowStack, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean (dim,) and orthonormal basis (dim, r) of the leading principal components of a sample, float32.

    r is chosen for speed, from how many pairs of a sample would survive; no choice changes what is found.
    """
    n, dim = pool.shape
    sample = pool[:: -(-n // _SAMPLE_ROWS)].astype(np.float64)
    mean = sample.mean(axis=0)
    if dim <= _DIMS[0]:
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
    return float((_squared(tested[:half], tested[half:]) <= radius**2).mean()) if half else 0.0


def _centers(rows: np.ndarray) -> np.ndarray:
    """Centres (cells, r) by a few rounds of k-means on a sample."""
    cells = int(np.clip(len(rows) // _ROWS_PER_CELL, 1, _MAX_CELLS))
    sample = rows[:: -(-len(rows) // _SAMPLE_ROWS)]
    centers = sample[np.linspace(0, len(sample) - 1, cells).astype(np.int64)].copy()
    for _ in range(_ROUNDS):
        cell = np.argmin(_squared(sample, centers), axis=1)
        order = np.argsort(cell, kind="stable")
        present, first, count = np.unique(cell[order], return_index=True, return_counts=True)
        centers[present] = np.add.reduceat(sample[order], first, axis=0) / count[:, None]
    return centers


def _squared(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs in expanded form, in the dtype of the arguments."""
    squared = left @ right.T
    squared *= -2
    squared += np.einsum("ij,ij->i", left, left)[:, None]
    squared += np.einsum("ij,ij->i", right, right)
    return squared
