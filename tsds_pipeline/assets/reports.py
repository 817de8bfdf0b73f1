"""Assets to judge a selection by: the report of each task, and what other methods would have selected."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from tsds_pipeline.assets.stage import Stage, pipeline_asset
from tsds_pipeline.assets.tasks import EVERY_SOURCE, corpora_of, test_texts_of
from tsds_pipeline.core.baselines import METHODS
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import OF_POOL, describe, require_same_versions, stored
from tsds_pipeline.leaks import HeldBackTexts
from tsds_pipeline.orchestration.partitions import TASKS
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.progress import progress_bar
from tsds_pipeline.report.comparison import write_comparison
from tsds_pipeline.report.pages import comparison_path, page_path
from tsds_pipeline.report.selection import TITLES, VERSIONS_SHOWN, Material, write_report
from tsds_pipeline.stages.comparison import (
    METRICS,
    OWN,
    Comparison,
    Verdicts,
    intrinsic,
    mean_metrics,
    verdict_table,
)
from tsds_pipeline.stages.history import History
from tsds_pipeline.stages.pool import open_pool
from tsds_pipeline.stages.pool_map import PoolMap
from tsds_pipeline.storage import Artifact, content_hash
from tsds_pipeline.summary import StoredVectors

REPORTED = (OWN, "top_k", "random")
_READ = {
    name: dg.AssetIn(partition_mapping=EVERY_SOURCE)
    for name in ("faiss_index", "kde_densities", "candidate_corpus")
}
_asset = partial(pipeline_asset, group_name="reports", partitions_def=TASKS, ins=_READ)


@_asset(kinds={"matplotlib", "html"})
def selection_report(
    context: dg.AssetExecutionContext,
    project: ProjectResource,
    sampled_subset: Artifact,
    pool_map: Artifact,
    selection_probabilities: Artifact,
    query_examples: Artifact,
    query_embeddings: Artifact,
    query_neighbors: dict[str, Artifact],
    faiss_index: dict[str, Artifact],
    kde_densities: dict[str, Artifact],
    candidate_corpus: dict[str, Artifact],
):
    """A page on the task's selection, reports/<task>.html, with its quality by held-back queries; and its history."""
    with Stage.of(context, project) as stage:
        task = context.partition_key
        made_from = _made_from(
            task,
            sampled_subset=sampled_subset,
            pool_map=pool_map,
            selection_probabilities=selection_probabilities,
            query_examples=query_examples,
            query_embeddings=query_embeddings,
            query_neighbors=query_neighbors,
            faiss_index=faiss_index,
            kde_densities=kde_densities,
            candidate_corpus=candidate_corpus,
        )
        require_same_versions(made_from)
        # Read before what takes long, while it is surely what its header says.
        sample, solution = sampled_subset.frame, selection_probabilities.header.notes
        tests = _held_back(stage, task)
        compared = _comparison(stage, task, made_from, tests)
        verdicts = compared.verdicts(REPORTED) if compared.possible else Verdicts()
        table = verdict_table(verdicts.of)
        first = sample.filter(pl.col("epoch") == 0)
        texts, queries = first["text"].to_list(), HeldBackTexts(query_examples.frame["text"])
        leaking = first.select("source", "text")[sorted(tests.leaks(texts) | queries.leaks(texts))].rows()
        own = _own_metrics(stage, first, solution, len(leaking))
        metrics = {**_means(table, OWN), **own}
        _require_current(stage, made_from)
        history = History(stage.observed.project.storage, task)
        drawn, radius = sampled_subset.header.notes, stage.settings.pool.kernel_radius
        history.record(sample, sampled_subset.version, drawn, solution, radius, metrics)
        drift = history.drift(sample, sampled_subset.version)
        version = content_hash(sampled_subset.version, pool_map.version)
        pictures = write_report(
            Material(
                project=stage.observed.project,
                task=task,
                version=version,
                sample=sampled_subset,
                solved=selection_probabilities,
                queries=query_embeddings,
                pool_map=PoolMap(pool_map.frame, pool_map.vectors),
                verdicts=verdicts,
                own=own,
                leaking=leaking,
                drift=drift,
                versions=history.versions(VERSIONS_SHOWN),
            )
        )
        page = page_path(stage.observed.project, task)
        moved = {name: len(getattr(drift, name)) for name in ("kept", "added", "dropped")} if drift else {}
        return stage.result(
            table,
            made_from,
            version=version,
            notes=metrics,
            metadata={"page": dg.MetadataValue.path(str(page)), **moved, **metrics, **_shown(pictures)},
            preview=_preview(table),
        )


