"""What the pipeline writes, kept on object storage too: ``[storage] url`` in tsds.toml.

The folders storage/, exports/ and reports/ of a machine are a working copy: vectors and indexes are mapped from disk.
The object store has the truth. :meth:`Mirror.pull` brings what others put there since, :meth:`Mirror.push` takes there
what was written or deleted here; a small file says what both sides were when they were last the same. So no writer
knows of this module, and what could not be uploaded is, the next time. Objects appear whole, and a table after the
payloads that it names. :func:`held` does this around a refresh and keeps other machines out meanwhile, by the lock of
``object_lock``.

What concerns one machine alone stays there: notes of failed attempts, hashes of input files, copies of remote
files, the SQL warehouse, and Dagster's history. How addresses and errors are treated is in ``remote_files``.
"""

import fcntl
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.object_lock import WHERE, Lock, remove, using
from tsds_pipeline.progress import progress_bar
from tsds_pipeline.project import Project
from tsds_pipeline.remote_files import identity_of, opened
from tsds_pipeline.retries import persistently
from tsds_pipeline.storage import SUFFIX, attempt_path, write_atomically

STATE_FILE = ".object-storage.json"
PUSH_SECONDS = 30.0
"""What a long refresh made is uploaded so often, between two results."""
_MOST_LOOKS = 3
_BATCH = 64  # files that are under way together
_EXPORTED = re.compile(r"exports/[^/]+/(manifest\.json|README\.md|(epoch-|weighted)[^/]*\.(jsonl|parquet))")
_REPORTED = re.compile(r"reports/[^/]+\.html")
_OF_THIS_MACHINE = re.compile(
    r"storage/((file|result)-hashes\.json|warehouse\.duckdb.*|remote/.*|.*\.attempt\.json|.*\.damaged)"
)

logger = logging.getLogger(__name__)
_held: dict[Path, "_Held"] = {}


class _Synced(NamedTuple):
    """What a file was, there and here, when both sides were the same."""

    identity: str
    size: int
    mtime_ns: int


class _There(NamedTuple):
    """A file in the store."""

    identity: str
    size: int
    changed: float | None
    """When it was put there, in seconds since the epoch; None where the store does not say."""


class Moved(NamedTuple):
    """How many files were copied, and deleted."""

    copied: int
    deleted: int


