"""Assets of the candidates: corpus, embeddings, search index and densities by source; the pool as a whole."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl

from tsds_pipeline.assets import checks
from tsds_pipeline.assets.stage import Stage, pipeline_asset
from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.corpus import (
    ColumnFilter,
    SourceRecords,
    TestSet,
    bad_records,
    empty_corpus,
    quarantine_problem,
    read_source,
    read_test_set,
)
from tsds_pipeline.errors import TsdsError, UnusableVectorError
from tsds_pipeline.graph import CODE_VERSIONS, chat_template, stored
from tsds_pipeline.node_names import split_name
from tsds_pipeline.orchestration.partitions import SOURCES
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.places import shown
from tsds_pipeline.progress import progress_bar
from tsds_pipeline.provenance import require_same_versions
from tsds_pipeline.settings_parts import column_values, corpus_limits
from tsds_pipeline.stages.densities import kernel_densities, near_duplicates, summarize_pool
from tsds_pipeline.stages.gradient_warmup import stored_warmup, train_adapters
from tsds_pipeline.stages.index import build_index, index_factory, open_index
from tsds_pipeline.stages.kernel_sums import FOLDER as KERNEL_SUMS
from tsds_pipeline.stages.pool_map import map_pool
from tsds_pipeline.status import FRESH
from tsds_pipeline.storage import Artifact, Draft, artifact_path, count_rows, write_atomically

_asset = partial(pipeline_asset, group_name="candidates")
EVERY_SOURCE = dg.AllPartitionMapping()


@_asset(
    partitions_def=SOURCES,
    kinds={"polars", "parquet"},
    deps=["source_files"],
)
def candidate_corpus(context: dg.AssetExecutionContext, project: ProjectResource):
    """The source's records, normalised and identified; exact copies are one record with a count."""
    with Stage.of(context, project) as stage:
        source = context.partition_key
        try:
            records = _read(stage, source)
        except TsdsError as error:
            context.log.error(str(error))
            return _last_good(stage, str(error), checks.unreadable(str(error)))
        corpus, bad = records.table, len(records.quarantine)
        _, limit = corpus_limits(stage.settings, source)
        listed = shown(stage.observed.project.root, _quarantine(stage, source))
        problem = quarantine_problem(records, limit, source, listed)
        left_out, own = records.excluded, stage.settings.sources.get(source)
        unseen = sorted(left_out.unseen) if records.read else []
        # What [corpus] drops need not be in every source, see ``status.unseen_fields``.
        is_own = own is not None and "drop" in own.model_fields_set
        results = [
            checks.result("readable"),
            checks.few_bad_records(bad, records.judged, limit, problem),
            *checks.of_records(source, records.copies, len(left_out), unseen if is_own else ()),
        ]
        excluded = dict(sorted(records.excluded.counts.items()))
        if problem:
            context.log.error(problem)
            return _last_good(stage, problem, results)
        return stage.result(
            corpus,
            {},
            version=records.version,
            metadata={
                "records_read": records.read,
                "quarantined": bad,
                "copies": records.copies - count_rows(corpus),
                "excluded": sum(excluded.values()),
                **({"excluded_by": excluded} if excluded else {}),
            },
            notes={
                "records_read": records.read,
                "quarantined": bad,
                **({"excluded": excluded} if excluded else {}),
                **({"unseen": unseen} if unseen else {}),
                **({"warnings": [bad_records(records, listed)]} if bad else {}),
            },
            preview=corpus.select("text", "count", "record_ids", "content_id"),
            check_results=results,
            reads=records.folder,
        )


def _read(stage: Stage, source: str) -> SourceRecords:
    """The source's records; what is bad or excluded is listed whether or not there are too many bad ones."""
    settings, own = stage.settings, stage.settings.sources.get(source)
    max_chars, _ = corpus_limits(settings, source)
    files = stage.observed.scan.sources[source]
    records = read_source(
        files.require(),
        names=files.names,
        template=own.text if own else None,
        max_chars=max_chars,
        vector_field=settings.vector_field,
        wanted=ColumnFilter(**column_values(settings, source)),
        test_sets=[_test_set(stage, name) for name in stage.observed.scan.excluded],
        chat_template=chat_template(stage.observed.project),
        vector_files=files.vectors,
        spill=stage.observed.project.storage / "candidate_corpus",
    )
    write_atomically(_quarantine(stage, source), records.quarantine.write_parquet)
    excluded = artifact_path(stage.observed.project.storage, "excluded", source)
    write_atomically(excluded, records.excluded.table().write_parquet)
    if name := records.excluded.field_that_none_has(records.read):
        raise TsdsError(
            f'source "{source}": none of its {records.read:,} records has anything in the field "{name}" that keep '
            f"names: correct it in [corpus] or [sources.{source}] (keep = {{}} there takes all)"
        )
    return records


