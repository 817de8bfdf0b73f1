"""What the pipeline stored and no source or task of the project needs any more."""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tsds_pipeline.damage import ASIDE
from tsds_pipeline.discovery import COPIES
from tsds_pipeline.encoders import Role
from tsds_pipeline.encoders.cache import FOLDER as EMBEDDINGS
from tsds_pipeline.encoders.cache import encoder_folder
from tsds_pipeline.encoders.warmup import FOLDER as WARMUPS
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import BY_MIXTURE, BY_SOURCE, OF_ENCODER, OF_POOL, WARMUP, Observed, reported, stored
from tsds_pipeline.node_names import DEFAULT_ENCODER
from tsds_pipeline.node_names import FOLDER as ENCODERS
from tsds_pipeline.project import Project
from tsds_pipeline.report.pages import calibration_path, page_path, version_of
from tsds_pipeline.sizes import size_of
from tsds_pipeline.sql.embedding_statistics import FOLDER as EMBEDDING_STATISTICS
from tsds_pipeline.sql.relations import MATERIALIZATIONS
from tsds_pipeline.stages.gradient_warmup import encoder_of, stored_warmup
from tsds_pipeline.stages.history import FOLDER as HISTORY
from tsds_pipeline.stages.kernel_sums import FOLDER as KERNEL_SUMS
from tsds_pipeline.stages.kernel_sums import sums_folder
from tsds_pipeline.stages.leaks import FOLDER as LEAKS
from tsds_pipeline.storage import PAYLOADS, SUFFIX, find_artifact

_OF_SOURCES = (*BY_SOURCE, "quarantine", "excluded", EMBEDDING_STATISTICS)
_OF_TASKS = (
    "query_examples",
    "query_embeddings",
    "selection_probabilities",
    "sampled_subset",
    "selection_report",
    "selection_comparison",
    LEAKS,
    HISTORY,
)
_ABANDONED_SECONDS = 3600.0
_LONGEST_EPOCH_SECONDS = 86400.0


