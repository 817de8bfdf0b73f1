"""Holding back part of a task's queries: how well a selection for the others serves them.

Which queries are held back depends on their contents and a key alone. Solving for the others over what is stored
needs a view of the pool that knows only them; nothing is searched or stored again.
"""

from collections.abc import Sequence

import numpy as np

from tsds_pipeline.core.neighbors import Neighbors
from tsds_pipeline.core.sampling import permanent_random_numbers
from tsds_pipeline.stages.pool import StoredPool


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


class QueriesOfPool:
    """``pool`` as only its queries ``rows`` (m,) see it, which are numbered 0..m-1 here.

    A :class:`~tsds_pipeline.core.pool.CandidatePool` over the same candidates, with the same numbers and weights;
    ``stages.probabilities.solve_task`` takes it in place of a pool.
    """

    def __init__(self, pool: StoredPool, rows: np.ndarray):
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
