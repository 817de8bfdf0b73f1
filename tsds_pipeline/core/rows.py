"""The queries' rows of candidates that the solver works on: known neighbourhoods, or the whole pool block by block.

``Neighborhoods`` holds, for each query, its nearest candidates as deep as was asked so far; rows of one depth
form one rectangular block. ``WholeRows`` yields every pair, a block of queries at a time, for regimes in which
nearly all of them matter. What is done with the rows is in ``kernel_transport`` and ``variation_transport``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tsds_pipeline.core.neighbors import Neighbors
from tsds_pipeline.core.pool import CandidatePool

FIRST_DEPTH = 32
# Working memory of one block of whole rows: a block reads all candidates once, so it should hold many rows.
WHOLE_BYTES = 512 * 2**20
_BYTES_PER_PAIR = 48


@dataclass(frozen=True, eq=False)
class Block:
    """Some queries, ``rows`` (b,), and candidates of each: ``distances``, ``candidates``, ``weights`` (b, k).

    ``reached`` (b, k) is s_ik, the running sum of the weights along a row; None where the columns are not in
    order of distance. Padding repeats the last distance, with candidate -1 and weight 0. ``closed`` (b,) marks
    rows that can be given no further candidate.
    """

    rows: np.ndarray
    distances: np.ndarray
    candidates: np.ndarray
    weights: np.ndarray
    reached: np.ndarray | None
    closed: np.ndarray

    def sum_by_candidate(self, values: np.ndarray, n: int) -> np.ndarray:
        """Sums (n,) of ``values`` (b, w), which are given for the first w columns."""
        if self.reached is None:
            return values.sum(axis=0)
        chosen = values != 0
        candidates = self.candidates[:, : values.shape[1]][chosen]
        return np.bincount(candidates, weights=values[chosen], minlength=n)


class Neighborhoods:
    """The known nearest candidates of queries 0..n_queries-1, at most ``max_neighbors`` of each."""

    def __init__(self, pool: CandidatePool, n_queries: int, max_neighbors: int | None = None):
        self._pool = pool
        self.limit = min(pool.size, max_neighbors or pool.size)
        self.depth = np.zeros(n_queries, dtype=np.int64)
        self._blocks: dict[int, Block] = {}
        self._search(np.arange(n_queries), min(FIRST_DEPTH, self.limit))

    def blocks(self) -> list[Block]:
        return list(self._blocks.values())

    def pairs_after(self, rows: np.ndarray) -> int:
        """How many pairs would be held if ``rows`` were deepened."""
        more = np.minimum(self.depth[rows], self.limit - self.depth[rows])
        return int(self.depth.sum() + more.sum())

    def deepen(self, rows: np.ndarray) -> None:
        """Double the depth of ``rows``."""
        for depth in np.unique(self.depth[rows]):
            self._search(rows[self.depth[rows] == depth], min(2 * int(depth), self.limit))

    @property
    def deepened(self) -> int:
        """How many queries were searched deeper than at first."""
        return int(np.count_nonzero(self.depth > min(FIRST_DEPTH, self.limit)))

    def write_known(self, distances: np.ndarray, start: int) -> None:
        """Overwrite ``distances`` (m, N) of queries start..start+m-1 where they are known: ties stay ties."""
        for block in self.blocks():
            mine = np.flatnonzero((block.rows >= start) & (block.rows < start + len(distances)))
            row, column = np.nonzero(block.candidates[mine] >= 0)
            row = mine[row]
            distances[block.rows[row] - start, block.candidates[row, column]] = block.distances[row, column]

    def _search(self, rows: np.ndarray, depth: int) -> None:
        found = self._pool.nearest(rows, depth)
        fresh = _block(rows, found, depth, depth == self.limit, self._pool)
        for old in set(self.depth[rows].tolist()) & set(self._blocks):
            staying = ~np.isin(self._blocks[old].rows, rows)
            block = self._blocks.pop(old)
            if staying.any():
                self._blocks[old] = _take(block, staying)
        known = self._blocks.get(depth)
        self._blocks[depth] = fresh if known is None else _join(known, fresh)
        self.depth[rows] = depth


class WholeRows:
    """All pairs, in blocks of queries; distances that ``known`` holds exactly are taken from there."""

    def __init__(self, pool: CandidatePool, known: Neighborhoods, weights: np.ndarray, *, ordered: bool):
        self._pool, self._known, self._weights, self._ordered = pool, known, weights, ordered

    def blocks(self) -> Iterator[Block]:
        n, m = self._pool.size, len(self._known.depth)
        step = max(1, WHOLE_BYTES // (n * _BYTES_PER_PAIR))
        for start in range(0, m, step):
            rows = np.arange(start, min(start + step, m))
            distances = self._pool.distances(rows)
            self._known.write_known(distances, start)
            closed = np.ones(len(rows), dtype=bool)
            if self._ordered:
                order = np.argsort(distances, axis=1, kind="stable")
                weights = self._weights[order]
                distances = np.take_along_axis(distances, order, axis=1)
                yield Block(rows, distances, order, weights, np.cumsum(weights, axis=1), closed)
            else:
                shape = distances.shape
                candidates = np.broadcast_to(np.arange(n), shape)
                weights = np.broadcast_to(self._weights, shape)
                yield Block(rows, distances, candidates, weights, None, closed)


def _block(rows: np.ndarray, found: Neighbors, depth: int, last: bool, pool: CandidatePool) -> Block:
    """What a search to ``depth`` found, with weights; rows that came back short are closed."""
    shape = (len(rows), depth)
    if found.indices.shape == shape and found.indices.min() >= 0:
        weights = pool.weights(found.indices.ravel()).reshape(shape)
        reached, closed = np.cumsum(weights, axis=1), np.full(len(rows), last)
        return Block(rows, found.distances, found.indices, weights, reached, closed)
    distances, candidates = np.full(shape, np.inf), np.full(shape, -1, dtype=np.int64)
    width = min(depth, found.indices.shape[1])
    distances[:, :width], candidates[:, :width] = found.distances[:, :width], found.indices[:, :width]
    real = candidates >= 0
    count = real.sum(axis=1)
    if not count.all():
        raise ValueError(f"the search found no candidate at all for query {rows[np.argmin(count)]}")
    furthest = np.take_along_axis(distances, count[:, None] - 1, axis=1)
    distances = np.where(real, distances, furthest)
    weights = np.zeros(shape)
    weights[real] = pool.weights(candidates[real])
    return Block(rows, distances, candidates, weights, np.cumsum(weights, axis=1), last | (count < depth))


def _take(block: Block, chosen: np.ndarray) -> Block:
    return Block(*(getattr(block, name)[chosen] for name in Block.__dataclass_fields__))


def _join(first: Block, second: Block) -> Block:
    names = Block.__dataclass_fields__
    return Block(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names))
