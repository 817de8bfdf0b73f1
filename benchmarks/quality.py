"""How good plans are, by exact values from brute force that shares no code with what it judges.

Everything is float64, but for a first look at which pairs may be within the kernel radius: that is a float32 product
with a wide margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import measured

_POINTS, _ROWS, _PAIRS = 1024, 8192, 65_536
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Plan:
    """Entries with mass (E,): ``density`` is what the method took for that of ``candidate``."""

    query: np.ndarray
    candidate: np.ndarray
    mass: np.ndarray
    density: np.ndarray


def load(path: str) -> Plan:
    with np.load(path) as arrays:
        return Plan(**arrays)


def densities(
    pool: np.ndarray, points: np.ndarray, radii: Sequence[float], progress=lambda share: None
) -> np.ndarray:
    """Kernel density of ``points`` (rows of ``pool``), for each radius, float64 (len(radii), n)."""
    squares, result = np.square(radii), np.zeros((len(radii), len(points)))
    half = np.einsum("ij,ij->i", pool, pool) / 2
    margin = pool.shape[1] * np.finfo(np.float32).eps * 2 * float(half.max())
    for i in range(0, len(points), _POINTS):
        some = points[i : i + _POINTS]
        # |x|^2/2 + |y|^2/2 - xy <= h^2/2, and a little more.
        bound = half[some] - np.float32(squares.max() / 2 + margin)
        for j in range(0, len(pool), _ROWS):
            product = pool[some] @ pool[j : j + _ROWS].T
            product -= half[j : j + _ROWS]
            row, column = np.nonzero(product >= bound[:, None])
            squared = distances(pool, pool, some[row], j + column) ** 2
            for r, square in enumerate(squares):
                kernel = np.maximum(0.0, 1.0 - squared / square)
                result[r, i : i + _POINTS] += np.bincount(row, kernel, len(some))
        progress(min(1.0, (i + _POINTS) / len(points)))
    return result


def distances(left: np.ndarray, right: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Of ``left[rows]`` and ``right[columns]``, pair by pair."""
    found = np.empty(len(rows))
    for i in range(0, len(rows), _PAIRS):
        pairs = slice(i, i + _PAIRS)
        difference = left[rows[pairs]].astype(np.float64) - right[columns[pairs]]
        found[pairs] = np.sqrt((difference**2).sum(axis=1))
    return found


def nearest(queries: np.ndarray, pool: np.ndarray, k: int) -> np.ndarray:
    """Squared distances of the ``k`` nearest rows of ``pool``, ascending, (m, k)."""
    x = queries.astype(np.float64)
    best = np.full((len(x), k), np.inf)
    for j in range(0, len(pool), _ROWS):
        y = pool[j : j + _ROWS].astype(np.float64)
        squared = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * (x @ y.T)
        best = np.partition(np.hstack([best, squared]), k - 1, axis=1)[:, :k]
    return np.sort(best, axis=1)


def recall(plan: Plan, d: np.ndarray, sample: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """For each query of ``sample``: how many of its neighbours with mass are no farther than as many nearest ones.

    ``d`` are the distances of the entries, ``exact`` the squared ones of the nearest of each of ``sample``.
    """
    shares = []
    for query, best in zip(sample, exact, strict=True):
        used = d[plan.query == query] ** 2
        shares.append(np.mean(used <= best[len(used) - 1] + _TIE))
    return np.array(shares)


def objective(plan: Plan, m: int, d: np.ndarray, density: np.ndarray, alpha: float, scale: float) -> float:
    """Of Problem RT with ``m`` queries, but for (1 - alpha)/S, S the sum of 1/density over the pool.

    That is small, the same for every plan, and known only with all densities; where a plan gives some pair twice its
    share, as each plan here does, S comes in nowhere else.
    """
    return float(alpha / scale * (plan.mass @ d) + (1 - alpha) * m * (plan.mass * density).max())


def main() -> None:
    """Judge the plans of ``spec``, each a method at a radius, against the exact method's at the same radius."""
    spec = measured.spec()
    queries, pool = np.load(spec["queries"]), np.load(spec["candidates"])
    plans = [load(judged["plan"]) for judged in spec["judged"]]
    radii = sorted({judged["radius"] for judged in spec["judged"]})
    points = np.unique(np.concatenate([plan.candidate for plan in plans]))
    print(f"exact densities of {len(points):,} candidates", flush=True)
    true = densities(pool, points, radii, lambda share: print(f"  {share:.0%}", flush=True))
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(len(queries), min(len(queries), spec["sampled_queries"]), replace=False))
    deepest = max(int(np.bincount(plan.query).max()) for plan in plans)
    exact = nearest(queries[sample], pool, deepest)
    found = []
    for judged, plan in zip(spec["judged"], plans, strict=True):
        density = true[radii.index(judged["radius"])][np.searchsorted(points, plan.candidate)]
        d = distances(queries, pool, plan.query, plan.candidate)
        shares = recall(plan, d, sample, exact)
        error = _by_candidate(plan, np.abs(plan.density - density) / density)
        found.append(
            {
                "method": judged["method"],
                "radius": judged["radius"],
                "recall": float(shares.mean()),
                "least_recall": float(shares.min()),
                "largest_density_error": float(error.max()),
                "mean_density_error": float(error.mean()),
                "objective": objective(plan, len(queries), d, density, spec["alpha"], spec["scale"]),
                "candidates": len(error),
                "probabilities": np.bincount(plan.candidate, plan.mass, len(pool)),
            }
        )
    for one in found:
        exact_one = next(o for o in found if (o["method"], o["radius"]) == (spec["exact"], one["radius"]))
        one["objective_gap"] = one["objective"] / exact_one["objective"] - 1
        one["variation"] = float(np.abs(one["probabilities"] - exact_one["probabilities"]).sum() / 2)
    for one in found:
        del one["probabilities"]
    measured.report({"quality": found, "sampled_queries": len(sample), "points": len(points)})


def _by_candidate(plan: Plan, values: np.ndarray) -> np.ndarray:
    """One of ``values`` for each candidate."""
    _, first = np.unique(plan.candidate, return_index=True)
    return values[first]


if __name__ == "__main__":
    main()
