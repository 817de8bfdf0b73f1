"""What every asset body does around its computation: know its node, say what it was made from, report it.

The computations are in ``stages`` and ``core``.
"""

import functools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
from dagster._core.errors import DagsterExecutionInterruptedError

from tsds_pipeline.assets import checks
from tsds_pipeline.assets.columns import column_lineage, column_schema
from tsds_pipeline.encoders import Role, embed
from tsds_pipeline.encoders.cache import FOLDER as EMBEDDINGS
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import (
    CODE_VERSIONS,
    EXPORTED,
    OF_ENCODER,
    Observed,
    current_versions,
    describe,
    input_versions,
    keys_of,
    node_path,
    not_made,
    stored,
)
from tsds_pipeline.memory import forget_peak, peak_memory
from tsds_pipeline.node_names import DEFAULT_ENCODER, asset_of, node_name, split_name
from tsds_pipeline.orchestration.partitions import asset_key
from tsds_pipeline.orchestration.resources import REFRESH, ProjectResource
from tsds_pipeline.progress import progress_bar
from tsds_pipeline.project import Project
from tsds_pipeline.provenance import header
from tsds_pipeline.settings import Settings
from tsds_pipeline.stages.gradient_warmup import ASSET as WARMUP
from tsds_pipeline.stages.gradient_warmup import encoder_of
from tsds_pipeline.status import FAILED, node_status
from tsds_pipeline.storage import Artifact, Draft, Header, begin_attempt, record_failure
from tsds_pipeline.wording import shortened
from tsds_pipeline.workers import workers_of

PREVIEW_ROWS = 10
RESULTS = ("selection_probabilities", *EXPORTED)
"""The assets that a user takes away; the others lead to them."""
_LONGEST_CELL = 160


@dataclass(frozen=True)
class PipelineAsset:
    """The body of an asset, and what Dagster is told of it."""

    body: Callable
    of_encoder: Mapping[str, dg.PartitionMapping | None]
    """The assets upstream that an encoder decides; the body reads them by ``Stage.read``."""
    options: Mapping[str, Any]
    """Those of ``dg.asset``; ``deps`` are those of all encoders."""

    @property
    def asset(self) -> str:
        """Its name, the same for every encoder."""
        return self.body.__name__

    def definitions(
        self, encoders: Sequence[str], condition: dg.AutomationCondition, lacking: Collection[str] = ()
    ) -> list[dg.AssetsDefinition]:
        """One asset; of what an encoder decides, one for each of ``encoders``, made of what that one decides.

        ``lacking`` are the names of assets that an encoder does without.
        """
        if self.asset not in OF_ENCODER:
            return [self._definition(DEFAULT_ENCODER, encoders, condition, lacking)]
        return [
            self._definition(name, [name], condition, lacking)
            for name in encoders
            if node_name(self.asset, encoder=name) not in lacking
        ]

    def _definition(
        self,
        encoder: str,
        read_from: Sequence[str],
        condition: dg.AutomationCondition,
        lacking: Collection[str],
    ) -> dg.AssetsDefinition:
        key = asset_key(node_name(self.asset, encoder=encoder))
        mapped = [
            dg.AssetDep(asset_key(node_name(name, encoder=one)), partition_mapping=mapping)
            for name, mapping in self.of_encoder.items()
            for one in read_from
            if node_name(name, encoder=one) not in lacking
        ]
        options = dict(self.options)
        return dg.asset(
            key=key,
            io_manager_key="artifacts",
            code_version=CODE_VERSIONS[self.asset],
            automation_condition=condition,
            check_specs=checks.check_specs(self.asset, key, options.get("partitions_def")),
            tags={"tsds/role": "result" if self.asset in RESULTS else "intermediate"},
            deps=[*options.pop("deps", ()), *mapped],
            **options,
        )(_reporting(self.body))


def pipeline_asset(
    of_encoder: Mapping[str, dg.PartitionMapping | None] | Sequence[str] = (), **options: Any
) -> Callable[[Callable], PipelineAsset]:
    """Makes a :class:`PipelineAsset` of a body; names alone in ``of_encoder`` have the usual mapping of partitions."""
    named = dict(of_encoder) if isinstance(of_encoder, Mapping) else dict.fromkeys(of_encoder)
    return lambda body: PipelineAsset(body, named, options)


