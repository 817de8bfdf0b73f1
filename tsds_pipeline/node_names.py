"""The names of nodes: "asset" or "asset|partition", as in "kde_densities|alpaca" and "query_neighbors|alpaca|bbh".

What a further encoder decides has a node of its own for it, under "encoders/NAME/": the default one's names are plain.
The same names are those of Dagster's assets and of the folders in storage/.
"""

from typing import NamedTuple

DEFAULT_ENCODER = "default"
"""The encoder of the table [encoder]; [encoders.NAME] describe further ones."""
FOLDER = "encoders"


class NodeName(NamedTuple):
    """The parts of a node's name."""

    encoder: str
    """DEFAULT_ENCODER also where no encoder decides anything."""
    asset: str
    partition: str
    """"source|task" of what has both, empty where there is none."""


def node_name(asset: str, partition: str = "", encoder: str = DEFAULT_ENCODER) -> str:
    """The name with these parts."""
    prefix = "" if encoder == DEFAULT_ENCODER else f"{FOLDER}/{encoder}/"
    return prefix + (f"{asset}|{partition}" if partition else asset)


def split_name(node: str) -> NodeName:
    """The parts of the name ``node``."""
    full, _, partition = node.partition("|")
    folder, _, asset = full.rpartition("/")
    return NodeName(folder.removeprefix(f"{FOLDER}/") or DEFAULT_ENCODER, asset, partition)


def asset_of(node: str) -> str:
    """The asset of ``node``, the same for every encoder."""
    return split_name(node).asset
