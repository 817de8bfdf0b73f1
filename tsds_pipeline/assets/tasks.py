"""Assets of the tasks: queries, their vectors and neighbours, probabilities, the sample and its export."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from tsds_pipeline.assets import checks
from tsds_pipeline.assets.stage import Stage, pipeline_asset
from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.core.transport import rounded_down
from tsds_pipeline.corpus import read_queries
from tsds_pipeline.discovery import unknown_sources
from tsds_pipeline.encoders.tokenizers import TokenCounter, find_tokenizer
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, chat_template
from tsds_pipeline.orchestration.partitions import SOURCES_BY_TASK, TASKS
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.provenance import require_same_versions
from tsds_pipeline.settings import ResolvedTask
from tsds_pipeline.stages.export import export_sample, manifest
from tsds_pipeline.stages.index import open_index
from tsds_pipeline.stages.leaks import SCHEMA as LEAKS
from tsds_pipeline.stages.leaks import (
    guard_of,
    held_back_records,
    leak_table,
    read_leaks,
    solve_without_leaks,
    without_leaks,
    write_leaks,
)
from tsds_pipeline.stages.neighbors import query_neighbors as nearest_candidates
from tsds_pipeline.stages.neighbors import recall
from tsds_pipeline.stages.pool import made_node, open_pool, stored_parts
from tsds_pipeline.stages.probabilities import (
    alpha_for,
    figures,
    first_records,
    probability_table,
    solve_task,
    wanted_size,
)
from tsds_pipeline.stages.sample import (
    TOKENS,
    constraints_of,
    draw_examples,
    drawable,
    kept_to,
    sampling_units,
    with_records,
)
from tsds_pipeline.stages.token_budget import CandidateTokens, affordable, bought
from tsds_pipeline.storage import Artifact, Draft
from tsds_pipeline.summary import StoredVectors
from tsds_pipeline.workers import workers_of

_asset = partial(pipeline_asset, group_name="tasks")
EVERY_SOURCE = dg.AllPartitionMapping()


@_asset(
    partitions_def=TASKS,
    kinds={"polars", "parquet"},
    deps=["query_files"],
)
def query_examples(
    context: dg.AssetExecutionContext, project: ProjectResource
) -> dg.MaterializeResult[Draft]:
    """The task's query set, normalised. Any bad record is an error: the set is small and decides all."""
    with Stage.of(context, project) as stage:
        task = context.partition_key
        settings = stage.settings
        files = stage.observed.scan.tasks[task]
        queries = read_queries(
            files.require(),
            names=files.names,
            template=settings.resolved_task(task).text,
            max_chars=settings.corpus.max_chars,
            vector_field=settings.encoder.vector_field,
            chat_template=chat_template(stage.observed.project),
            vector_files=files.vectors,
        )
        # Other fields of a query decide nothing downstream.
        version = content_hash(queries.drop("record"))
        return stage.result(queries, {}, version=version, preview=queries.select("record_id", "text"))


@_asset(
    partitions_def=TASKS,
    kinds={"numpy", "huggingface"},
    of_encoder=["encoder_settings", "gradient_warmup"],
    pool="encoder",
)
def query_embeddings(context: dg.AssetExecutionContext, project: ProjectResource, query_examples: Artifact):
    """A vector for each query example."""
    with Stage.of(context, project) as stage:
        task = context.partition_key
        node = f"query_examples|{task}"
        return stage.embedded("query", f"task {task}", node, query_examples, "record_id", context.log)


@_asset(
    partitions_def=SOURCES_BY_TASK,
    kinds={"faiss", "parquet"},
    of_encoder=["faiss_index", "kde_densities"],
)
def query_neighbors(context: dg.AssetExecutionContext, project: ProjectResource, query_embeddings: Artifact):
    """The candidates of one source nearest to each query of one task, with distances and densities."""
    with Stage.of(context, project) as stage:
        source, _, task = context.partition_key.partition("|")
        made_from = stage.read("faiss_index", source) | stage.read("kde_densities", source)
        faiss_index, kde_densities = made_from.values()
        made_from[f"query_embeddings|{task}"] = query_embeddings
        require_same_versions(made_from)
        index = open_index(faiss_index, workers_of(stage.settings.ray))
        table = nearest_candidates(task, source, query_embeddings.vectors, index, kde_densities.frame)
        share, queries = recall(table, query_embeddings.vectors, index)
        return stage.result(
            table,
            made_from,
            notes={"recall": share},
            metadata={"nearest_distance": float(table["distance"].min() or 0)},
            preview=table.sort("distance"),
            check_results=[checks.recall(share, queries)],
        )


