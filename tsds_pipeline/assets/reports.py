"""Assets to judge a selection by: the report of each task, and what other methods would have selected."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from tsds_pipeline.assets.stage import Stage, pipeline_asset
from tsds_pipeline.assets.tasks import EVERY_SOURCE, corpora_of
from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.core.baselines import METHODS
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import describe, stored
from tsds_pipeline.leaks import HeldBackTexts
from tsds_pipeline.orchestration.partitions import TASKS
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.progress import progress_bar
from tsds_pipeline.provenance import require_same_versions
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
from tsds_pipeline.stages.leaks import read_leaks, texts_of_test_set, without_leaks
from tsds_pipeline.stages.pool import open_pool
from tsds_pipeline.stages.pool_map import PoolMap
from tsds_pipeline.storage import Artifact
from tsds_pipeline.summary import StoredVectors

REPORTED = (OWN, "top_k", "random")
_BY_SOURCE = dg.AssetIn(partition_mapping=EVERY_SOURCE, dagster_type=dict[str, Artifact])
_OF_TASK = dg.AssetIn(dagster_type=Artifact)
_READ = {
    "candidate_corpus": _BY_SOURCE,
    "query_neighbors": dg.AssetIn(dagster_type=dict[str, Artifact]),
    **dict.fromkeys(
        ("sampled_subset", "selection_probabilities", "query_examples", "query_embeddings"), _OF_TASK
    ),
}
_POOL = dict.fromkeys(("faiss_index", "kde_densities"), EVERY_SOURCE)
_asset = partial(pipeline_asset, group_name="reports", partitions_def=TASKS, ins=_READ)


@_asset(kinds={"matplotlib", "html"}, of_encoder={**_POOL, "pool_map": None})
def selection_report(context: dg.AssetExecutionContext, project: ProjectResource, **read: Any):
    """A page on the task's selection, reports/<task>.html, with its quality by held-back queries; and its history."""
    with Stage.of(context, project) as stage:
        task = context.partition_key
        ((node, pool_map),) = stage.read("pool_map").items()
        made_from = {**_made_from(stage, task, read), node: pool_map}
        sample = made_from[f"sampled_subset|{task}"]
        drawn = sample.frame  # before what takes long, while it is surely what its header says
        quality = _quality(stage, task, made_from, drawn.filter(pl.col("epoch") == 0))
        _require_current(stage, made_from)
        history = _recorded(stage, task, made_from, drawn, quality.metrics)
        drift = history.drift(drawn, sample.version)
        version = content_hash(sample.version, pool_map.version)
        pictures = write_report(
            Material(
                project=stage.project,
                task=task,
                version=version,
                sample=sample,
                solved=made_from[f"selection_probabilities|{task}"],
                queries=made_from[f"query_embeddings|{task}"],
                pool_map=PoolMap(pool_map.frame, pool_map.vectors),
                verdicts=quality.verdicts,
                own=quality.own,
                leaks=read_leaks(stage.observed.project, task),
                drift=drift,
                versions=history.versions(VERSIONS_SHOWN),
            )
        )
        moved = {name: len(getattr(drift, name)) for name in ("kept", "added", "dropped")} if drift else {}
        page = dg.MetadataValue.path(str(page_path(stage.observed.project, task)))
        return stage.result(
            quality.table,
            made_from,
            version=version,
            notes=quality.metrics,
            metadata={"page": page, **moved, **quality.metrics, **_shown(pictures)},
            preview=_preview(quality.table),
        )


@_asset(kinds={"matplotlib", "scipy"}, of_encoder=_POOL)
def selection_comparison(context: dg.AssetExecutionContext, project: ProjectResource, **read: Any):
    """What other methods would have selected under the same budget, judged by held-back queries; made on demand."""
    with Stage.of(context, project) as stage:
        task = context.partition_key
        made_from = _made_from(stage, task, read)
        own = stage.settings.resolved_task(task).algorithm
        methods = (OWN, *(method for method in METHODS if method != own))
        compared = _comparison(stage, task, made_from, _held_back(stage, task))
        with progress_bar(f"methods for {task}, by parts of the queries", context.log.info) as progress:
            verdicts = compared.verdicts(methods, progress)
        table, left_out = verdict_table(verdicts.of), dict(verdicts.left_out)
        page = comparison_path(stage.observed.project, task)
        sample = made_from[f"sampled_subset|{task}"].version
        version = content_hash(sample, table)
        picture = write_comparison(page, task, version, sample, table, left_out)
        shown = {"page": dg.MetadataValue.path(str(page)), **_shown({"comparison": picture})}
        return stage.result(
            table,
            made_from,
            version=version,
            notes={"left_out": left_out},
            metadata={"left_out": left_out, **shown},
            preview=_preview(table),
        )


