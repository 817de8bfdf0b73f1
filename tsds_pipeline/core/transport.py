"""The optimal transport plan of a task: for a given alpha, or for the alpha that a sample size asks for.

The closed forms are in ``kernel_transport`` and ``variation_transport``; what a pool of candidates must offer is
in ``pool``. Problem RT, section 3 of TSDS: minimise over plans whose rows sum to 1/M

    alpha/C * sum_ij gamma_ij d_ij + (1 - alpha) * G(gamma)
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tsds_pipeline.core.kernel_transport import KernelProblem
from tsds_pipeline.core.pool import CandidatePool
from tsds_pipeline.core.problem import Solution, TransportProblem
from tsds_pipeline.core.variation_transport import VariationProblem

ALGORITHMS = ("knn_kde", "knn_uniform", "knn_tv")
# 0.3 gives knn_tv, at alpha 0.6 on sentence embeddings of unit length, neighbourhoods like knn_kde's at 5 (median
# ratio about 1, from 0.2 to 6 over nine tasks). At 5 it would keep every candidate.
DEFAULT_DISTANCE_SCALES = {"knn_kde": 5.0, "knn_uniform": 5.0, "knn_tv": 0.3}
AUTO_SIZE_ALPHA = 0.6
_STEP = 1.5
# Spreads tried between two, and how closely the least that will do is found: relative to it, or, where it is less,
# to the least at which there is anything new.
_TRIES = 7
_CLOSE = {"known": 1e-9, "whole": 1e-6}
_ROUNDING = 1e-9


def solve(
    pool: CandidatePool,
    n_queries: int,
    *,
    algorithm: str = "knn_kde",
    alpha: float,
    distance_scale: float | None = None,
    max_neighbors: int | None = None,
) -> Solution:
    """The optimum of ``algorithm`` at ``alpha`` in [0, 1] for queries 0..n_queries-1 over ``pool``.

    ``distance_scale`` None is the algorithm's default. Neighbourhoods are searched as deep as the optimum over
    the whole pool needs; with ``max_neighbors`` it is the optimum among plans within that many nearest candidates
    of each query, and the solution says whether that cut in.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be a number from 0 to 1, got {alpha}")
    return _problem(pool, n_queries, algorithm, distance_scale, max_neighbors).solution(float(alpha))


def solve_auto(
    pool: CandidatePool,
    n_queries: int,
    size: int,
    *,
    algorithm: str = "knn_kde",
    distance_scale: float | None = None,
    max_neighbors: int | None = None,
    units: np.ndarray | None = None,
    with_replacement: bool = False,
) -> Solution:
    """The optimum at the largest alpha whose plan suits ``size`` draws.

    It has an effective sample size 1 / sum p^2 of at least ``size`` and, unless drawn with replacement, at least
    ``size`` sampling units with mass. ``units`` (N,) int gives each candidate's sampling unit (its content);
    without it every candidate is one. Where no alpha reaches the effective size but there are enough units, the
    widest plan is taken. ValueError when even that has too few.
    """
    target = _Target(size, units, with_replacement)
    problem = _problem(pool, n_queries, algorithm, distance_scale, max_neighbors)
    return problem.solution(_largest_alpha(problem, target))


class Swept(NamedTuple):
    """The optimum at ``alpha`` without its plan."""

    alpha: float
    probabilities: np.ndarray
    """p_j, (N,) float64."""
    neighborhood_sizes: np.ndarray
    """(M,)"""


def sweep(
    pool: CandidatePool,
    n_queries: int,
    alphas: Sequence[float],
    *,
    algorithm: str = "knn_kde",
    distance_scale: float | None = None,
    max_neighbors: int | None = None,
) -> Iterator[Swept]:
    """The optima that ``solve`` finds at each of ``alphas``, in [0, 1], from the largest down.

    What was searched for one serves the next, and no plan is put together: who sees enough can stop.
    """
    problem = _problem(pool, n_queries, algorithm, distance_scale, max_neighbors)
    for alpha in sorted(alphas, reverse=True):
        spread = problem.spread(float(alpha))
        sizes = np.full(n_queries, pool.size)
        if np.isfinite(spread):
            for block in problem.blocks(spread):
                sizes[block.rows] = np.count_nonzero(problem.masses(block, spread), axis=1)
        yield Swept(float(alpha), problem.probabilities([spread])[0], sizes)


def automatic_size(solution: Solution, units: np.ndarray | None = None) -> int:
    """What size = "auto" stands for: the effective sample size of the plan at AUTO_SIZE_ALPHA, rounded down."""
    effective = effective_sample_size(by_unit(solution.probabilities, units))
    return max(1, int(effective * (1 + _ROUNDING)))