@_asset(
    partitions_def=TASKS,
    kinds={"numpy", "parquet"},
    deps=["solver_settings"],
    ins={"candidate_corpus": dg.AssetIn(partition_mapping=EVERY_SOURCE)},
    of_encoder={"pool_summary": None, "faiss_index": EVERY_SOURCE, "kde_densities": EVERY_SOURCE},
)
def selection_probabilities(
    context: dg.AssetExecutionContext,
    project: ProjectResource,
    query_neighbors: dict[str, Artifact],
    query_examples: Artifact,
    query_embeddings: Artifact,
    candidate_corpus: dict[str, Artifact],
):
    """The optimal plan over the task's sources: how probable each candidate is in its training set."""
    with Stage.of(context, project) as stage:
        task = context.partition_key
        made_from = {f"query_neighbors|{key}": artifact for key, artifact in sorted(query_neighbors.items())}
        for asset in ("kde_densities", "faiss_index"):
            made_from |= stage.read(asset, *stage.observed.sources)
        made_from |= {
            f"candidate_corpus|{key}": artifact for key, artifact in sorted(candidate_corpus.items())
        }
        made_from |= {**stage.read("pool_summary"), f"query_embeddings|{task}": query_embeddings}
        made_from |= {f"query_examples|{task}": query_examples}
        require_same_versions(made_from)
        settings = stage.settings.resolved_task(task)
        _require_known_sources(stage, task, "sources", "exclude")
        pool = open_pool(stage.observed, task, made_from)
        corpora = corpora_of(stage.observed, task, made_from)
        solve = partial(solve_task, task, settings, tokens=_tokens(stage, task, corpora))
        if settings.leaks == "drop":
            tests = held_back_records(stage.observed, task)
            guard = guard_of(stage.observed, task, query_examples, query_embeddings, tests)
            solved, pool, leaks = solve_without_leaks(solve, pool, guard, corpora)
        else:
            solved, leaks = solve(pool), None
        table = probability_table(pool, solved.solution, query_embeddings.frame["record_id"], corpora)
        said = figures(settings, pool, solved, table)
        if leaks is not None:
            left_out = leak_table(leaks, first_records(leaks, corpora), dropped=True)
            write_leaks(stage.observed.project, task, left_out)
            said["leaks_left_out"] = len(left_out)
        return stage.result(
            table,
            made_from,
            content=(table,),
            notes=said,
            metadata=said,
            preview=table.select("probability", "distance", "density", "source", "id", "nearest_query"),
            check_results=[
                *checks.sums(solved.solution.plan, table["probability"]),
                checks.untruncated(solved.solution.cut_rows),
            ],
        )


@_asset(
    partitions_def=TASKS,
    kinds={"parquet", "json"},
    deps=["draw_settings"],
    ins={"candidate_corpus": dg.AssetIn(partition_mapping=EVERY_SOURCE)},
)
def sampled_subset(
    context: dg.AssetExecutionContext,
    project: ProjectResource,
    selection_probabilities: Artifact,
    candidate_corpus: dict[str, Artifact],
    query_examples: Artifact,
    query_embeddings: Artifact,
):
    """The task's training subset, drawn from the probabilities, with original fields; and its export."""
    with Stage.of(context, project) as stage:
        task = context.partition_key
        made_from = {
            f"candidate_corpus|{key}": artifact for key, artifact in sorted(candidate_corpus.items())
        }
        made_from |= {f"selection_probabilities|{task}": selection_probabilities}
        made_from |= {f"query_examples|{task}": query_examples}
        require_same_versions({**made_from, f"query_embeddings|{task}": query_embeddings})
        settings, solved = stage.settings.resolved_task(task), selection_probabilities.header.notes
        _require_known_sources(stage, task, "caps", "floors")
        corpora, table = corpora_of(stage.observed, task, made_from), selection_probabilities.frame
        units, warnings = _units(stage, task, table, corpora)
        size = _size(task, settings, solved, units)
        if not drawable(settings, size, units):
            raise _too_few(stage.observed, task, size, len(units), solved["alpha"])
        again = json.loads(stage.observed.settings[f"draw_settings|{task}"]).get("redraws", 0)
        if isinstance(again, str):
            raise TsdsError(again)
        drawn = draw_examples(
            task, settings, size, units, again, constraints_of(settings, size, units, table)
        )
        sample = with_records(drawn.examples, corpora)
        drawn_as = {"size": size, "epochs": settings.epochs, "seed": settings.seed, "redraws": again}
        drawn_as |= {"certain_share": drawn.certain, **kept_to(settings, sample)}
        leaks, unread = _leaks_of(stage, task, sample, query_examples, query_embeddings)
        by_source = dict(sample["source"].value_counts(sort=True).iter_rows())
        result = stage.result(
            sample,
            made_from,
            content=(sample,),
            notes={"task": task, **drawn_as, **({"warnings": warnings} if warnings else {})},
            metadata={**drawn_as, "by_source": by_source},
            preview=sample.select("text", "probability", "distance", "source", "id"),
            check_results=[
                checks.sample_size(task, sample, settings, size),
                checks.no_query_text(task, leaks, unread),
                checks.result(checks.UP_TO_DATE),
            ],
        )
        export_sample(
            stage.observed.project.exports / task,
            sample,
            manifest(stage.observed, result.value.header, solved),
            stage.settings.export,
            with_records(units, corpora) if stage.settings.export.weights else None,
        )
        return result


