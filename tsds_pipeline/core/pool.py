"""What the solver needs of the candidates; where neighbours and densities come from is behind it.

``array_pool`` implements it over two arrays; the pipeline over stored neighbours of several sources.
"""

from typing import Protocol

import numpy as np

from tsds_pipeline.core.neighbors import Neighbors


class CandidatePool(Protocol):
    """The candidates of one task, seen from its M queries, which are named by their row numbers 0..M-1."""

    size: int
    """N, the number of candidates."""

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        """The ``k`` nearest candidates (all, when there are fewer) of the queries ``rows`` (m,).

        Ordered by (distance, candidate); further columns are ignored. A row that holds fewer than
        min(k, N), padded with (inf, -1), says that its search can find no more.
        """
        ...

    def weights(self, candidates: np.ndarray) -> np.ndarray:
        """Adjusted counts a_j = n_j / rho_j (n_j for knn_uniform and knn_tv), float64 (c,).

        ``candidates`` (c,) may name one several times.
        """
        ...

    def total_weight(self) -> tuple[float, float]:
        """Bounds on S, the sum of all adjusted counts; equal when it is known."""
        ...

    def distances(self, rows: np.ndarray) -> np.ndarray:
        """Plain L2 distances of the queries ``rows`` (m,) to all candidates, float64 (m, N).

        Needed in the dense regimes only, and asked for in blocks of rows. The array belongs to the caller.
        """
        ...
