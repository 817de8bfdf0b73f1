"""Selection probabilities of one task: solve over its pool, then say it in a table.

The mathematics is ``core.transport``; here the pool is made, the settings are applied and the result is
turned into rows and figures that a person can read.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import all_distances, row_blocks
from tsds_pipeline.core.problem import Solution
from tsds_pipeline.core.transport import (
    AUTO_SIZE_ALPHA,
    DEFAULT_DISTANCE_SCALES,
    automatic_size,
    by_unit,
    solve,
    solve_auto,
)
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import ResolvedTask
from tsds_pipeline.stages.holdout import QueriesOfPool
from tsds_pipeline.stages.pool import ReducedPool, StoredPool
from tsds_pipeline.stages.sample import sampling_units
from tsds_pipeline.stages.token_budget import CandidateTokens, bought


def wanted_size(settings: ResolvedTask, examples: int, auto: int | None) -> int:
    """How many examples an epoch of the task has, where its budget is not in tokens.

    ``examples`` are the task's distinct texts, of which ``fraction`` is a share; ``auto`` is the effective sample
    size at alpha 0.6, needed where size = "auto".
    """
    if settings.fraction is not None:
        return max(1, round(settings.fraction * examples))
    return auto if settings.size == "auto" else int(settings.size)


_LARGE_SHARE = 0.5
_MOST_TRIES = 20


@dataclass(frozen=True)
class Solved:
    """A task's solution and what a person should know of how it came about."""

    solution: Solution
    auto_size: int | None
    """The sample size that "auto" stands for, where it was asked for."""
    warnings: list[str]