def effective_sample_size(probabilities: np.ndarray) -> float:
    """1 / sum p^2, p scaled to sum 1: the number of equally likely candidates that is as diverse."""
    return float(probabilities.sum() ** 2 / np.square(probabilities).sum())


def by_unit(probabilities: np.ndarray, units: np.ndarray | None) -> np.ndarray:
    """``probabilities`` (N,) summed over the sampling units, or as they are without ``units``."""
    return probabilities if units is None else np.bincount(units, weights=probabilities)


class _Target:
    """Whether a plan suits a sample size."""

    def __init__(self, size: int, units: np.ndarray | None, with_replacement: bool):
        self.size, self.units, self.with_replacement = size, units, with_replacement

    def support(self, probabilities: np.ndarray) -> int:
        return int(np.count_nonzero(by_unit(probabilities, self.units)))

    def drawable(self, probabilities: np.ndarray) -> bool:
        return self.with_replacement or self.support(probabilities) >= self.size

    def met(self, probabilities: np.ndarray) -> bool:
        effective = effective_sample_size(by_unit(probabilities, self.units))
        return effective >= self.size * (1 - _ROUNDING) and self.drawable(probabilities)


def _problem(pool, n_queries, algorithm, distance_scale, max_neighbors) -> TransportProblem:
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
    scale = DEFAULT_DISTANCE_SCALES[algorithm] if distance_scale is None else distance_scale
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"distance_scale must be a finite number above 0, got {distance_scale}")
    kind = VariationProblem if algorithm == "knn_tv" else KernelProblem
    return kind(pool, n_queries, scale, max_neighbors)


def _largest_alpha(problem: TransportProblem, target: _Target) -> float:
    """From alpha = 1 downwards, so that dense plans are touched only where they are needed; then closer in."""
    if target.met(problem.probabilities([0.0])[0]):
        return 1.0
    least = problem.least_spread()
    low, spread = 0.0, least
    while True:  # the plan at ``low`` does not suit, and no spread here is infinite
        high = problem.bounded(spread)
        plan = problem.probabilities([high])[0]
        if target.met(plan):
            for close in _closer(problem, target, low, high, least):
                alpha = rounded_down(problem.alpha(close))
                # The optimum at that alpha is the plan of the next breakpoint from there on.
                reached = problem.spread(alpha)
                if target.met(problem.probabilities([reached])[0]):
                    return alpha
            if np.isinf(reached):  # from there on it is the reference plan
                return _widest_alpha(problem, target, high, plan)
            high = max(high, reached)
        if high < spread:
            return _widest_alpha(problem, target, high, plan)
        low, spread = high, _STEP * high


def _closer(
    problem: TransportProblem, target: _Target, low: float, high: float, least: float
) -> tuple[float, float]:
    """Two close spreads in [low, high], of which the first does not meet ``target`` and the second does.

    Where ties make the plan of 0 another than that of any spread above it, the first is 0.
    """
    while True:
        whole = problem.whole is not None
        if high - low <= _CLOSE["whole" if whole else "known"] * max(high, least):
            return low, high
        tries = np.linspace(low, high, _TRIES + 2)[1:-1]
        # A pass over whole rows serves all tries; known rows are quick, one try at a time.
        plans = problem.probabilities(tries) if whole else (problem.probabilities([t])[0] for t in tries)
        first = next((t for t, plan in enumerate(plans) if target.met(plan)), _TRIES)
        low, high = np.concatenate([[low], tries, [high]])[first : first + 2]


def _widest_alpha(problem: TransportProblem, target: _Target, spread: float, plan: np.ndarray) -> float:
    """When no plan short of the reference plan will do: that one, or the widest that max_neighbors allows."""
    if problem.confined or any(problem.cut(block, spread).any() for block in problem.blocks(spread)):
        if target.drawable(plan):
            return rounded_down(problem.alpha(spread))
        raise ValueError(
            f"{target.size} examples were asked for but within max_neighbors only {target.support(plan)} "
            "can have mass: raise max_neighbors or ask for fewer"
        )
    if target.met(problem.reference):
        return rounded_down(problem.alpha(np.inf))
    if target.drawable(problem.reference):
        return 0.0
    raise ValueError(
        f"{target.size} examples were asked for but there are only {target.support(problem.reference)} "
        "candidates: ask for fewer or draw with replacement"
    )


def rounded_down(alpha: float, digits: int = 9) -> float:
    """The largest number below ``alpha`` with so many significant digits: a supremum need not be attained."""
    if alpha <= 0:
        return 0.0
    unit = 10.0 ** (digits - int(np.floor(np.log10(alpha))) - 1)
    return float(np.floor(alpha * (1 - 1e-12) * unit) / unit)