@dataclass(frozen=True)
class _Quality:
    """How good a sample is, by held-back queries and in itself."""

    verdicts: Verdicts
    own: dict[str, float]
    """Metrics of the sample itself."""

    @property
    def table(self) -> pl.DataFrame:
        return verdict_table(self.verdicts.of)

    @property
    def metrics(self) -> dict[str, float]:
        """Means over the parts that were held back; of what needs none, those of the sample itself."""
        means = mean_metrics(self.table.filter(pl.col("method") == OWN)).to_dicts()
        held_back = means[0] if means else {}
        found = {**held_back, **self.own}
        return {name: found[name] for name in METRICS if found.get(name) is not None}


def _quality(stage: Stage, task: str, made_from: Mapping[str, Artifact], first: pl.DataFrame) -> _Quality:
    """The quality of the sample whose first epoch is ``first``."""
    tests, texts = _held_back(stage, task), first["text"].to_list()
    compared = _comparison(stage, task, made_from, tests)
    verdicts = compared.verdicts(REPORTED) if compared.possible else Verdicts()
    queries = HeldBackTexts(made_from[f"query_examples|{task}"].frame["text"])
    leaking = tests.leaks(texts) | queries.leaks(texts)
    vectors = StoredVectors(stage.project).of(first)
    units = first["content_id"].rank("dense").to_numpy()
    own = {
        **intrinsic(vectors, units, stage.settings.pool.kernel_radius),
        "effective_sample_size": made_from[f"selection_probabilities|{task}"].header.notes["effective_size"],
        "leaks": float(len(leaking)),
    }
    return _Quality(verdicts, {name: own[name] for name in METRICS if name in own})


def _recorded(
    stage: Stage, task: str, made_from: Mapping[str, Artifact], drawn: pl.DataFrame, metrics: dict[str, float]
) -> History:
    """The history of the task's sample, with this version of it."""
    sample, solved = (made_from[f"{name}|{task}"] for name in ("sampled_subset", "selection_probabilities"))
    history = History(stage.observed.project.storage, task)
    radius = stage.settings.pool.kernel_radius
    history.record(drawn, sample.version, sample.header.notes, solved.header.notes, radius, metrics)
    return history


def _comparison(
    stage: Stage, task: str, made_from: Mapping[str, Artifact], tests: HeldBackTexts
) -> Comparison:
    return Comparison(
        task,
        stage.settings.resolved_task(task),
        without_leaks(stage.observed, task, open_pool(stage.observed, task, made_from)),
        made_from[f"query_examples|{task}"].frame,
        corpora_of(stage.observed, task, made_from),
        made_from[f"sampled_subset|{task}"].header.notes["size"],
        stage.settings.pool.kernel_radius,
        tests,
    )


def _held_back(stage: Stage, task: str) -> HeldBackTexts:
    return HeldBackTexts(texts_of_test_set(stage.observed, task))


def _require_current(stage: Stage, made_from: Mapping[str, Artifact]) -> None:
    """TsdsError where something was replaced while it was read: what is shown would be of two versions."""
    for node, artifact in made_from.items():
        now = stored(stage.observed.project.storage, node)
        if now is None or now.version != artifact.version:
            raise TsdsError(f"{describe(node)} was made again meanwhile: so will this be")


def _preview(table: pl.DataFrame) -> pl.DataFrame:
    """A row for each method of a verdict table, with the means alone."""
    means = mean_metrics(table).with_columns(pl.col("method").replace(TITLES))
    return means.select(pl.exclude("^.*_spread$"))


def _made_from(
    stage: Stage, task: str, read: Mapping[str, Artifact | dict[str, Artifact]]
) -> dict[str, Artifact]:
    """What was ``read``, by asset, and the pool, as artifacts that belong together, by node."""
    found = {}
    for asset, value in read.items():
        if isinstance(value, dict):
            found |= {f"{asset}|{key}": artifact for key, artifact in value.items()}
        else:
            found[f"{asset}|{task}"] = value
    for asset in _POOL:
        found |= stage.read(asset, *stage.observed.sources)
    require_same_versions(found)
    return dict(sorted(found.items()))


def _shown(pictures: Mapping[str, str]) -> dict[str, Any]:
    """Pictures as metadata that the UI shows."""
    return {f"picture_{name}": dg.MetadataValue.md(f"![{name}]({uri})") for name, uri in pictures.items()}


ASSETS = (selection_report, selection_comparison)
