"""Assets of the mixtures: one training set for several tasks."""

from functools import partial

import dagster as dg
import polars as pl

from tsds_pipeline.assets import checks
from tsds_pipeline.assets.stage import Stage, pipeline_asset
from tsds_pipeline.encoders.tokenizers import TokenCounter, find_tokenizer
from tsds_pipeline.orchestration.partitions import MIXTURES
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.provenance import require_same_versions
from tsds_pipeline.stages.export import export_sample, manifest
from tsds_pipeline.stages.mixture import draw_mixture
from tsds_pipeline.stages.sample import TASK, TOKENS, with_records
from tsds_pipeline.stages.token_budget import CandidateTokens
from tsds_pipeline.storage import Draft

_asset = partial(pipeline_asset, group_name="mixtures")
_EVERY = dg.AllPartitionMapping()


@_asset(
    partitions_def=MIXTURES,
    kinds={"parquet", "json"},
    # Which of them is in [mixtures.X], which Dagster does not know.
    deps=[
        "mixture_settings",
        *(
            dg.AssetDep(name, partition_mapping=_EVERY)
            for name in ("selection_probabilities", "candidate_corpus")
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
            check_results=[checks.no_example_twice(mixture)],
        )
        solutions = {"tasks": {task: one.header.notes for task, one in solved.items()}}
        folder = observed.project.exports / name
        export_sample(
            folder, mixture, manifest(observed, result.value.header, solutions), stage.settings.export
        )
        return result


ASSETS = (training_mixture,)
