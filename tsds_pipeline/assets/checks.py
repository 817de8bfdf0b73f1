"""The asset checks: what each one means, what to do when it fails, and how figures become its result.

The figures are computed in ``stages`` and ``core``. What fails a blocking check is not stored (``stage``).
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import dagster as dg
import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import UNIT_ROUNDING, row_lengths
from tsds_pipeline.core.plan import Plan
from tsds_pipeline.settings import ResolvedTask
from tsds_pipeline.stages.sample import TOKENS, repetitions

UP_TO_DATE = "up_to_date"
"""Passed when the sample is made; what happens to it later is told by ``orchestration.automation``."""
SUM_ROUNDING = 1e-9
GOOD_RECALL, PERFECT_RECALL = 0.95, 0.999
_NAMED = 5
_OF_RECORDS = ("few_bad_records", "has_records", "known_fields")
_AGAIN = "and run `tsds refresh`; should that not help, please report it"


class _Check(NamedTuple):
    name: str
    description: str
    blocking: bool = False


_VECTOR_LENGTHS = _Check(
    "vector_lengths",
    "Every vector is finite and, with [encoder] normalize, of length 1. Where not, the vectors that were kept are "
    "damaged: delete storage/embedding_cache, then refresh.",
)
_CHECKS = {
    "candidate_corpus": [
        _Check(
            "readable",
            "The source's files could be read. Where not, its last good content stays in use (or no records, if there "
            "never was any): mend the files, then refresh.",
        ),
        _Check(
            "few_bad_records",
            "No larger share of the source's records than max_quarantined is bad. Where it is, the last good content "
            "stays in use: mend the records that storage/quarantine lists, or raise max_quarantined; then refresh.",
        ),
        _Check(
            "has_records",
            "There is something to select in the source. Where not, see whether its files were emptied, or whether "
            "keep, drop and [exclude.X] leave nothing of it: mend them, or remove the source; then refresh.",
        ),
        _Check(
            "known_fields",
            "Each field in which drop looks for a value has one in some record. Where none has, nothing was left out "
            "for it: correct its name in [sources.X], or remove it; then refresh.",
        ),
    ],
    "candidate_embeddings": [
        _Check(
            "usable_vectors",
            "Every record has a finite vector that is not all zeros. Where not, the records that had vectors of "
            "this encoder before stay in use: mend or remove the record that is named, then refresh.",
        ),
        _VECTOR_LENGTHS,
    ],
    "faiss_index": [
        _Check(
            "built_as_asked",
            "The index is of the kind that [pool] index names. Where that kind does not fit this source, it is "
            'searched exactly instead: use "auto", or a factory string that fits.',
        )
    ],
    "kde_densities": [
        _Check(
            "densities_at_least_one",
            "Every density is at least the number of the record's own copies, and so at least 1. Where not, the "
            "source's index is damaged: delete its files in storage/faiss_index and storage/kernel_sums, then refresh.",
            blocking=True,
        )
    ],
    "query_embeddings": [_VECTOR_LENGTHS._replace(blocking=True)],
    "query_neighbors": [
        _Check(
            "recall",
            "The neighbours are the nearest candidates: the share of the exact ones that the index found, over a few "
            'queries. Where it is low, use [pool] index = "auto", or a factory string that searches more closely.',
        )
    ],
    "selection_probabilities": [
        _Check(
            "row_sums",
            "Every query gives away exactly its share 1/M of the mass. Where not, what the plan was made from is "
            "damaged: delete storage/kde_densities and storage/query_neighbors, then refresh.",
            blocking=True,
        ),
        _Check(
            "probabilities_sum_to_one",
            "The probabilities sum to 1. Where not, what the plan was made from is damaged: delete "
            "storage/kde_densities and storage/query_neighbors, then refresh.",
            blocking=True,
        ),
        _Check(
            "untruncated",
            "No query's neighbourhood was cut short, so the plan is the optimum over the whole pool. Where one was, "
            "raise or remove max_neighbors, or use an index that finds more.",
        ),
    ],
    "sampled_subset": [
        _Check(
            "sample_size",
            "There are as many rows as were asked for in every epoch and, without replacement, no example twice in "
            "one. Where not, delete the task's file in storage/selection_probabilities, then refresh.",
            blocking=True,
        ),
        _Check(
            "no_query_text",
            "No example that was drawn has the text of a query or of a record of the task's test set, nor 13 words in "
            "a row of one, nor is one within leak_distance. Where one is, storage/leaks lists it: remove it from the "
            'sources, or set leaks = "drop", or "allow" if that is meant; then refresh.',
        ),
        _Check(
            UP_TO_DATE,
            "The sample follows its inputs. It fails when something that it is made from has been changed, or failing, "
            "for longer than [dagster] late_after hours: mend what the check names, or switch the automation on, or "
            "refresh.",
        ),
    ],
    "training_mixture": [
        _Check(
            "no_example_twice",
            "No epoch of the mixture has an example twice, whichever tasks want it. Where one has, delete its "
            "file in storage/training_mixture, then refresh.",
            blocking=True,
        ),
        _Check(
            "no_query_text",
            "No example has the text of a query or of a test record of one of the mixture's tasks, nor 13 words in a "
            "row of one, nor is one within leak_distance. Where one is, remove it from the sources, or set "
            'leaks = "drop" for all tasks of the mixture, or "allow" if that is meant; then refresh.',
        ),
    ],
}


def check_specs(
    asset: str, key: dg.AssetKey, partitions: dg.PartitionsDefinition | None
) -> list[dg.AssetCheckSpec]:
    """The checks of ``asset``, which Dagster knows as ``key``; each partition has a state of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # of partitions_def
        return [
            dg.AssetCheckSpec(
                check.name,
                asset=key,
                description=check.description,
                blocking=check.blocking,
                partitions_def=partitions,
            )
            for check in _CHECKS.get(asset, [])
        ]


