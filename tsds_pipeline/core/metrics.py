"""How good a selection is, without training on it: close to a target, covering it, diverse.

All take arrays and keep no more than blocks of the pairs in memory, except ``transport_distance``, which is exact and
says when it is too much. Closeness alone proves little: the nearest examples win it, all of them alike. Effective
sample sizes are in ``transport``.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from tsds_pipeline.core.arrays import all_distances, as_vectors, row_blocks, spread_sample
from tsds_pipeline.core.density import KernelDensity
from tsds_pipeline.core.row_stack import RowStack

EXACT_PAIRS = 2**23
"""Up to so many pairs ``transport_distance`` is exact: some seconds, and 64 MiB of distances."""
PROJECTIONS = 200
# Added to the count of each bucket of n-grams, so that none has probability 0.
_PSEUDO_COUNT = 0.1
_SAMPLE = 1000
_ROUNDING = 1e-9
# Up to so many rows all pairs take less time than to lay out cells of them.
_ALL_PAIRS = 4096
# POT imports every array library that it finds, unless these are set.
_SWITCHES = {
    "torch": "POT_BACKEND_DISABLE_PYTORCH",
    "jax": "POT_BACKEND_DISABLE_JAX",
    "cupy": "POT_BACKEND_DISABLE_CUPY",
    "tensorflow": "POT_BACKEND_DISABLE_TENSORFLOW",
}


def transport_distance(a: np.ndarray, b: np.ndarray, a_weights: np.ndarray | None = None) -> float:
    """Wasserstein-1 distance between the point sets ``a`` (n, dim) and ``b`` (m, dim), a plain L2 distance:

        min over plans with marginals w and 1/m of  sum_ij plan_ij |a_i - b_j|

    w is ``a_weights`` (n,), scaled to sum 1, or 1/n. Exact, by the network simplex of POT (Flamary et al., JMLR 2021).
    ValueError above EXACT_PAIRS pairs: take ``sliced_transport_distance`` there, which is another measure.
    """
    a, b = _points(a, "a"), _points(b, "b")
    if len(a) * len(b) > EXACT_PAIRS:
        raise ValueError(
            f"{len(a)} x {len(b)} pairs are more than {EXACT_PAIRS}: give fewer points or take "
            "sliced_transport_distance"
        )
    weights = _weights(a_weights, len(a))
    with _only_loaded_backends():
        import ot
    cost, log = ot.emd2(weights, np.full(len(b), 1 / len(b)), all_distances(a, b), numItermax=10**7, log=True)
    if log["warning"] is not None:
        raise ValueError(
            f"the transport between {len(a)} and {len(b)} points was not solved: {log['warning']}"
        )
    return float(max(cost, 0.0))


def sliced_transport_distance(a: np.ndarray, b: np.ndarray, seed: int = 0) -> float:
    """Sliced Wasserstein-1 distance between ``a`` (n, dim) and ``b`` (m, dim), for sizes beyond exact transport.

    The mean, over PROJECTIONS directions drawn with ``seed``, of the distance between the two sets on that line: a
    plain distance, in many dimensions far below the exact one. Compare it only with its like. Bonneel et al., JMIV
    2015.
    """
    a, b = _points(a, "a"), _points(b, "b")
    with _only_loaded_backends():
        import ot
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a has {a.shape[1]} dimensions and b {b.shape[1]}")
    directions = np.random.default_rng(seed).normal(size=(a.shape[1], PROJECTIONS))
    directions /= np.sqrt(np.square(directions).sum(axis=0))
    a, b = a @ directions, b @ directions
    # One by one: all at once would hold many copies of them.
    return float(np.mean([ot.wasserstein_1d(a[:, line], b[:, line]) for line in range(PROJECTIONS)]))


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| for x of ``a`` (n, dim) and y of ``b`` (m, dim), a plain L2 distance.

    All pairs count, x with itself too (V-statistic): never negative, 0 only for equal distributions. Twice the squared
    maximum mean discrepancy with the kernel of distances. Szekely & Rizzo 2013; Sejdinovic et al. 2013.
    """
    a, b = _points(a, "a"), _points(b, "b")
    return max(0.0, _discrepancy(a, b, lambda distances: -distances))


def maximum_mean_discrepancy(a: np.ndarray, b: np.ndarray, bandwidth: float | None = None) -> float:
    """MMD between ``a`` (n, dim) and ``b`` (m, dim) under the kernel k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)):

        sqrt(E k(x, x') + E k(y, y') - 2 E k(x, y))

    All pairs count, x with itself too (biased V-statistic). From 0 to sqrt(2), no unit. ``bandwidth`` is a plain
    distance; None is the median heuristic on ``b`` alone, so that many ``a`` are measured against one ``b`` by the
    same kernel. Gretton et al., JMLR 2012.
    """
    a, b = _points(a, "a"), _points(b, "b")
    if bandwidth is None:
        bandwidth = _median_distance(b) or _median_distance(np.concatenate([a, b]))
        if bandwidth is None:
            return 0.0  # all points of both are one
    if not (np.isfinite(bandwidth) and bandwidth > 0):
        raise ValueError(f"bandwidth must be a finite number above 0, got {bandwidth}")

    def kernel(distances: np.ndarray) -> np.ndarray:
        return np.exp(-np.square(distances) / (2 * bandwidth**2))

    return float(np.sqrt(max(0.0, _discrepancy(a, b, kernel))))


