"""The one scan of a project folder: its sources and tasks, their files and the versions of their contents.

Dagster, `tsds refresh` and `tsds status` all use it. Where files may be is in ``places``,
how they are hashed without reading them again in ``file_hashes``, remote ones in ``remote_files``; what they hold
is read by ``corpus``.

What is wrong with one source or task is its own ``problem`` and stops nothing else. What belongs to none of
them is in ``Scan.problems``.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.corpus.vector_files import ids_file
from tsds_pipeline.errors import TsdsError, printable
from tsds_pipeline.file_hashes import FileHashes, UnsettledFileError
from tsds_pipeline.file_names import FORMAT_RULE, FORMATS
from tsds_pipeline.places import (
    Place,
    find_excluded,
    find_places,
    find_tests,
    find_vectors,
    is_broken_link,
    shown,
)
from tsds_pipeline.project import SETTINGS_FILE, Project
from tsds_pipeline.remote_files import RemoteFile, fetch
from tsds_pipeline.settings import Settings, SourceSettings, TaskSettings
from tsds_pipeline.settings_errors import nearest

COPIES = "remote"
"""The folder in storage/ for copies of remote files."""


@dataclass(frozen=True)
class InputFiles:
    """The files of one source, or the query or test files of one task."""

    key: str
    paths: tuple[Path, ...]
    """Absolute and sorted, then the copies of ``remote``; empty when there is a problem."""
    version: str
    """Hash (32 hex characters) of the names and bytes of the files, those of vectors too, or of the problem.

    Of a remote file it is the address and what identifies the content (``RemoteFile.identity``).
    """
    problem: str | None = None
    """Why the files cannot be used and what to do about it, in one line."""
    vectors: tuple[Path, ...] = ()
    """Absolute and sorted: the files with the vectors of the records, where they are beside them."""
    remote: Mapping[Path, RemoteFile] = field(default_factory=dict)
    """The remote files by the paths of their copies, which are there only after ``require``."""
    names: Mapping[Path, str] = field(default_factory=dict)
    """What tables and messages call each file: the same wherever the project is."""

    def require(self) -> tuple[Path, ...]:
        """``paths``, all of them there; what is in the way of that as a :class:`TsdsError`."""
        if self.problem:
            raise TsdsError(self.problem)
        for copy, file in self.remote.items():
            fetch(file, copy)
        return self.paths


@dataclass(frozen=True)
class Scan:
    """What a project folder holds at one moment. Keys are sorted."""

    sources: dict[str, InputFiles]
    tasks: dict[str, InputFiles]
    tests: dict[str, InputFiles]
    """Of the tasks that have a test set."""
    problems: tuple[str, ...]
    """What is wrong and belongs to no single source or task, a line each; it stops nothing."""
    excluded: dict[str, InputFiles] = field(default_factory=dict)
    """The test sets of [exclude.X], which no source may hold."""
    hints: tuple[str, ...] = ()
    """What is not wrong but worth saying, a line each."""

    def all_problems(self) -> tuple[str, ...]:
        """``problems``, then those of single sources and tasks."""
        inputs = [*self.sources.values(), *self.tasks.values(), *self.tests.values(), *self.excluded.values()]
        own = (files.problem for files in inputs if files.problem)
        return tuple(dict.fromkeys([*self.problems, *own]))


def scan(project: Project) -> Scan:
    """Look at the whole folder of ``project``; files that did not change are not read, remote ones never.

    Raises :class:`TsdsError` only when sources/ or tasks/ is there and cannot be listed: what could not be
    seen must not pass for removed.
    """
    settings = project.settings
    source_places, source_problems = find_places(project.root, "source", settings.sources)
    task_places, task_problems = find_places(project.root, "task", settings.tasks)
    test_places, test_problems = find_tests(project.root, task_places)
    excluded_places, excluded_problems = find_excluded(project.root, settings.exclude)
    problems = [*source_problems, *task_problems, *test_problems, *excluded_problems]
    problems += _unknown_keys(settings, source_places, task_places)
    with FileHashes(project.storage / "file-hashes.json") as hashes:
        sources = {
            key: _inputs(project, key, places, hashes, _Vectors("source", settings.sources.get(key)))
            for key, places in source_places.items()
        }
        tasks = {
            key: _inputs(project, key, places, hashes, _Vectors("task", settings.tasks.get(key)))
            for key, places in task_places.items()
        }
        tests = {key: _inputs(project, key, places, hashes) for key, places in test_places.items()}
        excluded = {key: _inputs(project, key, places, hashes) for key, places in excluded_places.items()}
    if not sources:
        problems.append(
            f"sources/: no source yet: put a file ({FORMAT_RULE}) in it, as in sources/my-source.jsonl"
        )
    hints = () if tasks else ("tasks/: no task yet: put example queries in tasks/my-task/query.jsonl",)
    return Scan(sources, tasks, tests, tuple(problems), excluded, hints)


class _Vectors(NamedTuple):
    """The table in tsds.toml of a source or task, which may name files of vectors."""

    kind: str
    table: SourceSettings | TaskSettings | None

    def files(self, project: Project, key: str) -> tuple[Path, ...]:
        """The files of vectors of ``key``; TsdsError where one is named and cannot be used."""
        if self.table is None or self.table.vectors is None:
            return ()
        where = f"{SETTINGS_FILE}: [{self.kind}s.{key}] vectors"
        if project.settings.vector_field is None:
            raise TsdsError(f'{where}: needs [encoder] kind = "precomputed": nothing else reads them')
        return find_vectors(project.root, where, self.table.vectors)


def _inputs(
    project: Project, key: str, places: list[Place], hashes: FileHashes, named: _Vectors | None = None
) -> InputFiles:
    try:
        place = _only_place(key, places)
        vectors = named.files(project, key) if named else ()
        for file in vectors:
            if (ids := ids_file(file)) is not None and not ids.is_file():
                raise TsdsError(
                    f"{shown(project.root, ids)}: is not there: write the id of each vector in {file.name} there, "
                    "one a line"
                )
        local = [*place.paths, *(path for file in vectors for path in (file, ids_file(file)) if path)]
        names = {path: shown(project.root, path) for path in local}
        contents = [(name, _digest(project.root, path, hashes)) for path, name in names.items()]
        contents += [(file.address, file.identity) for file in place.remote]
    except TsdsError as error:
        # How an outage is worded changes: what was tried in it once is not tried again with each wording.
        down = [place.name for place in places if place.unreachable]
        return InputFiles(key, (), content_hash("problem", *(down or [str(error)])), str(error))
    remote = {file.copy_in(project.storage / COPIES): file for file in place.remote}
    names |= {copy: file.name for copy, file in remote.items()}
    paths = (*place.paths, *remote)
    return InputFiles(key, paths, content_hash(contents), vectors=vectors, remote=remote, names=names)


def _only_place(key: str, places: list[Place]) -> Place:
    if len(places) > 1:
        names = ", ".join(place.name for place in places)
        raise TsdsError(f'"{key}" has files in more than one place ({names}): keep one of them')
    (place,) = places
    if place.problem:
        raise TsdsError(place.problem)
    return place


def _digest(root: Path, path: Path, hashes: FileHashes) -> str:
    name = shown(root, path)
    try:
        return hashes.digest(path)
    except UnsettledFileError:
        raise TsdsError(
            f"{name}: kept changing while it was read: write it elsewhere and move it here complete"
        ) from None
    except OSError as error:
        if is_broken_link(path):
            target = printable(os.readlink(path))
            raise TsdsError(
                f"{name}: a broken link: restore its target {target}, or remove the link"
            ) from None
        raise TsdsError(
            f"{name}: cannot be read: {error.strerror}: make it a readable file, or remove it"
        ) from None


def _unknown_keys(settings: Settings, sources: Collection[str], tasks: Collection[str]) -> Iterator[str]:
    """What tsds.toml says about sources and tasks that do not exist."""
    for kind, tables, known in (("source", settings.sources, sources), ("task", settings.tasks, tasks)):
        example = f"sources/{{}}{FORMATS[0]}" if kind == "source" else f"tasks/{{}}/query{FORMATS[0]}"
        for key in sorted(tables.keys() - known):
            yield (
                f"{SETTINGS_FILE}: [{kind}s.{key}]: there is no such {kind}{nearest(key, known)}: "
                f"add {example.format(key)}, give the table a path, or remove it"
            )
    for name, mixture in sorted(settings.mixtures.items()):
        if name in tasks:
            yield f"{SETTINGS_FILE}: [mixtures.{name}]: there is a task of this name: call the mixture something else"
        for key in sorted(mixture.weights.keys() - set(tasks)):
            there = f"{nearest(key, tasks)}; there are {', '.join(tasks)}" if tasks else ""
            yield f'{SETTINGS_FILE}: [mixtures.{name}] tasks: "{printable(key)}" is not a task{there}'
    tables = [
        ("selection", settings.selection),
        *((f"tasks.{key}", t) for key, t in sorted(settings.tasks.items())),
    ]
    for where, table in tables:
        for name in ("sources", "exclude", "caps", "floors"):
            yield from unknown_sources(f"[{where}] {name}", getattr(table, name, None) or (), sources)


def unknown_sources(where: str, keys: Iterable[str], sources: Collection[str]) -> Iterator[str]:
    """What is to be said of those of ``keys``, which stand at ``where`` in tsds.toml, that are none of ``sources``."""
    for key in sorted(set(keys) - set(sources)):
        listed = f"; there are {', '.join(sources)}" if sources else ""
        yield f'{SETTINGS_FILE}: {where}: "{printable(key)}" is not a source{nearest(key, sources)}{listed}'