@_asset(kinds={"matplotlib", "scipy"})
def selection_comparison(
    context: dg.AssetExecutionContext,
    project: ProjectResource,
    sampled_subset: Artifact,
    selection_probabilities: Artifact,
    query_examples: Artifact,
    query_embeddings: Artifact,
    query_neighbors: dict[str, Artifact],
    faiss_index: dict[str, Artifact],
    kde_densities: dict[str, Artifact],
    candidate_corpus: dict[str, Artifact],
):
    """What other methods would have selected under the same budget, judged by held-back queries; made on demand."""
    with Stage.of(context, project) as stage:
        task = context.partition_key
        made_from = _made_from(
            task,
            sampled_subset=sampled_subset,
            selection_probabilities=selection_probabilities,
            query_examples=query_examples,
            query_embeddings=query_embeddings,
            query_neighbors=query_neighbors,
            faiss_index=faiss_index,
            kde_densities=kde_densities,
            candidate_corpus=candidate_corpus,
        )
        require_same_versions(made_from)
        own = stage.settings.resolved_task(task).algorithm
        methods = (OWN, *(method for method in METHODS if method != own))
        with progress_bar(f"methods for {task}, by parts of the queries", context.log.info) as progress:
            verdicts = _comparison(stage, task, made_from, _held_back(stage, task)).verdicts(
                methods, progress
            )
        table = verdict_table(verdicts.of)
        page = comparison_path(stage.observed.project, task)
        version = content_hash(sampled_subset.version, table)
        picture = write_comparison(page, task, version, sampled_subset.version, table, verdicts.left_out)
        return stage.result(
            table,
            made_from,
            version=version,
            notes={"left_out": dict(verdicts.left_out)},
            metadata={
                "page": dg.MetadataValue.path(str(page)),
                "left_out": dict(verdicts.left_out),
                **_shown({"comparison": picture}),
            },
            preview=_preview(table),
        )


def _comparison(
    stage: Stage, task: str, made_from: Mapping[str, Artifact], tests: HeldBackTexts
) -> Comparison:
    return Comparison(
        task,
        stage.settings.resolved_task(task),
        open_pool(stage.observed, task, made_from),
        made_from[f"query_examples|{task}"].frame,
        corpora_of(stage.observed, task, made_from),
        made_from[f"sampled_subset|{task}"].header.notes["size"],
        stage.settings.pool.kernel_radius,
        tests,
    )


def _held_back(stage: Stage, task: str) -> HeldBackTexts:
    texts, _ = test_texts_of(stage, task)
    return HeldBackTexts(texts)


def _own_metrics(
    stage: Stage, first: pl.DataFrame, solution: Mapping[str, Any], leaking: int
) -> dict[str, float]:
    """The metrics of the first epoch of the sample itself, which knew all queries."""
    vectors = StoredVectors(stage.observed.project).of(first)
    found = {
        **intrinsic(vectors, first["content_id"].rank("dense").to_numpy(), stage.settings.pool.kernel_radius),
        "effective_sample_size": solution["effective_size"],
        "leaks": float(leaking),
    }
    return {name: found[name] for name in METRICS if name in found}


def _require_current(stage: Stage, made_from: Mapping[str, Artifact]) -> None:
    """TsdsError where something was replaced while it was read: what is shown would be of two versions."""
    for node, artifact in made_from.items():
        now = stored(stage.observed.project.storage, node)
        if now is None or now.version != artifact.version:
            raise TsdsError(f"{describe(node)} was made again meanwhile: so will this be")


def _means(table: pl.DataFrame, method: str) -> dict[str, float]:
    row = mean_metrics(table.filter(pl.col("method") == method)).to_dicts()
    return {name: value for name in METRICS if row and (value := row[0][name]) is not None}


def _preview(table: pl.DataFrame) -> pl.DataFrame:
    """A row for each method of a verdict table, with the means alone."""
    means = mean_metrics(table).with_columns(pl.col("method").replace(TITLES))
    return means.select(pl.exclude("^.*_spread$"))


def _made_from(task: str, **read: Artifact | dict[str, Artifact]) -> dict[str, Artifact]:
    """What was ``read``, by asset, by node: of the task, of all sources, or of the pool."""
    found = {}
    for asset, value in read.items():
        if isinstance(value, dict):
            found |= {f"{asset}|{key}": artifact for key, artifact in value.items()}
        else:
            found[asset if asset in OF_POOL else f"{asset}|{task}"] = value
    return dict(sorted(found.items()))


def _shown(pictures: Mapping[str, str]) -> dict[str, Any]:
    """Pictures as metadata that the UI shows."""
    return {f"picture_{name}": dg.MetadataValue.md(f"![{name}]({uri})") for name, uri in pictures.items()}
