"""Assets of the mixtures: one training set for several tasks."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import dagster as dg
import numpy as np
import polars as pl

from tsds_pipeline.assets import checks
from tsds_pipeline.assets.stage import Stage, pipeline_asset
from tsds_pipeline.encoders.tokenizers import TokenCounter, find_tokenizer
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed
from tsds_pipeline.orchestration.partitions import MIXTURES
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.provenance import require_same_versions
from tsds_pipeline.stages.export import export_sample, manifest
from tsds_pipeline.stages.leaks import guard_of, held_back_records, leak_table
from tsds_pipeline.stages.mixture import draw_mixture
from tsds_pipeline.stages.sample import TASK, TOKENS, with_records
from tsds_pipeline.stages.token_budget import CandidateTokens
from tsds_pipeline.storage import Artifact, Draft
from tsds_pipeline.summary import StoredVectors

_asset = partial(pipeline_asset, group_name="mixtures")
_EVERY = dg.AllPartitionMapping()


@_asset(
    partitions_def=MIXTURES,
    kinds={"parquet", "json"},
    # Which of them are read is in [mixtures.X], which Dagster does not know.
    deps=[
        "mixture_settings",
        *(
            dg.AssetDep(name, partition_mapping=_EVERY)
            for name in ("selection_probabilities", "candidate_corpus", "query_examples", "query_embeddings")
        ),
    ],
)
def training_mixture(
    context: dg.AssetExecutionContext, project: ProjectResource
) -> dg.MaterializeResult[Draft]:
    """One training set for several tasks: each has its share, and no example comes twice; and its export."""
    with Stage.of(context, project) as stage:
        name, observed = context.partition_key, stage.observed
        settings = observed.project.settings.mixtures[name]
        sources = sorted({source for task in settings.weights for source in observed.candidate_sources(task)})
        made_from = {
            **stage.read("selection_probabilities", *settings.weights),
            **stage.read("candidate_corpus", *sources),
            **stage.read("query_examples", *settings.weights),
            **stage.read("query_embeddings", *settings.weights),
        }
        require_same_versions(made_from)
        corpora = {source: made_from[f"candidate_corpus|{source}"].scan() for source in sources}
        solved = {task: made_from[f"selection_probabilities|{task}"] for task in settings.weights}
        tokens = None
        if settings.tokenizer:
            tokens = CandidateTokens(
                TokenCounter(find_tokenizer(settings.tokenizer, observed.project.root)), corpora
            )
        drawn = draw_mixture(name, settings, {task: one.frame for task, one in solved.items()}, tokens)
        mixture = with_records(drawn, corpora)
        first = mixture.filter(epoch=0)
        said = {
            "mixture": name,
            "tasks": settings.weights,
            "size": len(first),
            "epochs": settings.epochs,
            "seed": settings.seed,
            "by_task": dict(first[TASK].value_counts().sort(TASK).iter_rows()),
        }
        if settings.tokenizer:
            by_epoch = mixture.group_by("epoch", maintain_order=True).agg(pl.col(TOKENS).sum())
            said |= {"tokens": settings.tokens, "tokenizer": settings.tokenizer}
            said["tokens_drawn"] = by_epoch[TOKENS].to_list()
        result = stage.result(
            mixture,
            made_from,
            content=(mixture,),
            notes=said,
            metadata={**said, "by_source": dict(mixture["source"].value_counts(sort=True).iter_rows())},
            preview=mixture.select(TASK, "text", "probability", "distance", "source", "id"),
            check_results=[
                checks.no_example_twice(mixture),
                checks.no_query_text_in_mixture(*_leaks(observed, made_from, mixture, settings.weights)),
            ],
        )
        solutions = {"tasks": {task: one.header.notes for task, one in solved.items()}}
        folder = observed.project.exports / name
        export_sample(
            folder, mixture, manifest(observed, result.value.header, solutions), stage.settings.export
        )
        return result


def _leaks(
    observed: Observed, made_from: Mapping[str, Artifact], mixture: pl.DataFrame, tasks: Iterable[str]
) -> tuple[dict[str, pl.DataFrame], dict[str, str]]:
    """What gives away a record of one of the tasks that are guarded, and why test sets cannot be read; by task.

    Texts are compared with all examples, vectors with those that are there for the task.
    """
    examples = mixture.unique("content_id", maintain_order=True)
    of_tasks = mixture.unique(["content_id", TASK], maintain_order=True)
    found, unread = {}, {}
    for task in tasks:
        project = observed.project.for_task(task)
        if project.settings.resolved_task(task).leaks == "allow":
            continue
        try:
            tests = held_back_records(observed, task)
        except TsdsError as error:
            tests, unread[task] = None, str(error)
        queries = (made_from[f"{asset}|{task}"] for asset in ("query_examples", "query_embeddings"))
        guard, of_task = guard_of(observed, task, *queries, tests), of_tasks.filter(pl.col(TASK) == task)
        texts = replace(guard, distance=None).leaks(examples, lambda: np.empty((0, 0)))
        near = guard.leaks(of_task, partial(StoredVectors(project).of, of_task))
        leaks = pl.concat([texts, near]).unique("content_id", keep="first", maintain_order=True)
        found[task] = leak_table(leaks, examples, dropped=False)
    return found, unread


ASSETS = (training_mixture,)
