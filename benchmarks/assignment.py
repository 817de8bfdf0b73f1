"""Seconds of the assignment alone: the plan of many queries over neighbours that are there already.

    python benchmarks/assignment.py [--queries 10000] [--neighbors 2000]

The neighbourhoods are random, 200,000 candidates with densities from 1 to 1000. Prints a table over alpha: the median
size of the neighbourhoods that the plan uses, and the seconds of ``solve``, median of --runs.
"""

import argparse
import statistics
import time

import numpy as np

import machine
from compare import SCALE, positive
from tsds_pipeline.core.neighbors import Neighbors
from tsds_pipeline.core.transport import solve

CANDIDATES = 200_000
ALPHAS = (0.95, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05)


class KnownPool:
    """Candidates of which every query has the same number of neighbours, already found."""

    def __init__(self, queries: int, neighbors: int, rng: np.random.Generator):
        self.size = CANDIDATES
        steps = rng.exponential(1 / neighbors, (queries, neighbors))
        self._distances = 0.4 + 0.3 * np.cumsum(steps, axis=1)
        self._candidates = rng.integers(CANDIDATES, size=(queries, neighbors))
        self._weights = 1 / rng.geometric(0.5, CANDIDATES).clip(max=1000).astype(np.float64)

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        rows = (
            slice(None) if len(rows) == len(self._distances) else rows
        )  # the search is not what is measured
        return Neighbors(self._distances[rows, :k], self._candidates[rows, :k])

    def weights(self, candidates: np.ndarray) -> np.ndarray:
        return self._weights[candidates]

    def total_weight(self) -> tuple[float, float]:
        total = float(self._weights.sum())
        return total, total

    def distances(self, rows: np.ndarray) -> np.ndarray:
        raise SystemExit("the plan reaches past the neighbours that there are: more --neighbors")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=positive, default=10_000, metavar="M", help="(10000)")
    parser.add_argument("--neighbors", type=positive, default=2000, metavar="K", help="(2000)")
    parser.add_argument("--runs", type=positive, default=3, help="(3)")
    options = parser.parse_args()
    pool = KnownPool(options.queries, options.neighbors, np.random.default_rng(0))
    print(
        f"{options.queries:,} queries x {options.neighbors:,} neighbours; {machine.in_words(machine.describe())}\n"
    )
    print("| alpha | neighbourhood | cut | seconds |\n| ---: | ---: | ---: | ---: |")
    for alpha in ALPHAS:
        times = []
        for _ in range(options.runs):
            started = time.perf_counter()
            solution = solve(
                pool, options.queries, alpha=alpha, distance_scale=SCALE, max_neighbors=options.neighbors
            )
            times.append(time.perf_counter() - started)
        sizes = solution.neighborhood_sizes
        print(
            f"| {alpha} | {np.median(sizes):.0f} | {solution.cut_rows:,} | {statistics.median(times):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