def _test_set(stage: Stage, name: str) -> TestSet:
    """The test set of [exclude.NAME]; without it no source can be used, as nobody knows what it may hold."""
    files, settings = stage.observed.scan.excluded[name], stage.settings
    try:
        template, max_chars = settings.exclude[name].text, settings.corpus.max_chars
        paths, chats = files.require(), chat_template(stage.observed.project)
        records = read_test_set(
            paths, template=template, max_chars=max_chars, names=files.names, chat_template=chats
        )
    except TsdsError as error:
        raise TsdsError(f"[exclude.{name}]: {error}") from None
    return TestSet.of(name, records)


def _quarantine(stage: Stage, source: str) -> Path:
    return artifact_path(stage.observed.project.storage, "quarantine", source)


def _last_good(
    stage: Stage, problem: str, results: Sequence[dg.AssetCheckResult]
) -> dg.MaterializeResult[Draft]:
    """What the source held before, or no records, in place of what cannot be used now."""
    last = stored(stage.observed.project.storage, stage.node)
    # No records that stand in for others are nothing good either.
    if last is None or (last.rows == 0 and last.header.problem is not None):
        empty = empty_corpus(stage.settings.vector_field)
        problem = f"{problem} (until then it counts as empty)"
        # However it is broken: nothing after it is made again while there is nothing.
        version = content_hash("no records", empty)
        return stage.stand_in(empty, {}, problem, check_results=results, version=version)
    problem = f"{problem} (its last good content, {last.rows:,} records, stays in use)"
    return stage.stand_in(last.scan(), {}, problem, check_results=results, last=last.header)


@_asset(
    kinds={"huggingface", "parquet"},
    of_encoder=["encoder_settings"],
    ins={"candidate_corpus": dg.AssetIn(partition_mapping=EVERY_SOURCE)},
    pool="encoder",
)
def gradient_warmup(
    context: dg.AssetExecutionContext, project: ProjectResource, candidate_corpus: dict[str, Artifact]
):
    """LoRA adapters that gradients are taken at, trained on a sample of the pool; made again only on purpose."""
    with Stage.of(context, project) as stage:
        with progress_bar("training adapters", context.log.info) as progress:
            table = train_adapters(
                stage.observed,
                stage.project,
                candidate_corpus,
                afresh=stage.reasons == (FRESH,),
                progress=progress,
            )
        return stage.result(
            table,
            {f"candidate_corpus|{key}": artifact for key, artifact in sorted(candidate_corpus.items())},
            version=content_hash(table),
            metadata={"last_loss": table["loss"][-1], "steps": table["step"][-1]},
        )


@_asset(
    partitions_def=SOURCES,
    kinds={"numpy", "huggingface"},
    of_encoder=["encoder_settings", "gradient_warmup"],
    pool="encoder",
)
def candidate_embeddings(
    context: dg.AssetExecutionContext, project: ProjectResource, candidate_corpus: Artifact
):
    """A vector for each record. A text that was embedded once with this encoder is not embedded again."""
    with Stage.of(context, project) as stage:
        source = context.partition_key
        node = f"candidate_corpus|{source}"
        try:
            usable = [checks.result("usable_vectors")]
            return stage.embedded(
                "candidate", f"source {source}", node, candidate_corpus, "count", context.log, usable
            )
        except Exception as error:
            frame, vectors = _known_vectors(
                stage, candidate_corpus.scan().select("content_id", "count").collect()
            )
            # Nothing to go on with: an encoder that does not work must not pass for a source without records.
            if frame.is_empty() and not isinstance(error, UnusableVectorError):
                raise
            problem = str(error) if isinstance(error, TsdsError) else f"{type(error).__name__}: {error}"
            context.log.error(problem)
            return stage.stand_in(
                frame,
                {node: candidate_corpus, **_warmup(stage)},
                problem,
                check_results=[
                    checks.result("usable_vectors", problem),
                    checks.vector_lengths(vectors, stage.settings.encoder.normalize),
                ],
                payloads={"vectors": vectors},
            )


def _warmup(stage: Stage) -> dict[str, Artifact]:
    """The warm-up of the encoder, by node, where there is one."""
    made = stored_warmup(stage.project)
    return {} if made is None else {stage.project.of_encoder("gradient_warmup"): made}