@dataclass(frozen=True)
class Mirror:
    """The folders of ``root`` and what is at ``url``. Names are relative to ``root``, and to ``url``, with slashes."""

    root: Path
    url: str

    @classmethod
    def of(cls, project: Project) -> "Mirror | None":
        """The mirror of ``project``; None where tsds.toml names none."""
        url = project.settings.storage.url
        return None if url is None else cls(project.root, url.rstrip("/"))

    def pull(self) -> Moved:
        """Bring what was put there, or deleted there, since the last time; what both sides changed is as it is there.

        Raises :class:`TsdsError`, with all that came so far in place, where the store does not answer.
        """
        with self._state() as state, using(self.url):
            for look in range(_MOST_LOOKS):
                there = persistently(self._listed)
                try:
                    return persistently(partial(self._bring, state, there))
                except FileNotFoundError:  # replaced by another machine meanwhile
                    if look == _MOST_LOOKS - 1:
                        raise
        raise AssertionError

    def push(self) -> Moved:
        """Take there what was written, or deleted, here since the last time. TsdsError where that cannot be done.

        What is replaced meanwhile, by a run of Dagster, is left to the next time, and deletions with it.
        """
        with self._state() as state, using(self.url):
            here = self._settled()
            changed = [name for name, stat in here.items() if not _is_same(state.get(name), stat)]
            gone = [name for name in state if name not in here]
            if not (changed or gone):
                return Moved(0, 0)
            sent = self._upload(changed, here)
            gone = gone if len(sent) == len(changed) else []
            fs, base = opened(self.url)
            persistently(lambda: remove(fs, [f"{base}/{name}" for name in gone]))
            there = persistently(self._listed)
            for name in sent:
                size, mtime_ns = here[name]
                if name in there and there[name].size == size:
                    state[name] = _Synced(there[name].identity, size, mtime_ns)
            for name in gone:
                del state[name]
            return Moved(len(sent), len(gone))

    def _upload(self, names: Sequence[str], here: Mapping[str, tuple[int, int]]) -> list[str]:
        """Those of ``names`` that are still as they were seen ``here``, in order; which they were."""
        fs, base = opened(self.url)
        sent: list[str] = []
        with progress_bar(f"uploading to {self.url}", logger.info) as progress:
            for batch in _batches(names):
                same = [name for name in batch if _stat(self.root / name) == here[name]]
                if same:
                    paths = [str(self.root / name) for name in same]
                    persistently(partial(fs.put, paths, [f"{base}/{name}" for name in same]))
                sent += same
                progress(len(sent), len(names))
        return sent

    def _bring(self, state: dict[str, _Synced], there: Mapping[str, _There]) -> Moved:
        here = self._here()
        new = [
            name for name, one in there.items() if name not in state or state[name].identity != one.identity
        ]
        gone = [name for name in state if name not in there]
        fs, base = opened(self.url)
        with progress_bar(f"downloading from {self.url}", logger.info) as progress:
            done = 0
            for batch in _batches(new):
                self._download(fs, base, batch, there)
                for name in batch:
                    mtime_ns = (self.root / name).stat().st_mtime_ns
                    state[name] = _Synced(there[name].identity, there[name].size, mtime_ns)
                progress(done := done + len(batch), len(new))
        for name in gone:
            # What was made again here meanwhile is taken there by the next push.
            if _is_same(state.pop(name), here.get(name)):
                (self.root / name).unlink(missing_ok=True)
        return Moved(len(new), len(gone))

    def _download(self, fs: Any, base: str, names: Sequence[str], there: Mapping[str, _There]) -> None:
        """All of ``names`` at once, each to a file beside its place, and then into it.

        FileNotFoundError where one is not what was seen ``there`` any more.
        """
        beside = [
            path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in map(self._path, names)
        ]
        try:
            fs.get([f"{base}/{name}" for name in names], [str(path) for path in beside])
            for name, path in zip(names, beside, strict=True):
                if path.stat().st_size != there[name].size:
                    raise FileNotFoundError(f"{name} is not as long as it was listed")
                if name.endswith(SUFFIX) and (changed := there[name].changed) is not None:
                    os.utime(path, (changed, changed))  # when a sample was drawn is told by its table
                os.replace(path, self.root / name)
                if name.endswith(SUFFIX):
                    attempt_path(self.root / name).unlink(missing_ok=True)  # another machine succeeded
        finally:
            for path in beside:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _settled(self) -> dict[str, tuple[int, int]]:
        """``_here`` with the payload of every table in it, which is written before it: no other names come up."""
        found = self._here()
        while (again := self._here()).keys() != found.keys():
            found = again
        return found

    def _here(self) -> dict[str, tuple[int, int]]:
        """Size and time of change (ns) of every file of ours here."""
        found = {}
        for top in ("storage", "exports", "reports"):
            for folder, _, files in os.walk(self.root / top):
                relative = Path(folder).relative_to(self.root).as_posix()
                names = filter(_is_ours, (f"{relative}/{file}" for file in files))
                found |= {name: stat for name in names if (stat := _stat(self.root / name))}
        return found

    def _listed(self) -> dict[str, _There]:
        """Every file of ours there."""
        fs, base = opened(self.url)
        found = fs.find(base, detail=True)
        named = (
            (path.removeprefix(f"{base}/"), info) for path, info in found.items() if info["type"] == "file"
        )
        return {
            name: _There(identity_of(WHERE, name, info), info["size"], _changed_at(info))
            for name, info in named
            if _is_ours(name)
        }

    @contextmanager
    def _state(self) -> Iterator[dict[str, _Synced]]:
        """What was the same when, to be changed; of this process alone meanwhile, and kept whatever happens."""
        path = self._path(f"storage/{STATE_FILE}")
        with path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = _read_state(path, self.url)
            before = dict(state)
            try:
                yield state
            finally:
                if state != before:
                    text = json.dumps({"url": self.url, "files": state}, indent=0, sort_keys=True)
                    write_atomically(path, lambda target: target.write_text(text, "utf-8"))


