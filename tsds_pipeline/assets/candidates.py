"""Assets of the candidates: corpus, embeddings, search index and densities by source; the pool as a whole."""

from functools import partial

import dagster as dg

from tsds_pipeline.assets.stage import Stage, pipeline_asset
from tsds_pipeline.corpus import SourceRecords, check_quarantine, empty_corpus, read_source
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.orchestration.partitions import SOURCES
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.progress import progress_bar
from tsds_pipeline.settings import corpus_limits
from tsds_pipeline.stages.densities import kernel_densities, summarize_pool
from tsds_pipeline.stages.index import build_index, index_factory, open_index
from tsds_pipeline.storage import Artifact, Draft, artifact_path, content_hash, write_atomically

_asset = partial(pipeline_asset, group_name="candidates")
EVERY_SOURCE = dg.AllPartitionMapping()
READABLE = dg.AssetCheckSpec(
    "readable",
    asset="candidate_corpus",
    description="The source's files could be read, with no more bad records than allowed. Where not, its "
    "last good content stays in use (or no records, if there never was any): mend the files, then refresh.",
)


@_asset(
    partitions_def=SOURCES,
    kinds={"polars", "parquet"},
    deps=["source_files"],
    check_specs=[READABLE],
)
def candidate_corpus(context: dg.AssetExecutionContext, project: ProjectResource):
    """The source's records, normalised and identified; exact copies are one record with a count."""
    with Stage.of(context, project) as stage:
        source = context.partition_key
        try:
            records = _read(stage, source)
        except TsdsError as error:
            context.log.error(str(error))
            empty = empty_corpus(stage.settings.vector_field)
            passed = dg.AssetCheckResult(
                passed=False, check_name="readable", metadata={"problem": str(error)}
            )
            return stage.stand_in(empty, str(error), check_results=[passed])
        corpus, bad = records.corpus, len(records.quarantine)
        return stage.result(
            corpus,
            {},
            version=content_hash(corpus),
            metadata={
                "records_read": records.read,
                "quarantined": bad,
                "copies": int(corpus["count"].sum()) - len(corpus),
            },
            notes={"records_read": records.read, "quarantined": bad},
            preview=corpus.select("content_id", "text", "count", "record_ids"),
            check_results=[
                dg.AssetCheckResult(passed=True, check_name="readable", metadata={"quarantined": bad})
            ],
        )


def _read(stage: Stage, source: str) -> SourceRecords:
    """The source's records; the quarantine table is stored whether or not there are too many bad ones."""
    settings, own = stage.settings, stage.settings.sources.get(source)
    max_chars, max_quarantined = corpus_limits(settings, source)
    records = read_source(
        stage.observed.scan.sources[source].require(),
        template=own.text if own else None,
        max_chars=max_chars,
        vector_field=settings.vector_field,
    )
    table = artifact_path(stage.observed.project.storage, "quarantine", source)
    write_atomically(table, records.quarantine.write_parquet)
    check_quarantine(records, max_quarantined, source, table)
    return records


@_asset(
    partitions_def=SOURCES,
    kinds={"numpy", "sentencetransformers"},
    deps=["encoder_settings"],
    pool="encoder",
)
def candidate_embeddings(
    context: dg.AssetExecutionContext, project: ProjectResource, candidate_corpus: Artifact
) -> dg.MaterializeResult[Draft]:
    """A vector for each record. A text that was embedded once with this encoder is not embedded again."""
    with Stage.of(context, project) as stage:
        source = context.partition_key
        node = f"candidate_corpus|{source}"
        return stage.embedded(f"source {source}", node, candidate_corpus, "count", context.log)


@_asset(
    partitions_def=SOURCES,
    kinds={"faiss"},
    deps=["index_settings"],
)
def faiss_index(
    context: dg.AssetExecutionContext, project: ProjectResource, candidate_embeddings: Artifact
) -> dg.MaterializeResult[Draft]:
    """The search index over the source's vectors: exact (flat) unless the source is very large."""
    with Stage.of(context, project) as stage:
        table = candidate_embeddings.frame
        made_from = {f"candidate_embeddings|{context.partition_key}": candidate_embeddings}
        if table.is_empty():
            return stage.result(table, made_from, metadata={"index": "empty"})
        vectors = candidate_embeddings.vectors
        factory = index_factory(stage.settings.pool.index, len(vectors))
        index = build_index(vectors, factory)
        # A flat index holds the vectors themselves; distances to what another finds are evaluated on these.
        payloads = {"index": index} if factory == "Flat" else {"index": index, "vectors": vectors}
        return stage.result(table, made_from, payloads=payloads, metadata={"index": factory})


@_asset(
    partitions_def=SOURCES,
    kinds={"numpy"},
    deps=["source_registry", "pool_settings"],
    ins={"faiss_index": dg.AssetIn(partition_mapping=EVERY_SOURCE)},
)
def kde_densities(
    context: dg.AssetExecutionContext, project: ProjectResource, faiss_index: dict[str, Artifact]
) -> dg.MaterializeResult[Draft]:
    """Kernel density of each candidate under the whole pool: how many near-duplicates it has."""
    with Stage.of(context, project) as stage:
        source = context.partition_key
        indexes = {key: open_index(artifact) for key, artifact in faiss_index.items()}
        with progress_bar(f"densities of {source}", context.log.info) as progress:
            table = kernel_densities(source, indexes, stage.settings.pool.kernel_radius, progress)
        near = int((table["density"] > table["count"] * (1 + 1e-9)).sum())
        return stage.result(
            table,
            {f"faiss_index|{key}": artifact for key, artifact in sorted(faiss_index.items())},
            # Not of the other sources' indexes: a change there that moves no density here stops here.
            version=content_hash(
                faiss_index[source].version, stage.observed.settings["pool_settings"], table
            ),
            metadata={"near_duplicates": near, "largest_density": float(table["density"].max() or 0)},
            preview=table.sort("density", descending=True),
        )


@_asset(
    kinds={"polars", "parquet"},
    ins={"kde_densities": dg.AssetIn(partition_mapping=EVERY_SOURCE)},
)
def pool_summary(
    context: dg.AssetExecutionContext, project: ProjectResource, kde_densities: dict[str, Artifact]
) -> dg.MaterializeResult[Draft]:
    """The pool in one table: sources, candidates, copies, and the sum of the weights (S)."""
    with Stage.of(context, project) as stage:
        table = summarize_pool(kde_densities)
        return stage.result(
            table,
            {f"kde_densities|{key}": artifact for key, artifact in sorted(kde_densities.items())},
            version=content_hash(table),
            metadata={
                "candidates": int(table["candidates"].sum()),
                "total_weight": float(table["total_weight"].sum()),
            },
        )