def blocking_checks(asset: str) -> set[str]:
    """The names of the checks of ``asset`` without which nothing is stored."""
    return {check.name for check in _CHECKS.get(asset, []) if check.blocking}


def result(
    name: str,
    problem: str | None = None,
    *,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **figures: float,
) -> dg.AssetCheckResult:
    """The result of the check ``name``, passed where there is no ``problem``."""
    return dg.AssetCheckResult(
        passed=problem is None,
        check_name=name,
        description=problem,
        severity=severity,
        # The UI's JSON has no NaN.
        metadata={key: value if np.isfinite(value) else str(value) for key, value in figures.items()},
    )


def unreadable(problem: str) -> list[dg.AssetCheckResult]:
    """The checks of a source whose files cannot be read."""
    unknown = f"not known, as the files could not be read: {problem}"
    return [
        result("readable", problem),
        *(result(name, unknown, severity=dg.AssetCheckSeverity.WARN) for name in _OF_RECORDS),
    ]


def of_records(source: str, usable: int, excluded: int, unseen: Iterable[str]) -> list[dg.AssetCheckResult]:
    """``usable`` and ``excluded`` records of a source, and the fields in ``drop`` of which no record has anything."""
    warn = dg.AssetCheckSeverity.WARN
    nothing = None
    if not usable:
        left = f": all {excluded:,} are excluded (storage/excluded/{source}.parquet)" if excluded else ""
        nothing = f"there are no records{left}: mend its files or what excludes them, or remove the source"
    named = ", ".join(sorted(unseen))
    typo = f'no record has anything in {named}, in which "drop" looks: correct the name' if named else None
    return [
        result("has_records", nothing, severity=warn, records=usable),
        result("known_fields", typo, severity=warn),
    ]


def few_bad_records(bad: int, read: int, limit: float, problem: str | None) -> dg.AssetCheckResult:
    """``bad`` of ``read`` records are in quarantine; ``problem`` where that is a larger share than ``limit``."""
    share = bad / read if read else 0.0
    return result("few_bad_records", problem, quarantined=bad, share=share, max_quarantined=limit)


def vector_lengths(vectors: np.ndarray, normalize: bool) -> dg.AssetCheckResult:
    """Of ``vectors`` (n, dim) as they are about to be stored."""
    deviations = np.abs(row_lengths(vectors) - 1.0)
    right = deviations <= UNIT_ROUNDING if normalize else np.isfinite(deviations)
    largest = float(deviations.max(initial=0.0))
    problem = None
    if not right.all():
        wanted = f"of length 1 (largest deviation {largest:.3g})" if normalize else "finite"
        problem = (
            f"{np.count_nonzero(~right):,} of {len(vectors):,} vectors are not {wanted}: the kept vectors are damaged: "
            f"delete storage/embedding_cache {_AGAIN}"
        )
    return result("vector_lengths", problem, largest_deviation=largest)


def densities_at_least_one(source: str, table: pl.DataFrame) -> dg.AssetCheckResult:
    """Of the densities of ``source``: each point counts itself, with its copies."""
    density, least = table["density"].to_numpy(), np.maximum(table["count"].to_numpy(), 1)
    right = density >= least * (1 - SUM_ROUNDING)
    problem = None
    if not right.all():
        problem = (
            f"{np.count_nonzero(~right):,} of {len(table):,} densities are below the number of the record's own copies "
            f"(the least is {density.min():.3g}): the source's index is damaged: delete "
            f"storage/faiss_index/{source}.parquet and storage/kernel_sums {_AGAIN}"
        )
    figures = {"smallest_density": float(density.min())} if len(density) else {}
    return result("densities_at_least_one", problem, **figures)


def recall(share: float, queries: int) -> dg.AssetCheckResult:
    """``share`` of the exact neighbours of so many ``queries`` were found."""
    problem = None
    if share < PERFECT_RECALL:
        problem = (
            f"the index found {share:.2%} of the nearest candidates of {queries} queries: use "
            '[pool] index = "auto", or a factory string that searches more closely'
        )
    severity = dg.AssetCheckSeverity.ERROR if share < GOOD_RECALL else dg.AssetCheckSeverity.WARN
    return result("recall", problem, severity=severity, recall=share, queries=queries)


