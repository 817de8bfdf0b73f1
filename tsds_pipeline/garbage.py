"""What the pipeline stored and no source or task of the project needs any more."""

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tsds_pipeline.encoders.cache import FOLDER as EMBEDDINGS
from tsds_pipeline.encoders.cache import encoder_folder
from tsds_pipeline.graph import BY_SOURCE, Observed
from tsds_pipeline.redraws import FOLDER as REDRAWS

_OF_SOURCES = (*BY_SOURCE, "quarantine")
_OF_TASKS = ("query_examples", "query_embeddings", "selection_probabilities", "sampled_subset", REDRAWS)
_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class Garbage:
    """A file or folder that nothing needs."""

    path: Path
    reason: str

    @property
    def size(self) -> int:
        """In bytes."""
        files = [self.path] if self.path.is_file() else self.path.rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file())

    def remove(self) -> None:
        """Delete it; one that is gone already is no error."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def garbage(observed: Observed, *, exports: bool = False, embeddings: bool = False) -> list[Garbage]:
    """What belongs to sources and tasks that are gone, and what killed processes left half-written.

    With ``exports`` also the exports of tasks that are gone; with ``embeddings`` also the vectors of encoders
    other than the present one, which would have to be encoded again.
    """
    storage = observed.project.storage
    found = [*_of_keys(storage, _OF_SOURCES, observed.sources, "source")]
    found += _of_keys(storage, _OF_TASKS, observed.tasks, "task")
    found += _neighbors(storage / "query_neighbors", observed)
    found += _abandoned([storage, observed.project.exports])
    if exports:
        found += _of_keys(observed.project.root, ["exports"], observed.tasks, "task")
    if embeddings:
        found += _other_encoders(storage / EMBEDDINGS, observed.settings["encoder_settings"])
    return found


def _of_keys(base: Path, folders: Iterable[str], known: Iterable[str], kind: str) -> Iterator[Garbage]:
    for folder in folders:
        yield from _unknown(base / folder, known, kind)


def _unknown(folder: Path, known: Iterable[str], kind: str) -> Iterator[Garbage]:
    """The entries of ``folder`` whose key, which has no dot, is not ``known``."""
    keys = set(known)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        key = path.name.partition(".")[0]
        if key and key not in keys:
            yield Garbage(path, f"there is no {kind} {key}")


def _neighbors(folder: Path, observed: Observed) -> Iterator[Garbage]:
    yield from _unknown(folder, observed.sources, "source")
    for source in observed.sources:
        yield from _unknown(folder / source, observed.tasks, "task")


def _abandoned(folders: Iterable[Path]) -> Iterator[Garbage]:
    before = time.time() - _ABANDONED_SECONDS
    for folder in folders:
        for path in sorted(folder.rglob(".*.tmp")):
            if path.stat().st_mtime < before:
                yield Garbage(path, "its writer was killed")


def _other_encoders(folder: Path, fingerprint: str) -> Iterator[Garbage]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path != encoder_folder(folder, fingerprint):
            yield Garbage(path, "vectors of another encoder")
