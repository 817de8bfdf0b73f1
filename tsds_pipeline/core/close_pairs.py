"""Which pairs of points and rows may lie within a radius of each other: an exact filter, three bounds deep.

An orthogonal projection never lengthens a distance, so pairs are sought among the projected rows (``cells``). For x
of cell A and y of cell c,

    |x - y|  >=  m_x + m_y,     m_x = (|x - c|^2 - |x - A|^2) / (2 |A - c|),   m_y likewise,

the distance of their projections on the line through the two centres: where it exceeds the radius for all x of A and
all y of c, the two cells have no pair. What is left goes through a product of the projected rows and, where many
survive that, one of the full rows. Every bound is widened by what float32 rounding may amount to, so that no pair
within the radius is lost.

Parts with a number of ``probes`` may lose pairs: who asks for them checks a sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tsds_pipeline.core.arrays import row_blocks, squared_distance_error
from tsds_pipeline.core.cells import Cells, nearest_center, with_one
from tsds_pipeline.core.row_stack import RowStack

_POINTS_AT_ONCE, _ROWS_AT_ONCE = 512, 4096
# Pairs that are tested together, and pairs that are held; more only for a single point.
_TESTS_AT_ONCE, _PAIRS_AT_ONCE = 2**26, 2**22
_NEAR_BYTES, _FULL_BYTES = 2**24, 2**25
# Seconds: a pair evaluated in float64; a full row read for a product, and a dimension of a pair in it.
_COST_OF_PAIR, _COST_OF_ROW, _COST_OF_DIM = 5e-7, 4e-7, 2.5e-11
# Covers the rounding of margins, beside that of the squared distances in them.
_SLACK = 1e-5


def close_pairs(cells: Cells, points: RowStack, radius: float) -> Iterator["PairsOfCell"]:
    """The pairs of ``points`` (n, dim) with rows of the pool of ``cells``, in parts independent of each other.

    All pairs of a point are in the same part.
    """
    projected, norm = cells.project(points)
    bounds = _bounds(cells, radius, max(norm, cells.norm))
    cell, _ = nearest_center(projected, cells.centers)
    order = np.argsort(cell, kind="stable")
    projected = projected[order]
    used, first = np.unique(cell[order], return_index=True)
    cells.measure(used)
    for a, start, stop in zip(used, first, [*first[1:], len(order)], strict=True):
        mine = slice(start, stop)
        margins, inverse_gaps = cells.least_margins[a], cells.inverse_gaps[a]
        yield PairsOfCell(cells, points, bounds, order[mine], projected[mine], int(a), margins, inverse_gaps)


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
        """The cells that may have a row within the radius of one of the points, ascending."""
        inverse = self.inverse_gaps / 2
        # m_x of all points, the least for each cell: how far a row there may be from the plane between the two.
        nearer = np.full(len(self.cells), -np.inf, dtype=np.float32)
        for start, stop in row_blocks(len(self.members), 8 * len(self.cells), _NEAR_BYTES):
            to_centers = with_one(self.projected[start:stop]) @ self.cells.lifted_centers.T
            to_centers -= to_centers[:, self.a, None].copy()
            np.maximum(nearer, to_centers.max(axis=0), out=nearer)
        reach = self.margins - 2 * nearer * inverse
        near = np.flatnonzero(reach <= self.bounds.projected + 4 * self.bounds.error * inverse)
        if self.probes is not None and len(near) > self.probes:
            reach[self.a] = -np.inf  # where a point that is a row of the pool finds itself
            near = np.sort(near[np.argpartition(reach[near], self.probes - 1)[: self.probes]])
        return near.astype(np.int32)

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
        first, step = 0, int(np.clip(_TESTS_AT_ONCE // len(rows), 1, _POINTS_AT_ONCE))
        most = step
        while first < len(self.members):
            some = slice(first, first + step)
            found = self._within(some, runs)
            if found is None:
                step = -(-step // 2)
                continue
            point, column = found
            kept = self._within_in_full(self.members[some], rows, point, column)
            point, row = point[kept], rows[column[kept]]
            order = np.lexsort((row, point))
            yield self.members[some][point[order]], row[order]
            # Back to large steps once a family of near-duplicates is done with.
            first, step = first + step, min(2 * step, most)

    def _runs(self) -> list[range]:
        """The places in which the rows of the near cells stand: those side by side joined, the long ones cut."""
        near, starts = self.near, self.cells.starts
        joined = np.split(near, np.flatnonzero(np.diff(near) > 1) + 1) if len(near) else []
        return [
            range(start, min(start + _ROWS_AT_ONCE, starts[run[-1] + 1]))
            for run in joined
            for start in range(starts[run[0]], starts[run[-1] + 1], _ROWS_AT_ONCE)
        ]

    def _within(self, some: slice, runs: list[range]) -> tuple[np.ndarray, np.ndarray] | None:
        """Points, counted from the first of ``some``, and rows, counted over ``runs``, that are close as projected.

        None where there are too many to be held, of more than one point.
        """
        x, limit = self.projected[some], self.bounds.projected**2 + self.bounds.error
        # |x|^2 + |y|^2 - 2xy <= limit as (x, 1)(y, -|y|^2/2) >= (|x|^2 - limit)/2: one product, one test.
        bounds = (np.einsum("ij,ij->i", x, x)[:, None] - limit) / 2
        lifted, before, count, found = with_one(x), 0, 0, []
        for run in runs:
            close = np.flatnonzero(lifted @ self.cells.lifted[run.start : run.stop].T >= bounds)
            count += len(close)
            if count > _PAIRS_AT_ONCE and len(x) > 1:
                return None
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
        if len(point) * _COST_OF_PAIR <= count * (_COST_OF_ROW + dim * _COST_OF_DIM * len(members)):
            return slice(None)
        x = self.points[members] - self.cells.mean
        x_squared = np.einsum("ij,ij->i", x, x)
        rows, place = rows[used], np.cumsum(used)[column] - 1
        close = np.empty(len(point), dtype=bool)
        for start, stop in row_blocks(len(rows), 4 * dim, _FULL_BYTES):
            y = self.cells.pool[rows[start:stop]] - self.cells.mean
            y_squared = np.einsum("ij,ij->i", y, y)
            squared = x @ (-2 * y).T
            squared += x_squared[:, None]
            squared += y_squared
            error = squared_distance_error(dim, *(float(np.sqrt(s.max())) for s in (x_squared, y_squared)))
            mine = (place >= start) & (place < stop)
            near = squared[point[mine], place[mine] - start]
            close[mine] = near <= self.bounds.radius**2 * (1 + _SLACK) + error
        return close