class FailedCheckError(TsdsError):
    """What was made fails a blocking check; ``results`` are those of all its checks."""

    def __init__(self, message: str, results: Sequence[dg.AssetCheckResult]):
        super().__init__(message)
        self.results = results


def _reporting(body: Callable) -> Callable:
    """``body``, whose check results Dagster hears of also where nothing is stored because of them."""

    @functools.wraps(body)
    def reporting(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[Any]:
        try:
            yield body(context, **inputs)
        except FailedCheckError as error:
            yield from error.results
            raise

    return reporting


@dataclass(frozen=True)
class Stage:
    """One asset partition while it is being made."""

    node: str
    observed: Observed
    started: float
    reasons: tuple[str, ...]
    """Why it is made again, in plain words."""

    @classmethod
    @contextmanager
    def of(cls, context: dg.AssetExecutionContext, project: ProjectResource) -> Iterator["Stage"]:
        """The stage of the partition that ``context`` runs; what fails inside is noted for `tsds status`."""
        asset = context.asset_key.to_user_string()
        node = f"{asset}|{context.partition_key}" if context.has_partition_key else asset
        observed = project.observe()
        # Partitions can be added in the UI too, where nothing checks them.
        for kind, key in _keys(context):
            observed.require(kind, key)
        with cls.of_node(node, observed, context) as stage:
            yield stage

    @classmethod
    @contextmanager
    def of_node(cls, node: str, observed: Observed, context: dg.AssetExecutionContext) -> Iterator["Stage"]:
        """The stage of ``node``, one of several that ``context`` runs."""
        started = time.perf_counter()
        forget_peak()
        base, versions = observed.project.storage, current_versions([node], observed)
        before = node_status(node, observed, versions)
        begin_attempt(node_path(base, node), input_versions(node, observed, versions))
        try:
            why = ("tried again after a failure",) if before.state == FAILED else before.reasons
            yield cls(node, observed, started, why or (before.state,))
        except Exception as error:
            record_failure(node_path(base, node), error)
            raise
        except DagsterExecutionInterruptedError:
            # Somebody stopped this run; one who stops a refresh goes on with another, or lets the automation.
            if REFRESH not in context.run.tags:
                record_failure(
                    node_path(base, node), TsdsError("its run was stopped: `tsds refresh` makes it")
                )
            raise

    @property
    def seconds(self) -> float:
        """How long it took so far."""
        return round(time.perf_counter() - self.started, 3)

    @cached_property
    def project(self) -> Project:
        """The project as the encoder sees it that decides this node, or whose task it is."""
        encoder = split_name(self.node).encoder
        _, task = keys_of(self.node)
        return self.observed.project.with_encoder(encoder if task is None else self.observed.encoder_of(task))

    @property
    def settings(self) -> Settings:
        return self.project.settings

    def read(self, asset: str, *partitions: str) -> dict[str, Artifact]:
        """What is stored for the ``partitions`` of an asset that the encoder decides, or for all of it, by node.

        Raises :class:`TsdsError` for what is not there yet.
        """
        made = {}
        for node in (self.project.of_encoder(asset, key) for key in partitions or ("",)):
            artifact = stored(self.project.storage, node)
            if artifact is None:
                raise not_made(node)
            made[node] = artifact
        return made

    def embedded(
        self,
        role: Role,
        whose: str,
        name: str,
        records: Artifact,
        keep: str,
        log: Any,
        passed: Sequence[dg.AssetCheckResult] = (),
    ) -> dg.MaterializeResult[Draft]:
        """Vectors of ``records``, which the node ``name`` stored, with the encoder for texts of this ``role``.

        The table has the content ids and the column ``keep``; ``whose`` ("source x") is for messages, ``passed`` the
        results of checks that it takes to come this far.
        """
        project = self.project
        warmup = self.read(WARMUP) if project.settings.encoder.warms_up else {}
        encoder = encoder_of(project, role)
        with progress_bar(f"encoding {whose}", log.info) as progress:
            # All but the other fields of the records, which may be most of them.
            texts = records.scan().drop("variants", "record", strict=False).collect()
            workers = workers_of(project.settings.ray)
            made = embed(texts, encoder, project.storage / EMBEDDINGS, whose, progress, workers)
        # How it came about is not stored: after a refresh that was killed it would be other bytes.
        figures = {"encoded": made.encoded, "reused": made.reused, "dimensions": made.vectors.shape[1]}
        return self.result(
            texts.select("content_id", keep),
            {name: records, **warmup},
            payloads={"vectors": made.vectors},
            metadata=figures,
            check_results=[*passed, checks.vector_lengths(made.vectors, self.settings.encoder.normalize)],
        )

    def result(
        self,
        frame: pl.DataFrame | pl.LazyFrame,
        made_from: Mapping[str, Artifact],
        *,
        content: tuple[object, ...] = (),
        version: str | None = None,
        payloads: Mapping[str, Any] | None = None,
        notes: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        preview: pl.DataFrame | pl.LazyFrame | None = None,
        check_results: Sequence[dg.AssetCheckResult] = (),
        reads: TemporaryDirectory | None = None,
    ) -> dg.MaterializeResult[Draft]:
        """The materialisation of this node: an artifact for the I/O manager, metadata for the UI.

        ``made_from`` are the artifacts that were read, by node; ``content`` and ``version`` as in
        ``provenance.header``, ``reads`` as in ``Draft``. A failed check of ``check_results`` is in the notes; a
        blocking one is raised as :class:`FailedCheckError`.
        """
        failed = {one.check_name: one.description for one in check_results if not one.passed}
        blocking = checks.blocking_checks(asset_of(self.node))
        if problems := [problem for name, problem in failed.items() if name in blocking]:
            raise FailedCheckError(f"{describe(self.node)}: {'; '.join(problems)}", check_results)
        said = {**(notes or {}), **({"failed_checks": failed} if failed else {})}
        made = header(self.observed, self.node, made_from, *content, version=version, notes=said)
        draft = Draft(frame, made, payloads or {}, reads)
        return self._materialized(draft, metadata or {}, frame if preview is None else preview, check_results)

    def stand_in(
        self,
        frame: pl.DataFrame | pl.LazyFrame,
        made_from: Mapping[str, Artifact],
        problem: str,
        *,
        check_results: Sequence[dg.AssetCheckResult],
        payloads: Mapping[str, Any] | None = None,
        last: Header | None = None,
        version: str | None = None,
    ) -> dg.MaterializeResult[Draft]:
        """What stays in use instead of content that cannot be made: ``frame``; ``check_results`` say why.

        Where that is what was there before, ``last`` says so: it is still made from what it was made from. ``version``
        is as in :func:`provenance.header`.
        """
        if last is not None:
            made = replace(last, code=CODE_VERSIONS[self.node.partition("|")[0]], problem=problem)
        else:
            content = (frame, *(p for p in (payloads or {}).values() if isinstance(p, np.ndarray)))
            made = header(self.observed, self.node, made_from, *content, version=version, problem=problem)
        draft = Draft(frame, made, payloads or {})
        return self._materialized(draft, {"problem": problem}, frame, check_results)

    def _materialized(
        self,
        draft: Draft,
        metadata: Mapping[str, Any],
        preview: pl.DataFrame | pl.LazyFrame,
        check_results: Sequence[dg.AssetCheckResult],
    ) -> dg.MaterializeResult[Draft]:
        asset, first = asset_of(self.node), draft.frame.lazy().head(1).collect()
        return dg.MaterializeResult(
            value=draft,
            data_version=dg.DataVersion(draft.header.version),
            check_results=check_results,
            metadata={
                "dagster/row_count": draft.rows,
                "dagster/column_schema": column_schema(asset, first),
                "dagster/column_lineage": column_lineage(asset, first, self.project.encoder),
                "made_because": "; ".join(self.reasons),
                "seconds": self.seconds,
                "peak_memory": peak_memory(),
                "preview": preview_table(preview),
                **metadata,
            },
        )


def _keys(context: dg.AssetExecutionContext) -> Iterable[tuple[str, str]]:
    """("source", key) and ("task", key), as far as the asset is partitioned by them."""
    if not context.has_partition_key:
        return ()
    key, definition = context.partition_key, context.assets_def.partitions_def
    if isinstance(key, dg.MultiPartitionKey):
        return key.keys_by_dimension.items()
    return ((definition.name, key),)


def preview_table(frame: pl.DataFrame | pl.LazyFrame) -> dg.TableMetadataValue:
    """The first rows, as text cells that are cut to a readable length."""
    head = frame.lazy().head(PREVIEW_ROWS).collect()
    rows = [{name: _cell(value) for name, value in row.items()} for row in head.to_dicts()]
    columns = [dg.TableColumn(name, "string") for name in head.columns]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], dg.TableSchema(columns))


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return shortened(text, _LONGEST_CELL)