@dataclass(frozen=True)
class Garbage:
    """A file or folder that nothing needs."""

    path: Path
    reason: str

    @property
    def size(self) -> int:
        """In bytes."""
        return size_of(self.path)

    def remove(self) -> None:
        """Delete it; one that is gone already is no error."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def garbage(observed: Observed, *, exports: bool = False, embeddings: bool = False) -> list[Garbage]:
    """What belongs to sources and tasks that are gone, and what killed processes left half-written.

    With ``exports`` also the exports of tasks that are gone; with ``embeddings`` also the vectors of encoders
    other than the present one, which would have to be encoded again, and their adapters. What was counted
    (``redraws``) is kept. Raises :class:`TsdsError` where there is no source or no task at all: a folder may be
    unmounted.
    """
    for name, keys in (("sources", observed.sources), ("tasks", observed.tasks)):
        if not keys:
            raise TsdsError(
                f"{observed.project.root}: there are no {name} at all, so nothing is deleted: is {name}/ where it "
                "should be? To start afresh, delete storage/ yourself"
            )
    storage = observed.project.storage
    neighbors = storage / "query_neighbors"
    by_source = [*(storage / name for name in _OF_SOURCES), neighbors]
    encoders = storage / ENCODERS
    by_source += [encoders / name / asset for name in observed.encoders for asset in OF_ENCODER]
    by_task = [*(storage / name for name in _OF_TASKS), *(neighbors / source for source in observed.sources)]
    found = [one for folder in by_source for one in _unknown(folder, observed.sources, "source")]
    found += [one for folder in by_task for one in _unknown(folder, observed.tasks, "task")]
    found += _unknown(encoders, observed.encoders, "task with the encoder")
    found += [one for name in BY_MIXTURE for one in _unknown(storage / name, observed.mixtures, "mixture")]
    found += _pages(observed)
    found += left_behind([storage, observed.project.exports, observed.project.reports])
    found += _stale_payloads(storage)
    found += _copies(storage / COPIES, observed)
    found += _kernel_sums(storage, observed)
    found += _models(storage, observed)
    if exports:
        exported = _unknown(
            observed.project.exports, (*observed.tasks, *observed.mixtures), "task or mixture"
        )
        found += [one for one in exported if (one.path / "manifest.json").is_file()]
    if embeddings:
        projects = [observed.project.with_encoder(name) for name in observed.encoders]
        found += _other_encoders(storage / EMBEDDINGS, projects)
        found += _other_warmups(storage / WARMUPS, projects)
    return found


def old_records(project: Project, before: float) -> list[Garbage]:
    """What was put on record before the time ``before``: months of the log of results, versions of samples.

    No result needs them; SQL models tell of them. The last month, and of each task's versions the last one, stay.
    """
    log = _entries(project.storage / MATERIALIZATIONS)[:-1]
    versions = [_entries(folder)[:-1] for folder in _entries(project.storage / HISTORY) if folder.is_dir()]
    found = []
    for path in (path for paths in (log, *versions) for path in paths):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                found.append(Garbage(path, "a record of what is long ago"))
    return found


def left_behind(folders: Iterable[Path]) -> list[Garbage]:
    """What killed processes left in ``folders``, and what was found damaged there."""
    folders = list(folders)
    damaged = [path for folder in folders for path in sorted(folder.rglob(f"*{ASIDE}"))]
    return [*_abandoned(folders), *(Garbage(path, "it was damaged") for path in damaged)]


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _unknown(folder: Path, known: Iterable[str], kind: str) -> Iterator[Garbage]:
    """The entries of ``folder`` whose key, which has no dot, is not ``known``."""
    keys = set(known)
    for path in _entries(folder):
        key = path.name.partition(".")[0]
        if key and key not in keys:
            yield Garbage(path, f"there is no {kind} {key}")


def _pages(observed: Observed) -> Iterator[Garbage]:
    """Pages of tasks that are gone or want none; what else somebody put beside them is theirs."""
    silent = {task for task in observed.tasks if not reported(observed, task)}
    for path in _entries(observed.project.reports):
        task = path.name.partition(".")[0]
        if path == calibration_path(observed.project) or path.suffix != ".html" or version_of(path) is None:
            continue
        if task not in observed.tasks:
            yield Garbage(path, f"there is no task {task}")
        elif task in silent and path == page_path(observed.project, task):
            yield Garbage(path, f"task {task} has report = false")


def _copies(folder: Path, observed: Observed) -> Iterator[Garbage]:
    """Copies of remote files that nothing names any more; of a server that does not answer all are kept."""
    scan = observed.scan
    inputs = [one for kind in (scan.sources, scan.tasks, scan.tests, scan.excluded) for one in kind.values()]
    if any(files.problem for files in inputs):
        return
    named = {copy.parent for files in inputs for copy in files.remote}
    for path in _entries(folder):
        if path not in named:
            yield Garbage(path, "a copy of a remote file that nothing names any more")


def _kernel_sums(storage: Path, observed: Observed) -> Iterator[Garbage]:
    """Sums of embeddings or for a radius that no encoder in use has."""
    folder, present, versions = storage / KERNEL_SUMS, set(), set()
    for seen in map(observed.project.with_encoder, observed.encoders):
        present.add(sums_folder(folder, seen.settings.pool.kernel_radius))
        made = [
            stored(storage, seen.of_encoder("candidate_embeddings", source)) for source in observed.sources
        ]
        versions |= {artifact.version for artifact in made if artifact}
    for path in _entries(folder):
        if path not in present:
            yield Garbage(path, "sums for another kernel_radius, or of an earlier version")
        for sums in _entries(path) if path in present else ():
            if sums.suffix == ".npz" and not set(sums.stem.split("-")) <= versions:
                yield Garbage(sums, "sums of embeddings that were replaced")


def _models(storage: Path, observed: Observed) -> Iterator[Garbage]:
    """The results of SQL models that are gone; while a file cannot be used, that may be one of them."""
    warmups = {WARMUP} if observed.warms_up(DEFAULT_ENCODER) else set()
    known = {*OF_POOL, *warmups, *observed.models}
    for path in () if observed.sql.problems else _entries(storage):
        name = path.name.partition(".")[0]
        if path.name in (f"{name}.parquet", f"{name}.attempt.json") and name not in known:
            what = "encoder that trains adapters" if name == WARMUP else f"SQL model {name}"
            yield Garbage(path, f"there is no {what}")


def _abandoned(folders: Iterable[Path]) -> Iterator[Garbage]:
    before = time.time() - _ABANDONED_SECONDS
    for folder in folders:
        for path in sorted([*folder.rglob(".*.tmp"), *folder.rglob(".*.tmp.wal")]):  # DuckDB's own, beside
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    yield Garbage(path, "its writer was killed")


def _stale_payloads(storage: Path) -> Iterator[Garbage]:
    """What the table beside it does not name: it was killed between writing that and removing this.

    What was written lately may be for a table that is about to be.
    """
    before = time.time() - _ABANDONED_SECONDS
    for path in sorted(path for suffix in PAYLOADS for path in storage.rglob(f"*-*{suffix}")):
        artifact = find_artifact(path.with_name(path.name.partition(".")[0] + SUFFIX))
        with suppress(FileNotFoundError):
            if artifact is not None and path not in artifact.files and path.stat().st_mtime < before:
                yield Garbage(path, "of a result that was replaced")


def _other_encoders(folder: Path, projects: Iterable[Project]) -> Iterator[Garbage]:
    used = {
        encoder_folder(folder, encoder_of(project, role).fingerprint)
        for project in projects
        for role in get_args(Role)
    }
    for path in _entries(folder):
        if path not in used:
            yield Garbage(path, "vectors of another encoder")


def _other_warmups(folder: Path, projects: Iterable[Project]) -> Iterator[Garbage]:
    made = filter(None, map(stored_warmup, projects))
    used = {name.partition("/")[0] for artifact in made for name in artifact.frame["checkpoint"]}
    # Of one that is under way no result tells yet. It writes there after each epoch.
    before = time.time() - _LONGEST_EPOCH_SECONDS
    for path in _entries(folder):
        if path.name not in used and path.stat().st_mtime < before:
            yield Garbage(path, "adapters of another warm-up, or of one that did not end")
