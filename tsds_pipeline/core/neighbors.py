"""Nearest neighbours: exact over blocks, or among the cells around a query, or through a FAISS index.

Distances are plain L2 in float64, evaluated again from the vectors whatever found them; order is by distance,
then by candidate index. Large exact searches run on a GPU where there is one (``accelerator``). Choosing and training
a FAISS index is not here (see ``stages/index.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from tsds_pipeline.core.accelerator import nearest, on_accelerator
from tsds_pipeline.core.arrays import (
    pair_distances,
    row_blocks,
    row_lengths,
    spread_sample,
    squared_distance_error,
)
from tsds_pipeline.core.cells import Cells, with_one
from tsds_pipeline.core.machine import block_bytes, cores, side_by_side
from tsds_pipeline.core.row_stack import RowStack

RECALL = 0.999
"""The least share of the exact neighbours of a sample of queries that an approximate search has to find."""
_AUDITED = 32
_PROBES = 32
# Rows that are looked at for each neighbour that is asked for, at least; and the share of cells that is most of a pool.
_ROWS_PER_NEIGHBOR, _LARGEST_SHARE = 4, 0.25
_LARGEST_ERROR = 0.01
# Cells looked at for one query, of the mean over all queries.
_MOST_OF_MEAN = 2
_FOUND_BYTES, _CELL_BYTES = 2**29, 2**24
# A few blocks for each core, so that all are busy to the end; but each begins to collect neighbours anew.
_BLOCKS_AT_ONCE, _LEAST_ROWS = 2 * cores(), 2**14


class Neighbors(NamedTuple):
    """``distances`` (m, k) float64, plain L2, ascending; ``indices`` (m, k) int64; padding is (inf, -1)."""

    distances: np.ndarray
    indices: np.ndarray


class NeighborSearch(Protocol):
    """What the solver needs of a pool of candidates."""

    def search(self, queries: np.ndarray, k: int) -> Neighbors:
        """The ``k`` nearest candidates (all, when there are fewer) of ``queries`` (m, dim) float32."""
        ...


class ExactSearch:
    """Exact neighbours among ``candidates`` (N, dim), read in blocks where they do not lie in memory."""

    def __init__(self, candidates: RowStack):
        self.candidates = candidates

    def search(self, queries: np.ndarray, k: int) -> Neighbors:
        n = len(self.candidates)
        k = min(k, n)
        fetch = min(n, k + max(16, k // 16))
        # One row's working set: float32 and float64 distances, indices and a sort permutation.
        blocks = row_blocks(len(queries), fetch * 32, _FOUND_BYTES)
        found = [self._search_block(queries[start:stop], k, fetch) for start, stop in blocks]
        return Neighbors(
            np.concatenate([f.distances for f in found]), np.concatenate([f.indices for f in found])
        )

    def _search_block(self, queries: np.ndarray, k: int, fetch: int) -> Neighbors:
        """Float32 search a little deeper than asked, then float64 order; rows that could miss one go deeper."""
        squared, indices = self._fetch(queries, fetch)
        found = rank(queries, self.candidates, indices)
        result = Neighbors(found.distances[:, :k].copy(), found.indices[:, :k].copy())
        if fetch == len(self.candidates):
            return result
        # A candidate that was not fetched is at least this far (squared): float32 rounding is bounded.
        error = squared_distance_error(
            queries.shape[1], float(row_lengths(queries).max()), self.candidates.longest
        )
        unsure = np.flatnonzero(result.distances[:, -1] ** 2 >= squared.max(axis=1) - error)
        if len(unsure):
            deeper = min(len(self.candidates), fetch * 4)
            for start, stop in row_blocks(len(unsure), deeper * 32, _FOUND_BYTES):
                rows = unsure[start:stop]
                again = self._search_block(np.ascontiguousarray(queries[rows]), k, deeper)
                result.distances[rows], result.indices[rows] = again
        return result

    def _fetch(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances, float32, and indices of the ``k`` nearest, in no order."""
        found = on_accelerator(
            lambda device: nearest(device, queries, self.candidates, k),
            float(len(queries)) * len(self.candidates) * queries.shape[1],
        )
        return self._scan(queries, k) if found is None else found

    def _scan(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        def scan(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            faiss.omp_set_num_threads(1)  # of this thread only
            near, rows = faiss.knn(queries, self.candidates[start:stop], min(k, stop - start))
            return near, rows.astype(np.int64) + start

        squared, indices = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for group in self.groups():
            near, rows = zip(*side_by_side(scan, group), strict=True)
            squared, indices = (
                np.concatenate([squared, *near], axis=1),
                np.concatenate([indices, *rows], axis=1),
            )
            if squared.shape[1] > k:
                kept = np.argpartition(squared, k - 1, axis=1)[:, :k]
                squared, indices = (np.take_along_axis(array, kept, 1) for array in (squared, indices))
        return squared, indices

    def groups(self) -> Iterator[list[tuple[int, int]]]:
        """[start, stop) of blocks of candidates, those together that several threads scan side by side."""
        n, dim = self.candidates.shape
        rows = max(_LEAST_ROWS, min(-(-n // _BLOCKS_AT_ONCE), block_bytes() // (4 * dim)))
        blocks = [(start, min(start + rows, n)) for start in range(0, n, rows)]
        for first in range(0, len(blocks), _BLOCKS_AT_ONCE):
            yield blocks[first : first + _BLOCKS_AT_ONCE]


class ProbedSearch(ABC):
    """Neighbours among the rows of the ``cells`` around each query, as many of those as it takes.

    For a sample of the queries it is counted how many candidates lie nearer than the last neighbour found: where less
    than RECALL of them were found, twice as many cells are looked at, and where those would be most of the pool, all
    of it. ``recall`` is the least of the samples, 1 where everything is exact.
    """

    def __init__(self, candidates: RowStack, cells: int):
        self.candidates, self._n_cells = candidates, cells
        self._exact = ExactSearch(candidates)
        self._probes = _PROBES
        self.recall = 1.0

    @abstractmethod
    def _probed(self, queries: np.ndarray, k: int, probes: int) -> Neighbors:
        """The ``k`` nearest rows of the ``probes`` cells nearest to each query."""

    def search(self, queries: np.ndarray, k: int) -> Neighbors:
        n, cells = len(self.candidates), self._n_cells
        k = min(k, n)
        if len(queries) <= _AUDITED:  # no more than what would be audited
            return self._exact.search(queries, k)
        while (
            probes := max(self._probes, -(-_ROWS_PER_NEIGHBOR * k * cells // n))
        ) <= cells * _LARGEST_SHARE:
            found = self._probed(queries, k, probes)
            # A row that is short would pass for one whose search can find no more.
            recall = self._recall(queries, found.distances) if np.isfinite(found.distances).all() else 0.0
            if recall >= RECALL:
                self.recall = min(self.recall, recall)
                return found
            self._probes = 2 * probes
        return self._exact.search(queries, k)

    def _recall(self, queries: np.ndarray, found: np.ndarray) -> float:
        """At least which share of the nearest candidates of a sample is among those ``found`` at distances (m, k).

        Candidates as far as the last one found, to within float32, may be either.
        """
        sample = spread_sample(len(queries), _AUDITED)
        queries, squared = queries[sample], found[sample] ** 2
        lengths, last, halves = row_lengths(queries), squared[:, -1], np.square(self.candidates.lengths) / 2
        # What rounding may put on either side of the last distance is not counted; nothing is known where that is much.
        error = squared_distance_error(queries.shape[1], float(lengths.max()), self.candidates.longest)
        if (error > _LARGEST_ERROR * last).any():
            return 0.0
        limit = last - error

        def nearer(start: int, stop: int) -> np.ndarray:
            candidates = self.candidates[start:stop]
            # |x - y|^2 < limit as |y|^2 / 2 - x.y < (limit - |x|^2) / 2.
            products = halves[start:stop] - queries @ candidates.T
            return np.count_nonzero(products < ((limit - lengths**2) / 2)[:, None], axis=1)

        counts = np.zeros(len(sample))
        for group in self._exact.groups():
            counts += np.sum(side_by_side(nearer, group), axis=0)
        # Each that is nearer than the last one found, and was missed, has at most one of those found in its place.
        missed = counts - np.count_nonzero(squared < limit[:, None], axis=1)
        return 1.0 - float(np.maximum(missed, 0).mean()) / found.shape[1]


class CellSearch(ProbedSearch):
    """The same in cells of our own, all queries of a cell in one product."""

    def __init__(self, cells: Cells):
        super().__init__(cells.pool, len(cells))
        self._cells = cells

    def _probed(self, queries: np.ndarray, k: int, probes: int) -> Neighbors:
        projected, _ = self._cells.project(RowStack([queries]))
        most = min(_MOST_OF_MEAN * probes, len(self._cells))
        probed = np.empty((len(queries), most), dtype=np.int64)
        beyond = np.empty((len(queries), most), dtype=np.float32)

        def choose(start: int, stop: int) -> None:
            farness = with_one(projected[start:stop]) @ (-self._cells.lifted_centers.T)
            nearest = np.argpartition(farness, most - 1, axis=1)[:, :most]
            farness = np.take_along_axis(farness, nearest, axis=1)
            probed[start:stop], beyond[start:stop] = nearest, farness - farness.min(axis=1, keepdims=True)

        side_by_side(choose, row_blocks(len(queries), 12 * len(self._cells), _CELL_BYTES))
        # Not the same number for every query: those in dense regions have many cells that are about as near.
        limit = np.partition(beyond, probes * len(queries) - 1, axis=None)[probes * len(queries) - 1]
        sizes = np.where(beyond <= limit, np.diff(self._cells.starts)[probed], 0)
        blocks = row_blocks(len(queries), int(sizes.sum(axis=1).max()) * 12, _FOUND_BYTES)
        found = [
            self._scan(queries[start:stop], probed[start:stop], sizes[start:stop], k)
            for start, stop in blocks
        ]
        return Neighbors(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))

    def _scan(self, queries: np.ndarray, probed: np.ndarray, sizes: np.ndarray, k: int) -> Neighbors:
        """The ``k`` nearest rows of the cells ``probed`` (m, p) of each query; one pass over each cell.

        ``sizes`` (m, p) are those of the cells, 0 for one that is not to be looked at.
        """
        cells, ends = self._cells, np.cumsum(sizes, axis=1)
        # A row holds the distances to the rows of its cells, one cell after the other.
        squared = np.full((len(queries), max(k, ends[:, -1].max())), np.inf, dtype=np.float32)
        order = np.argsort(probed, axis=None, kind="stable")
        order = order[sizes.ravel()[order] > 0]
        asked, first = np.unique(probed.ravel()[order], return_index=True)

        def scan(c: int, pairs: np.ndarray) -> None:
            rows = cells.order[cells.starts[c] : cells.starts[c + 1]]
            query, probe = np.divmod(pairs, probed.shape[1])
            x, y = queries[query], cells.pool[rows]
            near = x @ (-2 * y).T
            near += np.einsum("ij,ij->i", x, x)[:, None]
            near += np.einsum("ij,ij->i", y, y)
            columns = (ends[query, probe] - len(rows))[:, None] + np.arange(len(rows))
            squared[query[:, None], columns] = near

        side_by_side(scan, zip(asked, np.split(order, first[1:]), strict=True))
        # Float32 may put near ties in the wrong order: a few more are put in order in float64.
        fetch = min(k + max(16, k // 16), squared.shape[1])
        indices = np.empty((len(queries), fetch), dtype=np.int64)

        def choose(start: int, stop: int) -> None:
            kept = np.argpartition(squared[start:stop], fetch - 1, axis=1)[:, :fetch]
            last = ends[start:stop, None, :]
            probe = np.count_nonzero(kept[:, :, None] >= last, axis=2)
            padding = probe == probed.shape[1]
            probe[padding] = 0
            cell = np.take_along_axis(probed[start:stop], probe, axis=1)
            place = cells.starts[cell + 1] - np.take_along_axis(ends[start:stop], probe, axis=1) + kept
            place[padding] = 0
            indices[start:stop] = np.where(padding, -1, cells.order[place])

        side_by_side(choose, row_blocks(len(queries), fetch * probed.shape[1], 2**22))
        found = rank(queries, cells.pool, indices)
        return Neighbors(found.distances[:, :k], found.indices[:, :k])


class InvertedFileSearch(ProbedSearch):
    """The same in the lists of a FAISS inverted file over ``candidates`` (N, dim), whatever codes they hold."""

    def __init__(self, index: Any, candidates: RowStack):
        import faiss

        self._index = index
        self._lists = faiss.extract_index_ivf(index)
        super().__init__(candidates, self._lists.nlist)

    def _probed(self, queries: np.ndarray, k: int, probes: int) -> Neighbors:
        self._lists.nprobe = probes
        _, indices = self._index.search(np.ascontiguousarray(queries), k)
        return rank(queries, self.candidates, indices.astype(np.int64))


class FaissSearch:
    """Neighbours from any other FAISS index over ``candidates`` (N, dim), as exact as the index is.

    What an index pads with -1 stays padding: a row may hold fewer than ``k`` neighbours.
    """

    def __init__(self, index: Any, candidates: RowStack):
        self._index, self.candidates = index, candidates

    def search(self, queries: np.ndarray, k: int) -> Neighbors:
        _, indices = self._index.search(np.ascontiguousarray(queries), min(k, len(self.candidates)))
        return rank(queries, self.candidates, indices.astype(np.int64))


def rank(queries: np.ndarray, candidates: RowStack, indices: np.ndarray) -> Neighbors:
    """``indices`` (m, k) with their float64 distances, each row in order of (distance, index)."""
    distances = np.full(indices.shape, np.inf)

    def measure(start: int, stop: int) -> None:
        rows, columns = np.nonzero(indices[start:stop] >= 0)
        found = pair_distances(queries, candidates, start + rows, indices[start + rows, columns])
        distances[start + rows, columns] = found

    side_by_side(measure, row_blocks(len(indices), indices.shape[1] * queries.shape[1] * 8, 2**22))
    return sort_rows(distances, indices)


def sort_rows(distances: np.ndarray, indices: np.ndarray) -> Neighbors:
    """Rows in order of (distance, index); padding goes last."""
    order = np.lexsort((indices, distances), axis=1)
    return Neighbors(np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1))
