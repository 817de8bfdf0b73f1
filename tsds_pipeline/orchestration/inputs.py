"""What the pipeline observes, not makes: the user's files and resolved settings, as external assets.

Their versions are reported to Dagster only when they changed, so that nothing hears of a mere look.
"""

from collections.abc import Iterable, Sequence

import dagster as dg

from tsds_pipeline.graph import (
    INPUT_ASSETS,
    INPUTS_BY_MIXTURE,
    INPUTS_BY_SOURCE,
    INPUTS_BY_TASK,
    INPUTS_OF_ENCODER,
    Observed,
)
from tsds_pipeline.node_names import DEFAULT_ENCODER, asset_of, node_name
from tsds_pipeline.orchestration.partitions import MIXTURES, SOURCES, TASKS, asset_key

DATA_VERSION = "dagster/data_version"
_DESCRIPTIONS = {
    "source_files": "The files of a source, and the settings that say how its records are read.",
    "query_files": "The query files of a task, and the settings that say how its records are read.",
    "solver_settings": "What decides a task's probabilities: [selection] and [tasks.X] in tsds.toml.",
    "draw_settings": "What decides which examples are drawn for a task: size, seed, epochs.",
    "mixture_settings": "What decides a mixture beside its tasks' probabilities: [mixtures.X] in tsds.toml.",
    "source_registry": "Which sources there are.",
    "encoder_settings": "What decides a text's vector: [encoder] or [encoders.X] in tsds.toml, and the model itself.",
    "index_settings": "Which kind of search index is built: [pool] index, expected_queries.",
    "pool_settings": "What decides the densities: kernel_radius in [pool] or [encoders.X].",
}


def input_specs(encoders: Sequence[str]) -> list[dg.AssetSpec]:
    """The external assets; what describes an encoder is there for each of ``encoders``."""
    partitions = dict.fromkeys(INPUTS_BY_SOURCE, SOURCES) | dict.fromkeys(INPUTS_BY_TASK, TASKS)
    partitions |= dict.fromkeys(INPUTS_BY_MIXTURE, MIXTURES)
    nodes = [*INPUT_ASSETS]
    further = [name for name in encoders if name != DEFAULT_ENCODER]
    nodes += [node_name(asset, encoder=name) for name in further for asset in INPUTS_OF_ENCODER]
    return [
        dg.AssetSpec(
            asset_key(node),
            description=_DESCRIPTIONS[asset_of(node)],
            group_name="inputs",
            partitions_def=partitions.get(node),
            kinds={"file" if node.endswith("_files") or node == "source_registry" else "toml"},
            tags={"tsds/role": "input"},
        )
        for node in nodes
    ]


def changed_inputs(instance: dg.DagsterInstance, observed: Observed) -> list[dg.AssetMaterialization]:
    """Events for the inputs whose version is not the one that Dagster heard of last."""
    names = dict.fromkeys(node.partition("|")[0] for node in observed.versions)
    known = {node: version for name in names for node, version in _known_versions(instance, name)}
    return [
        dg.AssetMaterialization(
            asset_key(node), partition=node.partition("|")[2] or None, tags={DATA_VERSION: version}
        )
        for node, version in observed.versions.items()
        if known.get(node) != version
    ]


def partition_requests(
    instance: dg.DagsterInstance, observed: Observed
) -> list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
    """What makes Dagster's partitions those of the project folder."""
    requests = []
    for definition, keys in (
        (SOURCES, observed.sources),
        (TASKS, observed.tasks),
        (MIXTURES, observed.mixtures),
    ):
        known = set(instance.get_dynamic_partitions(definition.name))
        if added := [key for key in keys if key not in known]:
            requests.append(definition.build_add_request(added))
        if removed := sorted(known - set(keys)):
            requests.append(definition.build_delete_request(removed))
    return requests


def apply_requests(
    instance: dg.DagsterInstance,
    requests: Iterable[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest],
) -> None:
    """Do at once what the daemon does with the ``requests`` of a sensor."""
    for request in requests:
        if isinstance(request, dg.AddDynamicPartitionsRequest):
            instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        else:
            for key in request.partition_keys:
                instance.delete_dynamic_partition(request.partitions_def_name, key)


def register(instance: dg.DagsterInstance, observed: Observed) -> None:
    """Make Dagster's partitions and input versions those of the project folder."""
    apply_requests(instance, partition_requests(instance, observed))
    for event in changed_inputs(instance, observed):
        instance.report_runless_asset_event(event)


def _known_versions(instance: dg.DagsterInstance, name: str) -> Iterable[tuple[str, str | None]]:
    key = asset_key(name)
    if name in (*INPUTS_BY_SOURCE, *INPUTS_BY_TASK, *INPUTS_BY_MIXTURE):
        tags = instance.event_log_storage.get_latest_tags_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION]
        )
        yield from ((f"{name}|{partition}", found.get(DATA_VERSION)) for partition, found in tags.items())
    else:
        event = instance.get_latest_materialization_event(key)
        if event is not None and event.asset_materialization is not None:
            yield name, (event.asset_materialization.tags or {}).get(DATA_VERSION)
