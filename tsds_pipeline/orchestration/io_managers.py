"""Storage of asset partitions as artifacts: ``storage/<asset>/<source>/<task>.parquet`` (see ``storage``)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

import dagster as dg

from tsds_pipeline.keys import check_key
from tsds_pipeline.materializations import log_materialization
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.storage import SUFFIX, Artifact, Draft, read_artifact, write_artifact


def store(
    storage: Path, node: str, path: Path, draft: Draft, metadata: Mapping[str, Any], run_id: str
) -> None:
    """Write what the run ``run_id`` made for ``node``, and a line of the log with some of its ``metadata``."""
    made = write_artifact(path, draft)
    said = {name: metadata[name] for name in ("seconds", "peak_memory", "made_because")}
    log_materialization(storage, node, made, made.rows, run_id=run_id, **said)


class ArtifactIOManager(dg.UPathIOManager):
    """Writes a :class:`Draft`, reads an :class:`Artifact`; an input annotated ``dict`` is a fan-in by key."""

    extension = SUFFIX

    def __init__(self, base: Path):
        from upath import UPath

        super().__init__(UPath(base))
        self._storage = base

    def get_path_for_partition(self, context: Any, path: Any, partition: str) -> Any:
        # Keys can be added in the UI too, where nothing checks them.
        crossed = isinstance(context.asset_partitions_def, dg.MultiPartitionsDefinition)
        for key in partition.split("/") if crossed else [partition]:
            check_key("partition", key)
        return super().get_path_for_partition(context, path, partition)

    def dump_to_path(self, context: dg.OutputContext, obj: Draft, path: Any) -> None:
        asset = context.asset_key.to_user_string()
        node = f"{asset}|{context.asset_partition_key}" if context.has_asset_partitions else asset
        metadata = {name: one.value for name, one in context.output_metadata.items()}
        store(self._storage, node, Path(str(path)), obj, metadata, context.run_id)

    def load_from_path(self, context: dg.InputContext, path: Any) -> Artifact:
        return read_artifact(Path(str(path)))

    def load_partitions(self, context: dg.InputContext) -> Any:
        found = super().load_partitions(context)
        wants_dict = get_origin(context.dagster_type.typing_type) is dict
        if wants_dict and not isinstance(found, dict):
            return {context.asset_partition_keys[0]: found}
        return found


class ProjectIOManager(dg.ConfigurableIOManagerFactory):
    """The artifacts of the project that ``project`` names, in its storage/ folder."""

    project: dg.ResourceDependency[ProjectResource]

    def create_io_manager(self, context: Any) -> ArtifactIOManager:
        return ArtifactIOManager(self.project.load().storage)