def sums(plan: Plan, probabilities: pl.Series) -> list[dg.AssetCheckResult]:
    """Of a plan and of the ``probabilities`` above zero that are about to be stored."""
    row = float(np.abs(plan.row_sums * plan.n_queries - 1.0).max())
    total = float(probabilities.sum())
    remedy = (
        "what they were made from is damaged: delete storage/kde_densities and storage/query_neighbors "
        f"{_AGAIN}"
    )
    row_problem = f"a query gives away {row:.3g} of its share of the mass too much or too little: {remedy}"
    total_problem = f"the probabilities sum to {total:.12g}, not 1: {remedy}"
    return [
        result("row_sums", None if row <= SUM_ROUNDING else row_problem, largest_deviation=row),
        result(
            "probabilities_sum_to_one",
            None if abs(total - 1.0) <= SUM_ROUNDING else total_problem,
            sum=total,
        ),
    ]


def untruncated(rows: int) -> dg.AssetCheckResult:
    """``rows`` neighbourhoods were cut short."""
    problem = None
    if rows:
        problem = (
            f"the neighbourhoods of {rows:,} queries were cut short: raise or remove max_neighbors, or use an index "
            "that finds more"
        )
    return result("untruncated", problem, severity=dg.AssetCheckSeverity.WARN, queries=rows)


def sample_size(task: str, sample: pl.DataFrame, settings: ResolvedTask, size: int) -> dg.AssetCheckResult:
    """Of a sample that was to have ``size`` rows an epoch, or as many as its tokens buy."""
    repeated = 0 if settings.with_replacement else repetitions(sample)
    again = f"delete storage/selection_probabilities/{task}.parquet {_AGAIN}"
    if settings.tokens is not None:
        by_epoch = sample.group_by("epoch").agg(pl.col(TOKENS).sum())[TOKENS]
        most, problem = int(by_epoch.max() or 0), None
        if most > settings.tokens or len(by_epoch) != settings.epochs or repeated:
            problem = (
                f"there are {len(by_epoch):,} of {settings.epochs:,} epochs, of at most {most:,} tokens where "
                f"{settings.tokens:,} were asked for; {repeated:,} rows are twice in an epoch: {again}"
            )
        return result("sample_size", problem, rows=len(sample), tokens=most, repeated=repeated)
    wanted = size * settings.epochs
    problem = None
    if len(sample) != wanted or repeated:
        problem = (
            f"{len(sample):,} rows were drawn where {wanted:,} were asked for, {repeated:,} of them twice in an epoch: "
            f"{again}"
        )
    return result("sample_size", problem, rows=len(sample), asked_for=wanted, repeated=repeated)


def no_example_twice(mixture: pl.DataFrame) -> dg.AssetCheckResult:
    """Of a mixture."""
    repeated = repetitions(mixture)
    problem = (
        f"{repeated:,} rows are twice in an epoch: delete its file in storage/training_mixture {_AGAIN}"
        if repeated
        else None
    )
    return result("no_example_twice", problem, rows=len(mixture), repeated=repeated)


def no_query_text(task: str, leaks: pl.DataFrame, unread: str | None) -> dg.AssetCheckResult:
    """Of a sample: ``leaks`` are those of ``task`` as a table, ``unread`` says why its test set is not known."""
    problems = [f"the test set could not be read: {unread}"] if unread else []
    drawn = leaks.filter(~pl.col("dropped"))
    figures = {f"with_{kind}_text": drawn.filter(of=kind).height for kind in ("query", "test")}
    problems += _told(drawn)
    if len(drawn):
        problems[-1] += (
            f': storage/leaks/{task}.parquet lists them; leaks = "drop" in [tasks.{task}] leaves them out, or remove '
            "them from the sources"
        )
    return result("no_query_text", "; ".join(problems) or None, **figures, left_out=leaks["dropped"].sum())


def no_query_text_in_mixture(
    leaks: Mapping[str, pl.DataFrame], unread: Mapping[str, str]
) -> dg.AssetCheckResult:
    """Of a mixture: ``leaks`` and ``unread`` as for a sample, by task."""
    problems = [f"task {task}: the test set could not be read: {why}" for task, why in unread.items()]
    problems += [f"task {task}: {told}" for task, table in leaks.items() for told in _told(table)]
    figures = {f"leaks_{task}": len(table) for task, table in leaks.items()}
    if any(figures.values()):
        problems[-1] += ': set leaks = "drop" for all tasks of the mixture, or remove them from the sources'
    return result("no_query_text", "; ".join(problems) or None, **figures)


def _told(leaks: pl.DataFrame) -> list[str]:
    """What ``leaks`` are, by whose and why."""
    told = []
    for (kind, why), found in leaks.sort("of", "why").group_by("of", "why", maintain_order=True):
        named = ", ".join(f"{source}: {i}" for source, i in found.select("source", "id").head(_NAMED).rows())
        told.append(
            f"{len(found):,} example{'s' * (len(found) > 1)} {_LEAKS[why].format(kind=kind)} ({named})"
        )
    return told


_LEAKS = {
    "text": "with the text of a {kind} record",
    "piece": "with 13 words in a row of a {kind} record",
    "distance": "within leak_distance of a {kind} record",
}
