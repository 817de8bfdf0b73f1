"""``select``: from two arrays of vectors to the rows that were drawn, in one call.

It composes ``array_pool``, ``transport`` and ``sampling``; the pipeline composes the same parts over its stored
neighbours and densities instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsds_pipeline.core.array_pool import ArrayPool
from tsds_pipeline.core.config import SelectionConfig, is_whole
from tsds_pipeline.core.plan import Plan
from tsds_pipeline.core.prepared import SMALL_POOL, PreparedPool
from tsds_pipeline.core.problem import Solution
from tsds_pipeline.core.row_stack import RowStack
from tsds_pipeline.core.sampling import draw, inclusion_probabilities
from tsds_pipeline.core.transport import effective_sample_size, rounded_down, solve, solve_auto


@dataclass(frozen=True, eq=False)
class Selection:
    """What ``select`` chose, and why. M queries, N candidates."""

    indices: np.ndarray
    """Rows of the candidates that were drawn, int64 (epochs, size)."""
    probabilities: np.ndarray
    """p, the selection probabilities, (N,), sum 1."""
    densities: np.ndarray
    """rho, the kernel densities, (N,); NaN where none was needed, of this pool so far."""
    plan: Plan
    neighborhood_sizes: np.ndarray
    """How many candidates each query gives mass to, (M,)."""
    objective: float
    """alpha/C transport_cost + (1 - alpha) diversity_penalty, the least possible."""
    objective_bounds: tuple[float, float]
    """Differ only where not every density was needed; ``objective`` is the midpoint."""
    transport_cost: float
    diversity_penalty: float
    truncated: bool
    """Whether max_neighbors cut in; without it, never."""
    deepened: int
    """How many queries were searched deeper than at first."""
    alpha: float
    """As used."""
    effective_size: float
    """1 / sum p^2: how many equally likely candidates are as diverse."""
    certain_share: float
    """The share of the draws that is certain (inclusion probability 1), where p no longer matters."""
    recall: float
    """The share of the exact neighbours of a sample of queries that the search found; 1 where it was exact."""
    density_error: float
    """The largest relative error of the densities of a sample of candidates; 0 where they are exact."""


def select(
    queries: np.ndarray,
    candidates: np.ndarray | PreparedPool,
    size: int,
    config: SelectionConfig | None = None,
    rng: np.random.Generator | int | None = None,
    counts: np.ndarray | None = None,
    ids: Sequence | None = None,
) -> Selection:
    """Draw ``size`` rows of ``candidates`` (N, dim) whose distribution follows ``queries`` (M, dim).

    ``config`` defaults to SelectionConfig(), ``rng``, a generator or a seed, to a fresh one. ``counts`` (N,) says
    how many copies a row stands for; it is still drawn at most once an epoch. With ``ids`` (N,), distinct, which
    rows are drawn depends on ``rng`` and the ids, not on the order of rows (up to exact ties of distance).

    ValueError for input that cannot be used and where fewer than ``size`` candidates have mass.
    """
    config = SelectionConfig() if config is None else config
    rng = np.random.default_rng(rng)
    prepared = _pool(candidates, config, counts)
    queries = _queries(queries, prepared)
    _check_size(size, len(prepared), config.with_replacement)
    names, weighted = _checked_ids(ids, len(prepared)), config.algorithm == "knn_kde"
    if config.whole_pool_densities or (weighted and len(prepared) <= SMALL_POOL):
        prepared.complete()
    pool = ArrayPool(queries, prepared, weighted=weighted)
    solution = _solution(pool, len(queries), size, config)
    key = "" if names is None else str(rng.integers(2**63))
    indices = draw(
        solution.probabilities,
        size,
        epochs=config.epochs,
        with_replacement=config.with_replacement,
        ids=names,
        key=key,
        rng=rng,
    )
    return _selection(indices, solution, prepared, pool.recall, size, config.with_replacement)


def _selection(indices, solution: Solution, pool: PreparedPool, recall, size, with_replacement) -> Selection:
    p = solution.probabilities
    certain = 0 if with_replacement else np.count_nonzero(inclusion_probabilities(p, size) == 1.0)
    return Selection(
        indices=indices,
        probabilities=p,
        densities=pool.densities.copy(),
        plan=solution.plan,
        neighborhood_sizes=solution.neighborhood_sizes,
        objective=solution.objective,
        objective_bounds=solution.objective_bounds,
        transport_cost=solution.transport_cost,
        diversity_penalty=solution.diversity_penalty,
        truncated=solution.truncated,
        deepened=solution.deepened,
        alpha=solution.alpha,
        effective_size=effective_sample_size(p),
        certain_share=certain / size,
        recall=recall,
        density_error=pool.density_error,
    )


def _solution(pool: ArrayPool, n_queries: int, size: int, config: SelectionConfig) -> Solution:
    settings = {
        "algorithm": config.algorithm,
        "distance_scale": config.distance_scale,
        "max_neighbors": config.max_neighbors,
    }
    if config.alpha == "auto":
        return solve_auto(pool, n_queries, size, with_replacement=config.with_replacement, **settings)
    solution = solve(pool, n_queries, alpha=config.alpha, **settings)
    support = int(np.count_nonzero(solution.probabilities))
    if support < size and not config.with_replacement:
        wider = rounded_down(solve_auto(pool, n_queries, size, **settings).alpha, digits=4)
        raise ValueError(
            f"{size} examples were asked for but at alpha = {config.alpha:g} only {support} candidates have "
            f"mass: alpha = {wider:.4g} would reach the size, or draw with replacement"
        )
    return solution


def _pool(candidates: np.ndarray | PreparedPool, config: SelectionConfig, counts) -> PreparedPool:
    if not isinstance(candidates, PreparedPool):
        return PreparedPool(candidates, config, counts)
    if counts is not None:
        raise ValueError("counts belong to the pool: give them to prepare")
    for name in ("kernel_radius", "normalize", "exact"):
        asked, prepared = getattr(config, name), getattr(candidates.config, name)
        if asked != prepared:
            raise ValueError(f"{name} is {asked} but the pool was prepared with {prepared}: prepare it again")
    return candidates


def _queries(queries: np.ndarray, pool: PreparedPool) -> np.ndarray:
    queries = RowStack.of(queries, "queries", normalize=pool.config.normalize)
    if queries.shape[1] != pool.vectors.shape[1]:
        raise ValueError(
            f"queries have {queries.shape[1]} dimensions and candidates {pool.vectors.shape[1]}: "
            "both must come from one encoder"
        )
    return np.ascontiguousarray(queries[:])


def _check_size(size: int, n: int, with_replacement: bool) -> None:
    if not (is_whole(size) and size >= 1):
        raise ValueError(f"size must be a whole number from 1, got {size!r}")
    if size > n and not with_replacement:
        raise ValueError(
            f"{size} examples were asked for but there are only {n} candidates: "
            "ask for fewer or draw with replacement"
        )


def _checked_ids(ids: Sequence | None, n: int) -> list[str] | None:
    if ids is None:
        return None
    names = [str(name) for name in ids]
    if len(names) != n:
        raise ValueError(f"ids must hold {n} names, one for each candidate, got {len(names)}")
    if len(set(names)) != n:
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise ValueError(f"ids must be distinct, but {twice!r} occurs more than once")
    return names
