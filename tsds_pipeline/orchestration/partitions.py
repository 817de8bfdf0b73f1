"""The partitions: by source, by task, by both, and by mixture. Keys are added and removed by ``inputs``."""

import dagster as dg

SOURCES = dg.DynamicPartitionsDefinition(name="source")
TASKS = dg.DynamicPartitionsDefinition(name="task")
MIXTURES = dg.DynamicPartitionsDefinition(name="mixture")
SOURCES_BY_TASK = dg.MultiPartitionsDefinition({"source": SOURCES, "task": TASKS})


def node_partition(key: str) -> str | dg.MultiPartitionKey:
    """Dagster's key for the partition "a" or "source|task" of a node."""
    source, bar, task = key.partition("|")
    return dg.MultiPartitionKey({"source": source, "task": task}) if bar else key


def asset_key(node: str) -> dg.AssetKey:
    """Dagster's key for the asset of ``node``."""
    return dg.AssetKey(node.partition("|")[0].split("/"))