def _require_known_sources(stage: Stage, task: str, *names: str) -> None:
    """TsdsError where one of the settings ``names`` is about a source that is not there: a slip must cost no sample."""
    settings, own = stage.settings.resolved_task(task), stage.settings.tasks.get(task)
    unknown: list[str] = []
    for name in names:
        table = f"tasks.{task}" if own is not None and name in own.model_fields_set else "selection"
        unknown += unknown_sources(f"[{table}] {name}", getattr(settings, name) or (), stage.observed.sources)
    if unknown:
        raise TsdsError("; ".join(unknown))


def _tokens(stage: Stage, task: str, corpora: Mapping[str, pl.LazyFrame]) -> CandidateTokens | None:
    """What candidates cost in tokens of the task's tokenizer, if it has one."""
    name = stage.settings.resolved_task(task).tokenizer
    if name is None:
        return None
    tokenizer = find_tokenizer(name, stage.observed.project.root)
    return CandidateTokens(TokenCounter(tokenizer), corpora)


def _units(
    stage: Stage, task: str, table: pl.DataFrame, corpora: Mapping[str, pl.LazyFrame]
) -> tuple[pl.DataFrame, list[str]]:
    """The sampling units of ``table``, with their tokens where these count, and what to say of those left out."""
    units, budget = sampling_units(table), stage.settings.resolved_task(task).tokens
    if tokens := _tokens(stage, task, corpora):
        units = units.with_columns(pl.Series(TOKENS, tokens.of(units["content_id"])))
    return (units, []) if budget is None else affordable(units, budget)


def _size(task: str, settings: ResolvedTask, solved: Mapping[str, Any], units: pl.DataFrame) -> int:
    """How many examples an epoch has; of a budget of tokens, in expectation."""
    if settings.tokens is None:
        return wanted_size(settings, solved["examples"], solved["auto_size"])
    if units.is_empty():
        raise TsdsError(
            f"task {task}: each of the examples with mass has more than {settings.tokens:,} tokens: ask for more"
        )
    if (there := int(units[TOKENS].sum())) < settings.tokens:
        raise TsdsError(
            f"task {task}: {settings.tokens:,} tokens were asked for but at alpha = {solved['alpha']:.4g} the "
            f'{len(units):,} examples with mass have {there:,}: set [tasks.{task}] alpha (or alpha = "auto"), or fewer '
            "tokens"
        )
    return bought(units["probability"].to_numpy(), units[TOKENS].to_numpy(), settings.tokens)


def _leaks_of(
    stage: Stage, task: str, sample: pl.DataFrame, queries: Artifact, query_vectors: Artifact
) -> tuple[pl.DataFrame, str | None]:
    """The table of the leaks of ``task``, those of ``sample`` put down, and why its test set cannot be read.

    What was left out of the plan was put down with it.
    """
    settings, project = stage.settings.resolved_task(task), stage.observed.project
    if settings.leaks == "drop":
        return read_leaks(project, task), None
    examples = sample.unique("content_id", maintain_order=True)
    unread, tests = None, None
    if settings.leaks == "allow":
        found = examples.clear()
    else:
        try:
            tests = held_back_records(stage.observed, task)
        except TsdsError as error:
            unread = str(error)
        guard = guard_of(stage.observed, task, queries, query_vectors, tests)
        found = guard.leaks(examples, lambda: StoredVectors(stage.project).of(examples))
    table = pl.DataFrame(schema=LEAKS) if found.is_empty() else leak_table(found, examples, dropped=False)
    write_leaks(project, task, table)
    return table, unread


def corpora_of(observed: Observed, task: str, made: Mapping[str, Artifact]) -> dict[str, pl.LazyFrame]:
    """The records of the sources of ``task``, by source."""
    return {
        source: made_node(made, f"candidate_corpus|{source}").scan()
        for source in observed.candidate_sources(task)
    }


def _too_few(observed: Observed, task: str, size: int, units: int, alpha: float) -> TsdsError:
    """The error that says how many have mass and what would give enough; only then is the pool opened."""
    pool = without_leaks(observed, task, open_pool(observed, task, stored_parts(observed, task)))
    settings = observed.project.settings.resolved_task(task)
    wider = alpha_for(settings, pool, size)
    if wider is None and settings.max_neighbors:
        return TsdsError(
            f"task {task}: {size} examples were asked for but at alpha = {alpha:.4g} only {units} have mass, and "
            f"within max_neighbors = {settings.max_neighbors:,} no alpha gives it to enough: raise max_neighbors, or "
            "set a smaller size"
        )
    way_out = (
        f"alpha = {rounded_down(wider, 4)} would reach the size" if wider is not None else "there are no more"
    )
    return TsdsError(
        f"task {task}: {size} examples were asked for but at alpha = {alpha:.4g} only {units} have mass: "
        f'{way_out}; set [tasks.{task}] alpha (or alpha = "auto"), or a smaller size'
    )


ASSETS = (query_examples, query_embeddings, query_neighbors, selection_probabilities, sampled_subset)
