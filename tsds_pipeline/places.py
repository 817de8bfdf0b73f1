"""Where the files of each source and task are: the folder convention, and ``path`` in tsds.toml.

Names only: nothing here opens a file, but for what says which files are a dataset (``dataset_folders``). Hashing
what is found, and what the whole adds up to, is in ``discovery``; what is at a remote address in ``path`` is asked by
``remote_files``.

A source is ``sources/<source>.jsonl`` (or another format) or the files of ``sources/<source>/``, however many its
shards are; the queries of a task are ``tasks/<task>/query.jsonl`` or the files of ``tasks/<task>/query/``, and ``test``
beside them is its test set, if it has one. Files that tsds.toml names belong to that table alone. Hidden and temporary
files and notes (README, LICENSE, *.md) are passed over.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tsds_pipeline.addresses import REMOTE
from tsds_pipeline.corpus.vector_files import FORMAT_RULE as VECTOR_RULE
from tsds_pipeline.corpus.vector_files import FORMATS as VECTOR_FORMATS
from tsds_pipeline.dataset_folders import data_files
from tsds_pipeline.errors import TsdsError, printable
from tsds_pipeline.file_names import FORMAT_RULE, FORMATS, format_of, is_passed_over
from tsds_pipeline.keys import check_key
from tsds_pipeline.project import SETTINGS_FILE
from tsds_pipeline.remote_files import RemoteFile, UnreachableError, remote_files
from tsds_pipeline.settings import ExcludedSettings, SourceSettings, TaskSettings


@dataclass(frozen=True)
class Place:
    """One place that gives a key its files: a file, a folder, or a path in tsds.toml."""

    name: str
    paths: tuple[Path, ...] = ()
    """Absolute and sorted."""
    problem: str | None = None
    """There is a file at least where there is none."""
    unreachable: bool = False
    """Whether the problem is that a server does not answer."""
    remote: tuple[RemoteFile, ...] = ()
    """Sorted."""


def find_places(
    root: Path, kind: str, tables: Mapping[str, SourceSettings | TaskSettings]
) -> tuple[dict[str, list[Place]], list[str]]:
    """The places of every source or task (``kind``) by key, sorted, and the problems that belong to no key.

    Raises :class:`TsdsError` when sources/ or tasks/ is there and cannot be listed.
    """
    problems: list[str] = []
    places = {
        key: [_named(root, f"{SETTINGS_FILE}: [{kind}s.{key}] path", table.path, problems)]
        for key, table in tables.items()
        if table.path
    }
    taken = {path for (place,) in places.values() for path in place.paths}
    named = [shown(root, path) for path in taken]
    by_convention = (_sources if kind == "source" else _tasks)(root, set(places), problems)
    for key, place in by_convention:
        free = tuple(path for path in place.paths if path not in taken)
        inner = place.name.endswith("/") and any(name.startswith(place.name) for name in named)
        if not free and (inner or not place.problem):
            continue
        try:
            check_key(kind, printable(key))
        except TsdsError as error:
            problems.append(f"{place.name}: {error}")
        else:
            places.setdefault(key, []).append(replace(place, paths=free))
    return dict(sorted(places.items())), problems


def find_tests(root: Path, tasks: Iterable[str]) -> tuple[dict[str, list[Place]], list[str]]:
    """The places of the test sets of ``tasks``, by task, and the problems that belong to no task."""
    problems: list[str] = []
    folders = {task: root / "tasks" / task for task in tasks}
    found = {
        task: _called("test", root, folder, problems)
        for task, folder in folders.items()
        if os.path.isdir(folder)
    }
    return {task: places for task, places in found.items() if places}, problems


def find_excluded(
    root: Path, tables: Mapping[str, ExcludedSettings]
) -> tuple[dict[str, list[Place]], list[str]]:
    """The places of the test sets of [exclude.X], by name, and the problems that belong to none."""
    problems: list[str] = []
    found = {
        key: [_named(root, f"{SETTINGS_FILE}: [exclude.{key}] path", table.path, problems)]
        for key, table in sorted(tables.items())
    }
    return found, problems


def find_vectors(root: Path, where: str, patterns: Iterable[str]) -> tuple[Path, ...]:
    """The files of vectors that ``patterns`` of ``where`` in tsds.toml name, absolute and sorted.

    Raises :class:`TsdsError` where one names none, or what is none.
    """
    found: set[Path] = set()
    for pattern in patterns:
        if REMOTE.match(pattern):
            raise TsdsError(
                f'{where}: "{printable(pattern)}": vectors are read from this machine: copy them here'
            )
        paths = {Path(os.path.normpath(root / match)) for match in _glob(root, pattern)}
        usable = {path for path in paths if path.name.endswith(VECTOR_FORMATS)}
        if "*" not in pattern and "?" not in pattern and paths != usable:
            raise TsdsError(f'{where}: "{printable(pattern)}" is not {VECTOR_RULE}: name such a file')
        if not usable:
            raise TsdsError(f'{where}: no file ({VECTOR_RULE}) at "{printable(pattern)}"')
        found |= usable
    return tuple(sorted(found))


def shown(root: Path, path: Path) -> str:
    """``path`` in messages and versions: relative to ``root`` when it is inside, and printable."""
    return printable((path.relative_to(root) if path.is_relative_to(root) else path).as_posix())


def is_broken_link(path: Path) -> bool:
    """Whether ``path`` is a symbolic link to nothing."""
    return path.is_symlink() and not os.path.exists(path)


def _named(root: Path, where: str, patterns: Iterable[str], problems: list[str]) -> Place:
    """What tsds.toml names."""
    paths: set[Path] = set()
    remote: set[RemoteFile] = set()
    for pattern in patterns:
        try:
            if REMOTE.match(pattern):
                found = remote_files(where, pattern, problems)
                remote.update(found)
            else:
                found = _matches(root, pattern, problems)
                paths.update(found)
        except TsdsError as error:
            return Place(where, problem=str(error), unreachable=isinstance(error, UnreachableError))
        if not found:
            return Place(where, problem=f'{where}: no file ({FORMAT_RULE}) at "{printable(pattern)}"')
    return Place(where, tuple(sorted(paths)), remote=tuple(sorted(remote)))


def _matches(root: Path, pattern: str, problems: list[str]) -> list[Path]:
    """The files of a pattern, or of a folder. "[" is a character like any other."""
    paths = [Path(os.path.normpath(root / match)) for match in _glob(root, pattern)]
    if "*" in pattern or "?" in pattern:
        paths = [path for path in paths if not (os.path.isdir(path) or is_passed_over(path.name))]
    elif paths and os.path.isdir(paths[0]):
        try:
            return _inside(root, paths[0], problems)
        except OSError:
            return []
    return _supported(root, paths, problems)


def _glob(root: Path, pattern: str) -> list[str]:
    return glob.glob(pattern.replace("[", "[[]"), root_dir=root, recursive=True)


def _sources(root: Path, named: set[str], problems: list[str]) -> Iterator[tuple[str, Place]]:
    """What sources/ holds by convention, whether or not tsds.toml names it too.

    Of a folder whose files are named there, nobody wants to hear what is not read by convention.
    """
    for path in _top(root, "sources"):
        if os.path.isdir(path):
            yield path.name, _folder(root, path, [] if path.name in named else problems)
        elif _supported(root, [path], problems):
            yield _stem(path) or path.name, _file(root, path)


def _tasks(root: Path, named: set[str], problems: list[str]) -> Iterator[tuple[str, Place]]:
    """What tasks/ holds by convention. The folder of a task that tsds.toml names may be without queries."""
    for path in _top(root, "tasks"):
        if os.path.isdir(path):
            queries = _called("query", root, path, problems)
            if not queries and path.name not in named:
                queries = [_no_queries(root, path)]
            for place in queries:
                yield path.name, place
        elif is_broken_link(path):
            yield path.name, _file(root, path)
        else:
            folder = f"tasks/{printable(_stem(path) or path.stem)}/"
            problems.append(
                f"{shown(root, path)}: a task is a folder: move its queries to {folder}query{FORMATS[0]}"
            )


def _called(name: str, root: Path, folder: Path, problems: list[str]) -> list[Place]:
    """What is called ``name`` in the ``folder`` of a task: files of any format, or a folder."""
    try:
        entries = _entries(folder)
    except OSError as error:
        return [_unlisted(root, folder, error)]
    files = [_file(root, path) for path in entries if _stem(path) == name and not os.path.isdir(path)]
    folders = [_folder(root, path, problems) for path in entries if path.name == name and os.path.isdir(path)]
    return files + folders


def _no_queries(root: Path, folder: Path) -> Place:
    name = f"{shown(root, folder)}/"
    others = ", ".join(
        printable(path.name) for path in _entries(folder) if _stem(path) or path.stem == "query"
    )
    there = f" (there is {others})" if others else ""
    return Place(
        name,
        problem=f"{name}: no queries{there}: put them in query{FORMATS[0]} ({FORMAT_RULE})",
    )


def _file(root: Path, path: Path) -> Place:
    return Place(shown(root, path), (path,))


def _folder(root: Path, folder: Path, problems: list[str]) -> Place:
    """The files right inside ``folder``."""
    name = f"{shown(root, folder)}/"
    try:
        paths = _inside(root, folder, problems)
    except OSError as error:
        return _unlisted(root, folder, error)
    except TsdsError as error:
        return Place(name, problem=str(error))
    if not paths:
        return Place(name, problem=f"{name}: no file ({FORMAT_RULE}) in it: add one, or remove the folder")
    return Place(name, tuple(paths))


def _inside(root: Path, folder: Path, problems: list[str]) -> list[Path]:
    """The files right inside ``folder``; of a dataset of Hugging Face those that are its data."""
    entries = _entries(folder)
    files = data_files(
        f"{shown(root, folder)}/", {path.name for path in entries}, lambda name: (folder / name).read_bytes()
    )
    return _supported(root, entries if files is None else [folder / name for name in files], problems)


def _unlisted(root: Path, folder: Path, error: OSError) -> Place:
    name = f"{shown(root, folder)}/"
    return Place(name, problem=f"{name}: cannot be listed: {error.strerror}: make it readable, or remove it")


def _top(root: Path, name: str) -> list[Path]:
    top = root / name
    if not os.path.lexists(top):
        return []
    try:
        return _entries(top)
    except OSError as error:
        raise TsdsError(f"{top}: cannot be listed: {error.strerror}: make it a readable folder") from None


def _entries(folder: Path) -> list[Path]:
    return sorted(folder / name for name in os.listdir(folder) if not is_passed_over(name))


def _supported(root: Path, paths: Iterable[Path], problems: list[str]) -> list[Path]:
    """Those of ``paths`` that can be read, or whose reading will tell what is wrong with them."""
    good = []
    for path in paths:
        if os.path.isdir(path):
            parent = shown(root, path.parent)
            problems.append(
                f"{shown(root, path)}/: only files right inside {parent}/ are read: move these up, "
                f'or name them in {SETTINGS_FILE}: path = "{parent}/**/*"'
            )
        elif _stem(path) or is_broken_link(path):
            good.append(path)
        else:
            problems.append(f"{shown(root, path)}: not {FORMAT_RULE}: convert it, or move it elsewhere")
    return good


def _stem(path: Path) -> str | None:
    """The name without its format; None when the format is not one that is read."""
    suffix = format_of(path.name)
    return None if suffix is None else path.name.removesuffix(suffix)
