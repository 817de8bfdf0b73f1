"""Holding back part of a task's queries: how well a selection for the others serves them.

Which queries are held back depends on their contents and a key alone. Solving for the others over what is stored
needs a view of the pool that knows only them; nothing is stored again, nor searched again in a pool that remembers.
"""

from collections.abc import Sequence

import numpy as np

from tsds_pipeline.core.neighbors import Neighbors
from tsds_pipeline.core.sampling import permanent_random_numbers
from tsds_pipeline.stages.neighbors import DEPTH
from tsds_pipeline.stages.pool import ReducedPool, StoredPool

# Neighbours that are kept, of all queries together; and how much deeper than asked a search goes, as who asks tends
# to come back for twice as many.
_REMEMBERED, _AHEAD = 2**23, 4


def folds(content_ids: Sequence[str], k: int, key: str) -> np.ndarray:
    """The fold, from 0, of each query, int64 (M,); ``k`` of them, or as many as there are distinct contents.

    Queries of one content are in one fold, so that none is held back from its own copy, and the folds have as
    many contents each, give or take one. A function of ``key`` and the set of contents: the order of queries does
    not matter. One content makes one fold: nothing can be held back.
    """
    contents = sorted(set(content_ids))
    order = np.argsort(permanent_random_numbers(contents, key), kind="stable")
    places = {contents[row]: place % k for place, row in enumerate(order)}
    return np.array([places[content] for content in content_ids], dtype=np.int64)


class RememberingPool:
    """``pool``, with the neighbours that were searched once: the folds, which ask again, need no search.

    A depth that would take too much memory for all queries together is searched each time. With ``like``, which is
    over the same candidates and queries but may weigh them differently, what is remembered is shared.
    """

    def __init__(self, pool: StoredPool | ReducedPool, like: "RememberingPool | None" = None):
        self._pool, self._like = pool, like
        self.size, self.queries = pool.size, pool.queries
        self.content_ids, self.units, self.examples = pool.content_ids, pool.units, pool.examples
        self.weights, self.total_weight = pool.weights, pool.total_weight
        self.distances, self.vectors, self.sources = pool.distances, pool.vectors, pool.sources
        self._depths = np.zeros(len(self.queries), dtype=np.int64)
        self._found = Neighbors(np.empty((len(self.queries), 0)), np.empty((len(self.queries), 0), np.int64))

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        """The ``k`` nearest candidates of the queries ``rows``, all where there are fewer."""
        if self._like is not None:
            return self._like.nearest(rows, k)
        k = min(k, self.size)
        if k <= DEPTH or k * len(self.queries) > _REMEMBERED:
            return self._pool.nearest(rows, k)
        missing = np.unique(np.asarray(rows)[self._depths[rows] < k])
        if len(missing):
            self._search(missing, min(_AHEAD * k, self.size, max(k, _REMEMBERED // len(self.queries))))
        return Neighbors(self._found.distances[rows, :k], self._found.indices[rows, :k])

    def _search(self, rows: np.ndarray, depth: int) -> None:
        near = self._pool.nearest(rows, depth)
        if (more := depth - self._found.indices.shape[1]) > 0:
            self._found = Neighbors(
                np.pad(self._found.distances, ((0, 0), (0, more)), constant_values=np.inf),
                np.pad(self._found.indices, ((0, 0), (0, more)), constant_values=-1),
            )
        columns = min(depth, near.indices.shape[1])
        self._found.distances[rows, :columns] = near.distances[:, :columns]
        self._found.indices[rows, :columns] = near.indices[:, :columns]
        self._depths[rows] = depth


class QueriesOfPool:
    """``pool`` as only its queries ``rows`` (m,) see it, which are numbered 0..m-1 here.

    A :class:`~tsds_pipeline.core.pool.CandidatePool` over the same candidates, with the same numbers and weights;
    ``stages.probabilities.solve_task`` takes it in place of a pool.
    """

    def __init__(self, pool: StoredPool | RememberingPool, rows: np.ndarray):
        self._pool, self._rows = pool, np.asarray(rows, dtype=np.int64)
        self.size, self.queries = pool.size, pool.queries[self._rows]

    @property
    def units(self) -> np.ndarray:
        """Sampling unit of each candidate, int64 (N,)."""
        return self._pool.units

    @property
    def examples(self) -> int:
        """How many sampling units there are."""
        return self._pool.examples

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        return self._pool.nearest(self._rows[rows], k)

    def weights(self, candidates: np.ndarray) -> np.ndarray:
        return self._pool.weights(candidates)

    def total_weight(self) -> tuple[float, float]:
        return self._pool.total_weight()

    def distances(self, rows: np.ndarray) -> np.ndarray:
        return self._pool.distances(self._rows[rows])