class _Held:
    """A mirror while its lock is held."""

    def __init__(self, mirror: Mirror, lock: Lock):
        self._mirror, self._lock, self._pushed = mirror, lock, time.monotonic()

    def push(self) -> None:
        """Upload; TsdsError where that cannot be done."""
        self._pushed = time.monotonic()
        try:
            self._lock.require()
            self._mirror.push()
        except TsdsError as error:
            raise TsdsError(
                f"{error}; what was made is complete here, and the next refresh uploads it"
            ) from None

    def push_now_and_then(self) -> None:
        """Upload if the last time was long ago; where it fails the next time tells."""
        if time.monotonic() - self._pushed > PUSH_SECONDS:
            with suppress(TsdsError):
                self.push()


@contextmanager
def held(project: Project, *, wait: bool = False) -> Iterator[None]:
    """Have the object storage of ``project``, if it has any, to oneself: pull before, push after.

    The caller has the project's folder to itself. While another machine works there: TsdsError, or ``wait``.
    """
    mirror = Mirror.of(project)
    if mirror is None:
        yield
        return
    lock = Lock(mirror.url, mirror.root)
    lock.take(wait=wait)
    try:
        mirror.pull()
        work = _held[project.root] = _Held(mirror, lock)
        try:
            yield
        except Exception:
            with suppress(TsdsError):
                work.push()
            raise
        else:
            work.push()
        finally:
            del _held[project.root]
    finally:
        lock.release()


def push_now_and_then(project: Project) -> None:
    """In a long piece of work under :func:`held`: upload what is there so far, if that was not done for a while."""
    if project.root in _held:
        _held[project.root].push_now_and_then()


def is_held_elsewhere(project: Project) -> bool:
    """Whether another machine is at work there (:func:`held`). TsdsError where the store does not answer."""
    mirror = Mirror.of(project)
    return mirror is not None and not Lock(mirror.url, mirror.root).is_free()


def exchange(project: Project) -> None:
    """Pull, and push what runs outside of :func:`held` made; TsdsError where that cannot be done now."""
    mirror = Mirror.of(project)
    if mirror is not None:
        Lock(mirror.url, mirror.root).require_free()
        mirror.pull()
        mirror.push()


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    """``names``, some at a time, in order: payloads, tables, exports, and last what says that an export is whole."""

    def turn(name: str) -> int:
        if name.startswith("storage/"):
            return 1 if name.endswith(SUFFIX) else 0
        return 3 if name.endswith("/manifest.json") else 2

    for _, group in groupby(sorted(names, key=lambda name: (turn(name), name)), turn):
        together = list(group)
        yield from (together[start : start + _BATCH] for start in range(0, len(together), _BATCH))


def _changed_at(info: Mapping[str, Any]) -> float | None:
    """When the file of a listing was changed; each kind of store has a name of its own for it."""
    for name in ("LastModified", "last_modified", "updated", "mtime", "created"):
        value = info.get(name)
        if isinstance(value, str):
            with suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _stat(path: Path) -> tuple[int, int] | None:
    """Size and time of change (ns); None where it is gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _is_ours(name: str) -> bool:
    """Whether the file ``name`` belongs to the mirror: written by the pipeline, and for every machine."""
    if any(part.startswith(".") or not part for part in name.split("/")):
        return False
    if name.startswith("storage/"):
        return not _OF_THIS_MACHINE.fullmatch(name)
    return bool(_EXPORTED.fullmatch(name) or _REPORTED.fullmatch(name))


def _is_same(synced: _Synced | None, here: tuple[int, int] | None) -> bool:
    return synced is not None and synced[1:] == here


def _read_state(path: Path, url: str) -> dict[str, _Synced]:
    """What the state file says; of another address, or damaged, it says nothing, and all is compared anew."""
    try:
        said = json.loads(path.read_text("utf-8"))
        files = {name: _Synced(*synced) for name, synced in said["files"].items()}
        return files if said["url"] == url else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
