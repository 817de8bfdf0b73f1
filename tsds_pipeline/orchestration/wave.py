"""Many partitions in one Dagster run.

What Dagster does around a run of one partition costs a quarter of a second, many times what most partitions take. A
wave is a single run: it makes one partition after the other and reports of each what its own run would report, the
materialization with its provenance and the checks.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, get_origin

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.partitions.utils.multi import get_tags_from_multi_partition_key
from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData
from dagster._core.log_manager import DagsterLogManager

from tsds_pipeline.assets import candidates, mixtures, reports, tasks
from tsds_pipeline.assets.checks import blocking_checks
from tsds_pipeline.assets.stage import FailedCheckError
from tsds_pipeline.graph import (
    BY_SOURCE,
    CODE_VERSIONS,
    Observed,
    describe,
    is_model,
    node_path,
    not_made,
    stored,
    upstream,
)
from tsds_pipeline.logs import extra, is_json, json_logger
from tsds_pipeline.node_names import asset_of
from tsds_pipeline.orchestration.io_managers import store
from tsds_pipeline.orchestration.partitions import asset_key, node_partition
from tsds_pipeline.orchestration.resources import ProjectResource, observed_once
from tsds_pipeline.project import Project
from tsds_pipeline.storage import Artifact

_BODIES = {
    made.asset: made.body for module in (candidates, tasks, reports, mixtures) for made in module.ASSETS
}


def are_many(nodes: Iterable[str], project: Project) -> bool:
    """Whether a run for each of the ``nodes`` that are due would cost too much; each of a few has its own in the UI.

    The SQL models share one in any case.
    """
    return sum(not is_model(node) for node in nodes) > project.settings.dagster.one_run_above


@dataclass(frozen=True)
class _Context:
    """What the body of an asset asks its context for."""

    asset_key: dg.AssetKey
    partition_key: str | dg.MultiPartitionKey | None
    assets_def: dg.AssetsDefinition
    run: dg.DagsterRun
    log: Any

    @property
    def has_partition_key(self) -> bool:
        return self.partition_key is not None


class Wave:
    """A Dagster run in which partitions are made one after the other; see :func:`wave`."""

    def __init__(
        self, instance: dg.DagsterInstance, run: dg.DagsterRun, assets: AssetGraph, observed: Observed
    ):
        self._instance, self._run, self._assets, self._observed = instance, run, assets, observed
        self._project = ProjectResource(root=str(observed.project.root))
        printing = [json_logger("dagster", "INFO")] if is_json() else []
        self._log = DagsterLogManager.create(printing, instance=instance, dagster_run=run)
        self.failed = 0
        """How many partitions could not be made."""

    def make(self, node: str) -> None:
        """Make ``node``, one of a partition or of the pool, and report it.

        Raises what its asset raises, which has noted it for `tsds status` (``assets.stage``).
        """
        key, partition = asset_key(node), node.partition("|")[2]
        of = node_partition(partition) if partition else None
        asset = self._assets.get(key).assets_def
        log = logging.LoggerAdapter(self._log, extra(node=node))
        context = _Context(key, of, asset, self._run, log)
        try:
            with observed_once(self._observed):
                given, read = self._inputs(asset, node)
                result = _BODIES[asset_of(node)](context, self._project, **given)
                storage = self._observed.project.storage
                path = node_path(storage, node)
                store(storage, node, path, result.value, result.metadata, self._run.run_id)
        except Exception as error:
            self.failed += 1
            self._report_failure(node, of, error)
            raise
        made_from = read | result.value.header.inputs
        metadata = {**result.metadata, "path": dg.MetadataValue.path(str(path))}
        self._report_materialization(node, of, result.data_version.value, made_from, metadata)
        self._report_checks(key, of, result.check_results)

    def _inputs(self, asset: dg.AssetsDefinition, node: str) -> tuple[dict[str, Any], dict[str, str]]:
        """What Dagster would read for the body, an artifact or those of all sources; and the versions, by node."""
        given, versions = {}, {}
        for name, read in asset.op.input_dict.items():
            if not read.dagster_type.is_nothing:
                of_all = get_origin(read.dagster_type.typing_type) is dict
                found = {one: self._stored(one) for one in self._nodes(name, of_all, node)}
                versions |= {one: artifact.version for one, artifact in found.items()}
                by_partition = {one.partition("|")[2]: artifact for one, artifact in found.items()}
                given[name] = by_partition if of_all else next(iter(found.values()))
        return given, versions

    def _nodes(self, name: str, of_all_sources: bool, node: str) -> list[str]:
        """The nodes of the asset ``name`` that the body of ``node`` reads."""
        partition = node.partition("|")[2]
        if not of_all_sources:
            return [f"{name}|{partition if name in BY_SOURCE else partition.rpartition('|')[2]}"]
        ending = "" if name in BY_SOURCE else f"|{partition}"
        return [f"{name}|{source}{ending}" for source in self._observed.sources]

    def _stored(self, node: str) -> Artifact:
        found = stored(self._observed.project.storage, node)
        if found is None:
            raise not_made(node)
        return found

    def _report_materialization(
        self,
        node: str,
        partition: Any,
        version: str,
        made_from: Mapping[str, str],
        metadata: Mapping[str, Any],
    ) -> None:
        key, crossed = asset_key(node), isinstance(partition, dg.MultiPartitionKey)
        tags = {
            CODE_VERSION_TAG: CODE_VERSIONS[asset_of(node)],
            DATA_VERSION_TAG: version,
            DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
            **self._provenance(node, made_from),
            **(get_tags_from_multi_partition_key(partition) if crossed else {}),
        }
        made = dg.AssetMaterialization(key, metadata=metadata, partition=partition, tags=tags)
        self.report(dg.DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(made))

    def _provenance(self, node: str, made_from: Mapping[str, str]) -> dict[str, str]:
        """Which versions of the assets upstream ``node`` was made from: of inputs those now, and ``made_from``.

        Of partitions Dagster looks for events after the one that is named: the newest, as all upstream is settled.
        """
        newest = self._instance.event_log_storage.get_maximum_record_id()
        known = self._observed.versions
        inputs = {name: known[name] for name in upstream(node, self._observed) if name in known}
        versions: dict[dg.AssetKey, list[str]] = {}
        for name, version in sorted((inputs | dict(made_from)).items()):
            versions.setdefault(asset_key(name), []).append(version)
        tags = {}
        for parent in self._assets.get(asset_key(node)).parent_keys:
            found = versions.get(parent)
            if found and self._assets.get(parent).is_partitioned:
                version = sha256("".join(found).encode()).hexdigest()  # as Dagster has it
            else:
                version = found[0] if found else DEFAULT_DATA_VERSION.value
            tags[get_input_data_version_tag(parent)] = version
            tags[get_input_event_pointer_tag(parent)] = str(newest) if newest else NULL_EVENT_POINTER
        return tags

    def _report_checks(
        self, key: dg.AssetKey, partition: Any, results: Sequence[dg.AssetCheckResult]
    ) -> None:
        blocking = blocking_checks(asset_of(key.to_user_string()))
        subset = partition and self._assets.get(key).partitions_def.subset_with_partition_keys([partition])
        for result in results:
            planned = AssetCheckEvaluationPlanned(
                asset_key=key, check_name=result.check_name, partitions_subset=subset or None
            )
            self.report(dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, planned)
            evaluation = dg.AssetCheckEvaluation(
                asset_key=key,
                check_name=result.check_name,
                passed=result.passed,
                metadata=result.metadata,
                severity=result.severity,
                description=result.description,
                blocking=result.check_name in blocking,
                partition=partition,
            )
            self.report(dg.DagsterEventType.ASSET_CHECK_EVALUATION, evaluation)

    def _report_failure(self, node: str, partition: Any, error: Exception) -> None:
        """A partition that was planned in a run that failed counts as failed."""
        key = asset_key(node)
        self._log.error(f"{describe(node)}: {error}", extra=extra(node=node))
        planned = AssetMaterializationPlannedData(key, partition)
        self.report(dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, planned)
        if isinstance(error, FailedCheckError):
            self._report_checks(key, partition, error.results)

    def report(self, kind: dg.DagsterEventType, data: Any = None) -> None:
        """An event of this run."""
        event = dg.DagsterEvent(kind.value, job_name=self._run.job_name, event_specific_data=data)
        self._instance.report_dagster_event(event, self._run.run_id)


@contextmanager
def wave(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun | dg.JobDefinition,
    assets: AssetGraph,
    observed: Observed,
    tags: Mapping[str, str],
) -> Iterator[Wave]:
    """A wave in ``run``, whose end is the caller's to tell, or in a new run of a job, under way while the block is.

    A new one has ``tags``, and has failed when a partition of ``assets`` has, or when an error ends the block.
    """
    if isinstance(run, dg.DagsterRun):
        yield Wave(instance, run.with_tags({**run.tags, **tags}), assets, observed)
        return
    run = instance.create_run_for_job(run, tags=tags)
    made = Wave(instance, run, assets, observed)
    made.report(dg.DagsterEventType.RUN_START)
    try:
        yield made
    except (KeyboardInterrupt, GeneratorExit):
        instance.report_run_canceled(run, "the refresh was stopped")
        raise
    except BaseException as error:
        instance.report_run_failed(run, f"{type(error).__name__}: {error}")
        raise
    if made.failed:
        instance.report_run_failed(run, f"{made.failed} results could not be made; the log names each")
    else:
        made.report(dg.DagsterEventType.RUN_SUCCESS)
