"""Results whose files are not what was written: found by their checksums, and set aside to be made again."""

from collections.abc import Iterable
from pathlib import Path

from tsds_pipeline.file_hashes import FileHashes, UnsettledFileError
from tsds_pipeline.graph import node_path
from tsds_pipeline.seals import sealed_digest
from tsds_pipeline.storage import damage_of

HASHES = "result-hashes.json"
ASIDE = ".damaged"


def find_damage(storage: Path, nodes: Iterable[str]) -> dict[str, str]:
    """What is wrong with the stored results of ``nodes``, by node.

    A file that has its size, time and inode still is taken for what it was, for as long as HASHES is there.
    """
    found = {}
    with FileHashes(storage / HASHES, sealed_digest, all_at_once=False) as hashes:
        for node in nodes:
            try:
                if problem := damage_of(node_path(storage, node), hashes.digest):
                    found[node] = problem
            except UnsettledFileError:
                continue  # it is being written
    return found


def set_aside(storage: Path, damage: dict[str, str]) -> None:
    """Rename the tables of damaged results, so that they count as missing and are made again."""
    for node in damage:
        put_aside(node_path(storage, node))


def put_aside(path: Path) -> None:
    """Rename the file ``path``, which is damaged; `tsds gc` deletes it."""
    path.replace(path.with_name(path.name + ASIDE))
