"""Nearest neighbours: exact over blocks, or through a FAISS index behind the same interface.

Distances are plain L2 in float64, evaluated again from the vectors whatever found them; order is by distance,
then by candidate index. Choosing and training an index is not here (see ``stages/index.py``).
"""

from typing import Any, NamedTuple, Protocol

import numpy as np

from tsds_pipeline.core.arrays import largest_norm, pair_distances, row_blocks, squared_distance_error


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
    """Exact neighbours among ``candidates`` (N, dim) float32; an array mapped from disk works too."""

    def __init__(self, candidates: np.ndarray):
        self.candidates = candidates
        self._norm = largest_norm(candidates)

    def search(self, queries: np.ndarray, k: int) -> Neighbors:
        n = len(self.candidates)
        k = min(k, n)
        fetch = min(n, k + max(16, k // 16))
        # One row's working set: float32 and float64 distances, indices and a sort permutation.
        blocks = row_blocks(len(queries), fetch * 32)
        found = [self._search_block(queries[start:stop], k, fetch) for start, stop in blocks]
        return Neighbors(
            np.concatenate([f.distances for f in found]), np.concatenate([f.indices for f in found])
        )

    def _search_block(self, queries: np.ndarray, k: int, fetch: int) -> Neighbors:
        """Float32 search a little deeper than asked, then float64 order; rows that could miss one go deeper."""
        import faiss

        squared, indices = faiss.knn(queries, self.candidates, fetch)
        indices = indices.astype(np.int64)
        found = rank(queries, self.candidates, indices)
        result = Neighbors(found.distances[:, :k].copy(), found.indices[:, :k].copy())
        if fetch == len(self.candidates):
            return result
        # A candidate that was not fetched is at least this far (squared): float32 rounding is bounded.
        error = squared_distance_error(queries.shape[1], largest_norm(queries), self._norm)
        unsure = np.flatnonzero(result.distances[:, -1] ** 2 >= squared[:, -1] - error)
        if len(unsure):
            deeper = min(len(self.candidates), fetch * 4)
            for start, stop in row_blocks(len(unsure), deeper * 32):
                rows = unsure[start:stop]
                again = self._search_block(np.ascontiguousarray(queries[rows]), k, deeper)
                result.distances[rows], result.indices[rows] = again
        return result


class FaissSearch:
    """Neighbours from a FAISS index over ``candidates`` (N, dim) float32, as exact as the index is.

    What an inverted file pads with -1 stays padding: a row may hold fewer than ``k`` neighbours.
    """

    def __init__(self, index: Any, candidates: np.ndarray):
        self.index, self.candidates = index, candidates

    def search(self, queries: np.ndarray, k: int) -> Neighbors:
        _, indices = self.index.search(np.ascontiguousarray(queries), min(k, len(self.candidates)))
        return rank(queries, self.candidates, indices.astype(np.int64))


def rank(queries: np.ndarray, candidates: np.ndarray, indices: np.ndarray) -> Neighbors:
    """``indices`` (m, k) with their float64 distances, each row in order of (distance, index)."""
    rows, columns = np.nonzero(indices >= 0)
    distances = np.full(indices.shape, np.inf)
    distances[rows, columns] = pair_distances(queries, candidates, rows, indices[rows, columns])
    return sort_rows(distances, indices)


def sort_rows(distances: np.ndarray, indices: np.ndarray) -> Neighbors:
    """Rows in order of (distance, index); padding goes last."""
    order = np.lexsort((indices, distances), axis=1)
    return Neighbors(np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1))