def _known_vectors(stage: Stage, corpus: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """The records of ``corpus`` that had vectors of this encoder when all went well last."""
    last, settings = stored(stage.project.storage, stage.node), stage.project.of_encoder("encoder_settings")
    made_by = {settings: stage.observed.versions[settings]}
    made_by |= {name: artifact.version for name, artifact in _warmup(stage).items()}
    if last is None or not made_by.items() <= last.header.inputs.items():
        return corpus.select("content_id", "count").clear(), np.empty((0, 0), np.float32)
    rows = corpus.select("content_id", "count").join(
        last.frame.select("content_id").with_row_index("row"), on="content_id", maintain_order="left"
    )
    return rows.select("content_id", "count"), np.asarray(last.vectors[rows["row"].to_numpy()])


@_asset(
    partitions_def=SOURCES,
    kinds={"faiss"},
    deps=["index_settings"],
    of_encoder=["candidate_embeddings"],
)
def faiss_index(context: dg.AssetExecutionContext, project: ProjectResource):
    """The search index over the source's vectors: exact (flat), or an inverted file where it pays."""
    with Stage.of(context, project) as stage:
        made_from = stage.read("candidate_embeddings", context.partition_key)
        (embeddings,) = made_from.values()
        table, built, pool = embeddings.frame, [checks.result("built_as_asked")], stage.settings.pool
        if table.is_empty():
            return stage.result(table, made_from, metadata={"index": "empty"}, check_results=built)
        vectors = embeddings.vectors
        factory = index_factory(pool.index, len(vectors), pool.expected_queries)
        try:
            index = build_index(vectors, factory)
        except TsdsError as error:
            problem = f"source {context.partition_key}: {error}; it is searched exactly meanwhile"
            payloads = {"index": build_index(vectors, "Flat")}
            failed = [checks.result("built_as_asked", problem)]
            return stage.stand_in(table, made_from, problem, check_results=failed, payloads=payloads)
        # A flat index holds the vectors themselves; distances to what another finds are evaluated on these.
        payloads = {"index": index} if factory == "Flat" else {"index": index, "vectors": vectors}
        return stage.result(
            table,
            made_from,
            # Not of the settings that chose it: others may choose the same.
            version=content_hash(CODE_VERSIONS["faiss_index"], embeddings.version, factory),
            payloads=payloads,
            metadata={"index": factory},
            check_results=built,
        )


@_asset(
    partitions_def=SOURCES,
    kinds={"numpy"},
    deps=["source_registry"],
    of_encoder={"pool_settings": None, "faiss_index": EVERY_SOURCE},
)
def kde_densities(context: dg.AssetExecutionContext, project: ProjectResource):
    """Kernel density of each candidate under the whole pool: how many near-duplicates it has."""
    with Stage.of(context, project) as stage:
        source = context.partition_key
        made_from = stage.read("faiss_index", *stage.observed.sources)
        require_same_versions(made_from)
        made = _by_source(made_from)
        indexes = {key: open_index(artifact) for key, artifact in made.items()}
        with progress_bar(f"densities of {source}, over sources", context.log.info) as progress:
            kept = stage.project.storage / KERNEL_SUMS
            found = kernel_densities(source, indexes, stage.settings.pool.kernel_radius, kept, progress)
        table = found.table
        near = near_duplicates(table).height
        settings = stage.observed.settings[stage.project.of_encoder("pool_settings")]
        return stage.result(
            table,
            made_from,
            # Not of the other sources' indexes: a change there that moves no density here stops here.
            version=content_hash(made[source].version, settings, table),
            metadata={
                "near_duplicates": near,
                "largest_density": float(table["density"].max() or 0),
                "largest_density_error": found.largest_error,
            },
            preview=table.sort("density", descending=True),
            check_results=[checks.densities_at_least_one(source, table)],
        )


@_asset(kinds={"polars", "parquet"}, of_encoder={"kde_densities": EVERY_SOURCE})
def pool_summary(context: dg.AssetExecutionContext, project: ProjectResource):
    """The pool in one table: sources, candidates, copies, and the sum of the weights (S)."""
    with Stage.of(context, project) as stage:
        made_from = stage.read("kde_densities", *stage.observed.sources)
        require_same_versions(made_from)
        table = summarize_pool(_by_source(made_from))
        return stage.result(
            table,
            made_from,
            version=content_hash(table),
            metadata={
                "candidates": int(table["candidates"].sum()),
                "total_weight": float(table["total_weight"].sum()),
            },
        )


@_asset(kinds={"scikitlearn", "parquet"}, of_encoder={"candidate_embeddings": EVERY_SOURCE})
def pool_map(context: dg.AssetExecutionContext, project: ProjectResource):
    """A flat map of the pool, for the reports of all tasks: where a sample of the candidates lies (t-SNE)."""
    with Stage.of(context, project) as stage:
        made_from = stage.read("candidate_embeddings", *stage.observed.sources)
        require_same_versions(made_from)
        made = map_pool(_by_source(made_from))
        return stage.result(
            made.table,
            made_from,
            version=content_hash(made.table),
            payloads={"vectors": made.vectors},
            metadata={"landmarks": len(made.table)},
        )


def _by_source(made: Mapping[str, Artifact]) -> dict[str, Artifact]:
    return {split_name(node).partition: artifact for node, artifact in made.items()}


ASSETS = (
    candidate_corpus,
    gradient_warmup,
    candidate_embeddings,
    faiss_index,
    kde_densities,
    pool_summary,
    pool_map,
)
