"""Which pairs of points and rows may lie within a radius of each other: an exact filter, three bounds deep.

An orthogonal projection never lengthens a distance, so pairs are sought among the projected rows (``cells``). For x
of cell A and y of cell c,

    |x - y|  >=  m_x + m_y,     m_x = (|x - c|^2 - |x - A|^2) / (2 |A - c|),   m_y likewise,

the distance of their projections on the line through the two centres: where it exceeds the radius for all x of A and
all y of c, the two cells have no pair. What is left goes through a product of the projected rows and, where many
survive that, one of the full rows. Every bound is widened by what float32 rounding may amount to, so that no pair
within the radius is lost.

Parts that are ``limited`` to the nearest cells may lose pairs: who asks for them checks a sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tsds_pipeline.core.arrays import squared_distance_error
from tsds_pipeline.core.cells import Cells, nearest_center, with_one
from tsds_pipeline.core.row_stack import RowStack

_POINTS_AT_ONCE, _ROWS_AT_ONCE = 512, 4096
# Pairs that are tested together; more only for a single point.
_PAIRS_AT_ONCE = 2**26
# Seconds: a pair evaluated in float64; a full row read for a product, and a dimension of a pair in it.
_COST_OF_PAIR, _COST_OF_ROW, _COST_OF_DIM = 5e-7, 4e-7, 2.5e-11
# Covers the rounding of margins, beside that of the squared distances in them.
_SLACK = 1e-5


def close_pairs(
    cells: Cells, points: RowStack, radius: float, rows: np.ndarray | None = None
) -> Iterator["PairsOfCell"]:
    """The pairs of ``points`` (n, dim), or of some ``rows`` of them, with rows of the pool of ``cells``.

    They come in parts independent of each other; all pairs of a point are in the same part.
    """
    projected, norm = cells.project(points)
    bounds = _bounds(cells, radius, max(norm, cells.norm))
    cell, _ = nearest_center(projected, cells.centers)
    rows = np.arange(len(points)) if rows is None else rows
    order = rows[np.argsort(cell[rows], kind="stable")]
    used, first = np.unique(cell[order], return_index=True)
    bounds_of_cells = zip(*cells.least_margins(used), strict=True)
    for a, members, (margins, inverse_gaps) in zip(
        used, np.split(order, first[1:]), bounds_of_cells, strict=True
    ):
        yield PairsOfCell(cells, points, bounds, members, projected[members], int(a), margins, inverse_gaps)


def all_pairs(cells: Cells, points: RowStack, radius: float) -> "PairsOfCell":
    """The same in one part, without a bound on cells: for a few points."""
    projected, norm = cells.project(points)
    bounds = _bounds(cells, radius, max(norm, cells.norm))
    none = np.zeros(len(cells))
    return PairsOfCell(cells, points, bounds, np.arange(len(points)), projected, 0, none, none)


class _Bounds(NamedTuple):
    """The ``radius`` among full and among ``projected`` rows; the ``error`` of projected squared distances."""

    radius: float
    projected: float
    error: float


def _bounds(cells: Cells, radius: float, norm: float) -> _Bounds:
    """For rows no longer than ``norm`` about the mean."""
    error = squared_distance_error(cells.lifted.shape[1] - 1, norm, norm)
    return _Bounds(radius, (radius + cells.projection_error(norm)) * (1 + _SLACK), error)


@dataclass(frozen=True, eq=False)
class PairsOfCell:
    """The possible pairs of points of cell ``a`` with rows of the pool.

    ``members`` (n,) names the points, ``projected`` (n, r) are they; ``margins`` (cells,) are the least m_y of the rows
    of each cell, ``inverse_gaps`` (cells,) 1 / |a - c|. With ``probes`` only the rows of so many cells are looked at.
    """

    cells: Cells
    points: RowStack
    bounds: _Bounds
    members: np.ndarray
    projected: np.ndarray
    a: int
    margins: np.ndarray
    inverse_gaps: np.ndarray
    probes: int | None = None

    @cached_property
    def near(self) -> np.ndarray:
        """The cells that may have a row within the radius of one of the points, those with most reason to first."""
        inverse = self.inverse_gaps / 2
        # m_x of all points, the least for each cell: how far a row there may be from the plane between the two.
        to_centers = with_one(self.projected) @ self.cells.lifted_centers.T
        least = -2 * (to_centers - to_centers[:, self.a, None]).max(axis=0) * inverse
        allowed = self.bounds.projected + 4 * self.bounds.error * inverse - least
        near = np.flatnonzero(self.margins <= allowed)
        if self.probes is not None and len(near) > self.probes:
            order = np.argpartition((self.margins - allowed)[near], self.probes - 1)
            near = np.sort(near[order[: self.probes]])
        return near

    @property
    def tests(self) -> int:
        """How many pairs there are to test."""
        starts = self.cells.starts
        return len(self.members) * int((starts[self.near + 1] - starts[self.near]).sum())

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(points, rows of the pool), (p,) int64 each, in order of both; all pairs of a point together."""
        runs = self._runs()
        if not runs:
            return
        rows = np.concatenate([self.cells.order[run.start : run.stop] for run in runs])
        step = int(np.clip(_PAIRS_AT_ONCE // len(rows), 1, _POINTS_AT_ONCE))
        for i in range(0, len(self.members), step):
            some = slice(i, i + step)
            point, column = self._within(some, runs)
            kept = self._within_in_full(self.members[some], rows, point, column)
            point, row = point[kept], rows[column[kept]]
            order = np.lexsort((row, point))
            yield self.members[some][point[order]], row[order]

    def _runs(self) -> list[range]:
        """The places in which the rows of the near cells stand: those side by side joined, the long ones cut."""
        near, starts = self.near, self.cells.starts
        joined = np.split(near, np.flatnonzero(np.diff(near) > 1) + 1)
        return [
            range(start, min(start + _ROWS_AT_ONCE, starts[run[-1] + 1]))
            for run in joined
            for start in range(starts[run[0]], starts[run[-1] + 1], _ROWS_AT_ONCE)
        ]

    def _within(self, some: slice, runs: list[range]) -> tuple[np.ndarray, np.ndarray]:
        """Points, counted from the first of ``some``, and rows, counted over ``runs``, that are close as projected."""
        x, limit = self.projected[some], self.bounds.projected**2 + self.bounds.error
        # |x|^2 + |y|^2 - 2xy <= limit as (x, 1)(y, -|y|^2/2) >= (|x|^2 - limit)/2: one product, one test.
        bounds = (np.einsum("ij,ij->i", x, x)[:, None] - limit) / 2
        lifted, before, found = with_one(x), 0, []
        for run in runs:
            close = np.flatnonzero(lifted @ self.cells.lifted[run.start : run.stop].T >= bounds)
            if len(close):
                point, column = np.divmod(close, len(run))
                found.append((point, column + before))
            before += len(run)
        none = np.empty(0, dtype=np.int64)
        point, column = (np.concatenate(arrays) for arrays in zip((none, none), *found, strict=True))
        return point, column

    def _within_in_full(
        self, members: np.ndarray, rows: np.ndarray, point: np.ndarray, column: np.ndarray
    ) -> np.ndarray | slice:
        """Which of the pairs are close in all dimensions, where a product of full rows is cheaper than the pairs."""
        used = np.zeros(len(rows), dtype=bool)
        used[column] = True
        dim, count = self.cells.pool.shape[1], np.count_nonzero(used)
        product = count * (_COST_OF_ROW + dim * _COST_OF_DIM * len(members))
        if len(point) * _COST_OF_PAIR <= product:
            return slice(None)
        x, y = self.points[members] - self.cells.mean, self.cells.pool[rows[used]] - self.cells.mean
        squared = x @ y.T
        squared *= -2
        norms = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
        squared += norms[0][:, None]
        squared += norms[1]
        error = squared_distance_error(dim, *(float(np.sqrt(n.max())) for n in norms))
        close = squared[point, np.cumsum(used)[column] - 1]
        return close <= self.bounds.radius**2 * (1 + _SLACK) + error
