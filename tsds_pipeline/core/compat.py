"""Selection as the paper's public script (the repository ZifanL/TSDS) defines it, for who has to match earlier work.

Written from its definition, with exact search and in float64. Each query knows its K nearest candidates and no others,
K the least of ``max_neighbors`` and a tenth of the pool. A density sums over the ``kde_neighbors`` nearest (a tenth of
the pool at most) among those that any query knows:

    rho_j = sum over them of max(0, 1 - |x_j - x|^2 / h^2)

Along a row s_ik = sum_{l<=k} 1/rho_l, and each s_ik with k < K adds s_ik (d_i,k+1 - d_ik) to the cost c. s* is the
first at which alpha/C c >= (1 - alpha) M, or the largest of all. Every query gives 1/(M s* rho_k), nearest first, and
what is left of its 1/M to the next candidate; where that is its last one, however much it is.

The optimum over the whole pool, which ``select`` finds, is in ``transport``. docs/migration.md compares the two.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tsds_pipeline.core.arrays import pair_distances
from tsds_pipeline.core.cells import Cells
from tsds_pipeline.core.close_pairs import close_pairs
from tsds_pipeline.core.config import SelectionConfig, is_whole
from tsds_pipeline.core.kernel_transport import filling, first_reaching
from tsds_pipeline.core.neighbors import ExactSearch, Neighbors
from tsds_pipeline.core.row_stack import RowStack, distinct_rows
from tsds_pipeline.core.rows import Block
from tsds_pipeline.core.sampling import draw

ALGORITHMS = ("knn_kde", "knn_uniform")
_SHARE_OF_POOL = 10
_LEAST_NEIGHBORS = 2
# By how much of the whole mass a query may overspend.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class CompatConfig:
    """The script's parameters with its defaults; ValueError, naming the field, for a value that makes no sense.

    What the script has no parameter for is fixed: vectors as they are, search exact, draws with replacement.
    """

    algorithm: str = "knn_kde"
    """"knn_kde", or "knn_uniform", which takes every density as 1."""
    alpha: float = 0.5
    distance_scale: float = 5.0
    """C, a plain distance."""
    kernel_radius: float = 0.75
    """sigma, a plain distance; 0 stands for knn_uniform, as in the script."""
    max_neighbors: int = 5000
    """max_K: candidates that are looked up for each query, a tenth of the pool at most."""
    kde_neighbors: int = 1000
    """kde_K: neighbours that a density sums over, itself included, a tenth of the pool at most."""
    epochs: int = 1
    """How many samples to draw; the script draws one."""

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"algorithm must be one of {', '.join(ALGORITHMS)}, got {self.algorithm!r}: "
                "the public script has no other"
            )
        if isinstance(self.alpha, str):
            raise ValueError(f"alpha must be a number from 0 to 1, got {self.alpha!r}")
        SelectionConfig(
            alpha=self.alpha,
            distance_scale=self.distance_scale,
            kernel_radius=self.kernel_radius or 1.0,
            epochs=self.epochs,
        )
        for name, least in (("max_neighbors", _LEAST_NEIGHBORS), ("kde_neighbors", 1)):
            value = getattr(self, name)
            if not (is_whole(value) and value >= least):
                raise ValueError(f"{name} must be a whole number from {least}, got {value!r}")

    @property
    def weighted(self) -> bool:
        """Whether densities matter."""
        return self.algorithm == "knn_kde" and self.kernel_radius > 0


class Assignment(NamedTuple):
    """Masses of M queries and their K nearest candidates."""

    mass: np.ndarray
    """gamma, (M, K), rows summing to 1/M."""
    spread: float
    """s*."""
    cut_rows: int
    """Queries that would need further candidates: the last takes more than 1/(M s* rho), or no s_ik was enough."""


@dataclass(frozen=True, eq=False)
class CompatSelection:
    """What ``select_compat`` chose. M queries, N candidates."""

    indices: np.ndarray
    """Rows of the candidates that were drawn, with repetitions, ascending; int64 (epochs, size)."""
    probabilities: np.ndarray
    """p, the selection probabilities, float64 (N,), sum 1."""
    densities: np.ndarray
    """rho of the candidates that were looked up, NaN elsewhere, float64 (N,)."""
    neighborhood_sizes: np.ndarray
    """How many candidates each query gives mass to, (M,)."""
    neighbors: int
    """K, how many candidates each query knew."""
    spread: float
    """s*."""
    cut_rows: int
    """How many queries would have needed further candidates, and gave their last one what was left."""


def select_compat(
    queries: np.ndarray,
    candidates: np.ndarray,
    size: int,
    config: CompatConfig | None = None,
    rng: np.random.Generator | int | None = None,
) -> CompatSelection:
    """Draw ``size`` rows of ``candidates`` (N, dim), with replacement, as the public script does for ``queries``.

    Of candidates at the same distance the one with the lower row number is nearer. Holds M x K pairs in memory, and
    the vectors of all candidates that any query knows.

    ValueError for input that cannot be used, and where the script stops with a failed assertion.
    """
    config = CompatConfig() if config is None else config
    pool = RowStack.of(candidates, "candidates", normalize=False)
    rows = RowStack.of(queries, "queries", normalize=False)
    if rows.shape[1] != pool.shape[1]:
        raise ValueError(
            f"queries have {rows.shape[1]} dimensions and candidates {pool.shape[1]}: "
            "both must come from one encoder"
        )
    if not (is_whole(size) and size >= 1):
        raise ValueError(f"size must be a whole number from 1, got {size!r}")
    found = prefetch(rows, pool, config)
    densities = densities_of_prefetched(found.indices, pool, config)
    assigned = assign(found.distances, densities[found.indices], config.alpha, config.distance_scale)
    p = np.bincount(found.indices.ravel(), weights=assigned.mass.ravel(), minlength=len(pool))
    drawn = draw(p, size, epochs=config.epochs, with_replacement=True, rng=np.random.default_rng(rng))
    return CompatSelection(
        indices=np.sort(drawn, axis=1),
        probabilities=p,
        densities=densities,
        neighborhood_sizes=np.count_nonzero(assigned.mass, axis=1),
        neighbors=found.indices.shape[1],
        spread=assigned.spread,
        cut_rows=assigned.cut_rows,
    )


def prefetch(queries: RowStack, pool: RowStack, config: CompatConfig) -> Neighbors:
    """The candidates that each of ``queries`` (M, dim) knows, (M, K). ValueError where K would be below 2."""
    k = min(config.max_neighbors, len(pool) // _SHARE_OF_POOL)
    if k < _LEAST_NEIGHBORS:
        raise ValueError(
            f"candidates are {len(pool)}: the public script looks at a tenth of them and needs "
            f"{_LEAST_NEIGHBORS}, so give it {_LEAST_NEIGHBORS * _SHARE_OF_POOL} or more"
        )
    return ExactSearch(pool).search(np.ascontiguousarray(queries[:]), k)


def densities_of_prefetched(indices: np.ndarray, pool: RowStack, config: CompatConfig) -> np.ndarray:
    """rho of the candidates in ``indices`` (M, K) under themselves, NaN elsewhere, (N,); 1 under knn_uniform.

    With exact search a candidate always finds itself, or a copy of itself, so that rho is at least 1.
    """
    densities = np.full(len(pool), np.nan)
    known = np.unique(indices)
    densities[known] = 1.0
    if not config.weighted:
        return densities
    k = min(config.kde_neighbors, len(pool) // _SHARE_OF_POOL, len(known))
    vectors = RowStack([pool[known]])
    first, inverse = distinct_rows(vectors)  # copies have the same neighbours
    points, sums = vectors.subset(first), np.zeros(len(first))
    for part in close_pairs(Cells(vectors, config.kernel_radius), points, config.kernel_radius):
        for point, row in part:
            distances = pair_distances(points, vectors, point, row)
            kernel = np.maximum(0.0, 1.0 - np.square(distances / config.kernel_radius))
            sums += _sums_of_largest(point, kernel, k, len(first))
    densities[known] = sums[inverse]
    return densities


def _sums_of_largest(groups: np.ndarray, values: np.ndarray, k: int, n: int) -> np.ndarray:
    """Sums (n,) of the ``k`` largest ``values`` (p,) of each of the ``groups`` (p,) 0..n-1."""
    order = np.lexsort((-values, groups))
    groups, values = groups[order], values[order]
    rank = np.arange(len(groups)) - np.searchsorted(groups, groups)
    return np.bincount(groups[rank < k], weights=values[rank < k], minlength=n)


def assign(distances: np.ndarray, densities: np.ndarray, alpha: float, distance_scale: float) -> Assignment:
    """The masses for ``distances`` (M, K), ascending, of the candidates with ``densities`` (M, K).

    ValueError where a nearest candidate alone would take more than its query's 1/M, for which the script stops.
    """
    m, weights = len(distances), 1.0 / densities
    reached = np.cumsum(weights, axis=1)
    points = reached[:, :-1].ravel()
    growth = (np.diff(distances, axis=1) * reached[:, :-1]).ravel()
    budget = (1.0 - alpha) / alpha * distance_scale * m if alpha > 0 else np.inf
    crossing = first_reaching(points, growth, budget)
    spread = min(crossing, float(points.max()))
    _check_nearest(weights[:, 0] / spread, m)
    cut_rows = int(np.count_nonzero(reached[:, -1] < crossing * (1 - _TOLERANCE)))
    # The last candidate takes whatever is left: as if it had room for everything.
    weights[:, -1] = reached[:, -1] = np.inf
    block = Block(np.arange(m), distances, np.empty(0), weights, reached, np.ones(m, dtype=bool))
    share, mass = filling(block, spread), np.zeros_like(weights)
    mass[:, : share.shape[1]] = share / m
    return Assignment(mass, spread, cut_rows)


def _check_nearest(shares: np.ndarray, m: int) -> None:
    """``shares`` (M,) of the nearest candidates, of which none may be above 1."""
    over = shares - 1.0 > _TOLERANCE * m
    if over.any():
        row = int(np.argmax(over))
        raise ValueError(
            f"queries[{row}]: at this alpha its nearest candidate alone would take {shares[row]:.4g} times what the "
            f"query has to give{_others(int(over.sum()))}; the public script stops there with a failed assertion. "
            "Lower alpha, raise distance_scale, or select without compat, which has a plan for every alpha"
        )


def _others(count: int) -> str:
    return f" (and so for {count - 1:,} more)" if count > 1 else ""