def kl_reduction(target: np.ndarray, pool: np.ndarray, selected: np.ndarray) -> float:
    """KL(target || pool) - KL(target || selected) in nats, of distributions of hashed n-grams.

    Each is the counts (buckets,) of n-grams of all its texts, to which 0.1 is added in every bucket. Above 0 where the
    selection is nearer to the target than the whole pool. DSIR (Xie et al., NeurIPS 2023), section 5.
    """
    target, pool, selected = (
        _distribution(counts, name)
        for counts, name in ((target, "target"), (pool, "pool"), (selected, "selected"))
    )
    if not len(target) == len(pool) == len(selected):
        raise ValueError(
            f"counts must be of the same buckets, got {len(target)}, {len(pool)}, {len(selected)}"
        )
    return float(target @ (np.log(selected) - np.log(pool)))


def facility_location(points: np.ndarray, selected: np.ndarray) -> float:
    """How well ``selected`` (n, dim) covers ``points`` (m, dim): the mean of their largest cosine to a selected row.

    From -1 to 1. The facility location function of submodular selection (Wei, Iyer & Bilmes, ICML 2015), divided by m.
    """
    points, selected = _unit(points, "points"), _unit(selected, "selected")
    total = sum(
        float((points[start:stop] @ selected.T).max(axis=1).sum())
        for start, stop in row_blocks(len(points), 8 * len(selected))
    )
    return total / len(points)


def vendi_score(vectors: np.ndarray) -> float:
    """exp of the entropy of the eigenvalues of K/n, K_ij the cosine of rows i and j of ``vectors`` (n, dim).

    From 1, where all rows are one direction, to min(n, dim), where they are orthogonal: an effective number of distinct
    rows. Friedman & Dieng, TMLR 2023.
    """
    rows = _unit(vectors, "vectors")
    # The eigenvalues of X X^T and of X^T X are the same but for zeros.
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    values = np.linalg.eigvalsh(gram / len(rows))
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


def near_duplicate_rate(vectors: np.ndarray, radius: float) -> float:
    """The share of rows of ``vectors`` (n, dim) with another row nearer than ``radius``, a plain L2 distance: those
    that share each other's mass under the kernel of that radius.
    """
    vectors = _points(vectors, "vectors")
    if not (np.isfinite(radius) and radius > 0):
        raise ValueError(f"radius must be a finite number above 0, got {radius}")
    if len(vectors) > _ALL_PAIRS:
        # A row counts itself in full, and something of each that is nearer than the radius.
        density = KernelDensity(RowStack([vectors]), radius, np.ones(len(vectors)), exact=True)
        return float(np.mean(density(RowStack([vectors])) > 1 + _ROUNDING))
    near = 0
    for start, stop in row_blocks(len(vectors), 24 * len(vectors)):
        distances = all_distances(vectors[start:stop], vectors)
        distances[np.arange(stop - start), np.arange(start, stop)] = np.inf
        near += int(np.count_nonzero(1 - (distances.min(axis=1) / radius) ** 2 > _ROUNDING))
    return near / len(vectors)


def unique_share(units: np.ndarray) -> float:
    """The share of distinct values among ``units`` (n,), such as the content or the original of each row."""
    units = np.asarray(units)
    if units.ndim != 1 or not len(units):
        raise ValueError(f"units must be a non-empty array of shape (n,), got shape {units.shape}")
    return len(np.unique(units)) / len(units)


def _discrepancy(a: np.ndarray, b: np.ndarray, kernel: Callable[[np.ndarray], np.ndarray]) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), ``kernel`` a function of distances."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a has {a.shape[1]} dimensions and b {b.shape[1]}")

    def mean(left: np.ndarray, right: np.ndarray) -> float:
        return sum(float(kernel(block).sum()) for block in _distances(left, right)) / (len(left) * len(right))

    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


def _distances(left: np.ndarray, right: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of rows of all plain L2 distances, float64."""
    for start, stop in row_blocks(len(left), 24 * len(right)):
        yield all_distances(left[start:stop], right)


def _median_distance(vectors: np.ndarray) -> float | None:
    """The median of the distances above 0 among a spread sample of rows; None where there is none."""
    sample = vectors[spread_sample(len(vectors), _SAMPLE)]
    distances = all_distances(sample, sample)
    distances = distances[distances > 0]
    return float(np.median(distances)) if len(distances) else None


def _points(vectors: np.ndarray, name: str) -> np.ndarray:
    vectors = as_vectors(vectors, name)
    if not np.isfinite(vectors).all():
        row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise ValueError(f"{name}[{row}] has a value that is not finite in float32")
    return vectors


def _unit(vectors: np.ndarray, name: str) -> np.ndarray:
    """Rows at length 1, float64."""
    rows = _points(vectors, name).astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    if not lengths.all():
        raise ValueError(f"{name}[{int(np.argmin(lengths))}] is all zeros and has no direction")
    return rows / lengths[:, None]


def _weights(weights: np.ndarray | None, n: int) -> np.ndarray:
    if weights is None:
        return np.full(n, 1 / n)
    weights = np.asarray(weights, dtype=np.float64)
    usable = weights.shape == (n,) and np.isfinite(weights).all() and (weights >= 0).all()
    if not (usable and weights.sum() > 0):
        raise ValueError(f"a_weights must be {n} finite numbers from 0, not all 0")
    return weights / weights.sum()


def _distribution(counts: np.ndarray, name: str) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not len(counts) or not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise ValueError(f"{name} must be counts from 0, of shape (buckets,), got shape {counts.shape}")
    smoothed = counts + _PSEUDO_COUNT
    return smoothed / smoothed.sum()


@contextmanager
def _only_loaded_backends() -> Iterator[None]:
    """Have POT, where it is imported now, leave out the array libraries that are not loaded yet.

    torch alone would take seconds. POT then works on numpy arrays only, until the process ends.
    """
    switches = {name for module, name in _SWITCHES.items() if module not in sys.modules}
    switches -= os.environ.keys()
    os.environ.update(dict.fromkeys(switches, "1"))
    try:
        yield
    finally:
        for name in switches:
            del os.environ[name]
