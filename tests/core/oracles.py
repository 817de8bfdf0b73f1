"""Slow, obvious counterparts of the core's fast paths: brute force, a linear programme, a priority queue."""

import heapq

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import bmat, coo_array, csr_array, eye_array

from tsds_pipeline.core.neighbors import Neighbors


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Plain L2 distances of all pairs, one row at a time in float64."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    return np.array([np.sqrt(((row - right) ** 2).sum(axis=1)) for row in left])


def densities(pool: np.ndarray, radius: float, counts: np.ndarray, points: np.ndarray) -> np.ndarray:
    kernel = np.maximum(0.0, 1.0 - (distances(points, pool) / radius) ** 2)
    return kernel @ counts


class MatrixPool:
    """A candidate pool that knows the whole distance matrix ``d`` (M, N) and all ``weights`` (N,)."""

    def __init__(self, d: np.ndarray, weights: np.ndarray):
        self.d, self.a, self.size = np.asarray(d, dtype=float), np.asarray(weights, dtype=float), d.shape[1]
        self.deepest = 0

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        k = min(k, self.size)
        self.deepest = max(self.deepest, k)
        order = np.argsort(self.d[rows], axis=1, kind="stable")[:, :k]
        return Neighbors(np.take_along_axis(self.d[rows], order, axis=1), order)

    def weights(self, candidates: np.ndarray) -> np.ndarray:
        return self.a[candidates]

    def total_weight(self) -> tuple[float, float]:
        return float(self.a.sum()), float(self.a.sum())

    def distances(self, rows: np.ndarray) -> np.ndarray:
        return self.d[rows].copy()


class UnseenPool(MatrixPool):
    """Knows of S only that a candidate not asked for weighs between 0 and ``most``."""

    def __init__(self, d: np.ndarray, weights: np.ndarray, most: float):
        super().__init__(d, weights)
        self.seen, self.most = np.zeros(self.size, dtype=bool), most

    def weights(self, candidates: np.ndarray) -> np.ndarray:
        self.seen[candidates] = True
        return super().weights(candidates)

    def total_weight(self) -> tuple[float, float]:
        low = float(self.a[self.seen].sum())
        return low, low + self.most * float(np.count_nonzero(~self.seen))


def penalty(gamma: np.ndarray, a: np.ndarray, algorithm: str) -> float:
    """G of the plan ``gamma`` (M, N), from its definition."""
    m, total = len(gamma), a.sum()
    deviation = np.abs(gamma - a / (m * total))
    return float(deviation.sum() / 2) if algorithm == "knn_tv" else float((m * deviation / a).max())


def objective(
    gamma: np.ndarray, d: np.ndarray, a: np.ndarray, algorithm: str, alpha: float, scale: float
) -> float:
    return float(alpha / scale * (gamma * d).sum() + (1 - alpha) * penalty(gamma, a, algorithm))


def optimum(
    d: np.ndarray, a: np.ndarray, algorithm: str, alpha: float, scale: float, most: int | None = None
) -> float:
    """The least objective of Problem RT, by linear programming (HiGHS); with mass for the ``most`` nearest alone.

    Row i holds x_ij = M gamma_ij. One variable t with |x_ij - a_j/S| <= t a_j, or for knn_tv one for each pair
    with |x_ij - a_j/S| <= t_ij.
    """
    m, n = d.shape
    share = np.tile(a / a.sum(), m)
    tv = algorithm == "knn_tv"
    pairs = m * n
    width = -(eye_array(pairs) if tv else csr_array(np.tile(a, m)[:, None]))
    cost = np.concatenate(
        [alpha / scale * d.ravel() / m, np.full(pairs, (1 - alpha) / (2 * m)) if tv else [1 - alpha]]
    )
    bounds = bmat([[eye_array(pairs), width], [-eye_array(pairs), width]], format="csr")
    rows = coo_array((np.ones(pairs), (np.repeat(np.arange(m), n), np.arange(pairs))), shape=(m, len(cost)))
    result = linprog(
        cost,
        A_ub=bounds,
        b_ub=np.concatenate([share, -share]),
        A_eq=rows.tocsr(),
        b_eq=np.ones(m),
        bounds=[(0, one) for one in [*_nearest_only(d, most), *[None] * (len(cost) - pairs)]],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert result.status == 0, result.message
    return float(result.fun)


def _nearest_only(d: np.ndarray, most: int | None) -> list[float | None]:
    """Upper bounds of the pairs, None where there is none."""
    far = np.argsort(np.argsort(d, axis=1, kind="stable"), axis=1) >= (most or d.shape[1])
    return [0.0 if one else None for one in far.ravel()]


def priority_queue_spread(d: np.ndarray, a: np.ndarray, alpha: float, scale: float) -> float:
    """s* by the paper's greedy: grow the row whose adjusted count is least, while the cost stays within budget."""
    m, n = d.shape
    order = np.argsort(d, axis=1, kind="stable")
    queue = [(a[order[i, 0]], i, 1, a[order[i, 0]] * d[i, order[i, 0]]) for i in range(m)]
    heapq.heapify(queue)
    row_cost, total = [0.0] * m, 0.0
    while True:
        s, i, k, w = heapq.heappop(queue)
        if k == n:
            return s
        j = order[i, k]
        cost = d[i, j] * s - w
        total += cost - row_cost[i]
        row_cost[i] = cost
        if not alpha / scale * total < (1 - alpha) * m:
            return s
        heapq.heappush(queue, (s + a[j], i, k + 1, w + a[j] * d[i, j]))