def solve_task(
    task: str,
    settings: ResolvedTask,
    pool: StoredPool | ReducedPool | QueriesOfPool,
    tokens: CandidateTokens | None = None,
) -> Solved:
    """The optimal plan of ``task`` over ``pool``, or of some of its queries.

    ``tokens`` are needed where alpha = "auto" has to suit a budget of tokens.
    """
    queries, options = len(pool.queries), _options(settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            auto = None
            if settings.size == "auto":
                auto = automatic_size(solve(pool, queries, alpha=AUTO_SIZE_ALPHA, **options), pool.units)
            if settings.alpha == "auto" and settings.tokens is not None:
                solution, size = _solve_budget(settings.tokens, pool, tokens, options)
            elif settings.alpha == "auto":
                size = wanted_size(settings, pool.examples, auto)
                with_replacement = settings.with_replacement
                solution = solve_auto(
                    pool, queries, size, units=pool.units, with_replacement=with_replacement, **options
                )
            else:
                solution = solve(pool, queries, alpha=settings.alpha, **options)
        except ValueError as error:
            raise TsdsError(
                f"task {task}: {error}; size, alpha and their like are set in [selection] of tsds.toml, or in "
                f"[tasks.{task}] for it alone"
            ) from None
    found = [str(warning.message) for warning in caught]
    if settings.alpha == "auto" and size > _LARGE_SHARE * pool.examples:
        found.append(
            f"{size:,} examples are {size / pool.examples:.0%} of the {pool.examples:,} candidates: the sample can "
            "hardly follow the task; ask for fewer, or add sources"
        )
    return Solved(solution, auto, found)


def _solve_budget(
    budget: int, pool: StoredPool | ReducedPool, tokens: CandidateTokens, options: dict[str, Any]
) -> tuple[Solution, int]:
    """The plan of the largest alpha that suits the size which ``budget`` tokens buy under that plan, and that size.

    The size and the plan decide each other: from the mean length at alpha 0.6 on they are found in turn, until the size
    stays or, where it goes back and forth, for the smallest of these.
    """
    queries, first = len(pool.queries), np.unique(pool.units, return_index=True)[1]
    tried: list[int] = []

    def size_under(solution: Solution) -> int:
        p = by_unit(solution.probabilities, pool.units)
        support = np.flatnonzero(p)
        return bought(p[support], tokens.of(pool.content_ids[first[support]]), budget)

    size = size_under(solve(pool, queries, alpha=AUTO_SIZE_ALPHA, **options))
    while True:
        if size > pool.examples:
            raise ValueError(
                f"{budget:,} tokens buy {size:,} examples or so but there are only {pool.examples:,}: "
                "ask for fewer tokens"
            )
        tried.append(size)
        solution = solve_auto(pool, queries, size, units=pool.units, **options)
        size = size_under(solution)
        if size == tried[-1]:
            return solution, size
        if size in tried or len(tried) == _MOST_TRIES:
            size = min(tried[tried.index(size) :] if size in tried else tried)
            return solve_auto(pool, queries, size, units=pool.units, **options), size


def alpha_for(settings: ResolvedTask, pool: StoredPool | ReducedPool, size: int) -> float | None:
    """The largest alpha that suits ``size`` draws; None where there are too few candidates for any."""
    try:
        return solve_auto(pool, len(pool.queries), size, units=pool.units, **_options(settings)).alpha
    except ValueError:
        return None


def probability_table(
    pool: StoredPool | ReducedPool,
    solution: Solution,
    query_ids: pl.Series,
    corpora: Mapping[str, pl.LazyFrame],
) -> pl.DataFrame:
    """A row for each candidate with mass, most probable first; ``corpora`` give the record ids, by source.

    ``nearest_query`` and ``distance`` name the nearest of all queries; ``plan`` lists the queries that give
    it mass explicitly (a background is in the figures, not repeated in every row).
    """
    probabilities = solution.probabilities
    chosen = np.flatnonzero(probabilities > 0)
    nearest, distance = _nearest_query(pool, chosen)
    table = pl.DataFrame(
        {
            "candidate": chosen,
            "source": pool.sources(chosen),
            "content_id": pool.content_ids[chosen],
            "probability": probabilities[chosen],
            "density": pool.densities[chosen],
            "count": pool.counts[chosen],
            "nearest_query": query_ids[nearest],
            "distance": distance,
        }
    )
    table = table.join(_plan_lists(pool, solution), on="candidate", how="left")
    table = table.join(first_records(table, corpora), on=["source", "content_id"], how="left")
    table = table.sort("probability", "source", "content_id", descending=[True, False, False])
    return table.select("source", "id", pl.exclude("source", "id", "candidate"))


def figures(
    settings: ResolvedTask, pool: StoredPool | ReducedPool, solved: Solved, table: pl.DataFrame
) -> dict[str, Any]:
    """What a person wants to know about the solution; JSON types only."""
    solution = solved.solution
    sizes = solution.neighborhood_sizes
    by_source = table.group_by("source", maintain_order=True).agg(pl.col("probability").sum())
    mass = by_source.sort("probability", "source", descending=[True, False])
    scale = settings.distance_scale
    return {
        "algorithm": settings.algorithm,
        "alpha": solution.alpha,
        "distance_scale": DEFAULT_DISTANCE_SCALES[settings.algorithm] if scale is None else scale,
        "queries": len(pool.queries),
        "candidates": pool.size,
        "examples": pool.examples,
        "total_weight": pool.total_weight()[0],
        "candidates_with_mass": len(table),
        "examples_with_mass": table["content_id"].n_unique(),
        "effective_size": effective_size(table),
        "auto_size": solved.auto_size,
        "warnings": solved.warnings,
        "objective": solution.objective,
        "transport_cost": solution.transport_cost,
        "diversity_penalty": solution.diversity_penalty,
        "background": solution.plan.background,
        "neighborhood_sizes": {
            "min": int(sizes.min()),
            "median": float(np.median(sizes)),
            "max": int(sizes.max()),
        },
        "deepened_queries": int(solution.deepened),
        "truncated": bool(solution.truncated),
        "mass_by_source": dict(mass.iter_rows()),
    }


def effective_size(table: pl.DataFrame) -> float:
    """1 / sum p^2 over sampling units: how many equally probable examples it would be."""
    p = sampling_units(table)["probability"].to_numpy()
    return float(1.0 / np.square(p).sum()) if len(p) else 0.0


def _options(settings: ResolvedTask) -> dict[str, Any]:
    """What the solver wants to know of the settings, beside alpha."""
    return {
        "algorithm": settings.algorithm,
        "distance_scale": settings.distance_scale,
        "max_neighbors": settings.max_neighbors,
    }


def _nearest_query(pool: StoredPool | ReducedPool, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    nearest, distance = np.empty(len(candidates), np.int64), np.empty(len(candidates))
    for start, stop in row_blocks(len(candidates), len(pool.queries) * 16):
        block = all_distances(pool.vectors(candidates[start:stop]), pool.queries)
        nearest[start:stop] = block.argmin(axis=1)
        distance[start:stop] = block.min(axis=1)
    return nearest, distance


def first_records(table: pl.DataFrame, corpora: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
    """source, content_id and id: the first record id of each content id of ``table`` in each of its sources."""
    wanted = table.lazy().select("content_id").unique()
    found = [
        corpus.select("content_id", id=pl.col("variants").list.first().struct.field("record_id"))
        .with_columns(source=pl.lit(source))
        .join(wanted, on="content_id", how="semi")
        for source, corpus in sorted(corpora.items())
    ]
    return pl.concat(found).collect()


def _plan_lists(pool: StoredPool | ReducedPool, solution: Solution) -> pl.DataFrame:
    plan = solution.plan
    entries = pl.DataFrame({"candidate": plan.candidate, "query": plan.query, "mass": plan.mass})
    entries = entries.with_columns(pl.col("query").cast(pl.Int32), pl.col("candidate").cast(pl.Int64))
    return entries.group_by("candidate").agg(pl.struct("query", "mass").sort_by("query").alias("plan"))
