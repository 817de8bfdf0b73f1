"""What the pipeline writes, kept on object storage too: ``[storage] url`` in tsds.toml.

The folders storage/, exports/ and reports/ of a machine are a working copy: vectors and indexes are mapped from disk.
The object store has the truth. :meth:`Mirror.pull` brings what others put there since, :meth:`Mirror.push` takes there
what was written or deleted here; a small file says what both sides were when they were last the same. So no writer
knows of this module, and what could not be uploaded is, the next time. Objects appear whole, and a table after the
payloads that it names. :func:`held` does this around a refresh and keeps other machines out meanwhile.

What concerns one machine alone stays there: notes of failed attempts, hashes of input files, copies of remote
files, the SQL warehouse, and Dagster's history. How addresses and errors are treated is in ``remote_files``.
"""

import fcntl
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from tsds_pipeline.addresses import protocol_of
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.progress import progress_bar
from tsds_pipeline.project import SETTINGS_FILE, Project
from tsds_pipeline.remote_files import explained, identity_of, opened
from tsds_pipeline.storage import SUFFIX, attempt_path, content_hash, write_atomically

WHERE = f"{SETTINGS_FILE}: [storage] url"
STATE_FILE = ".object-storage.json"
LOCK = "lock.json"
LEASE_SECONDS = 600.0
"""A lock whose machine was not heard of for so long is free. Clocks of machines may differ by less than that."""
PUSH_SECONDS = 30.0
"""What a long refresh made is uploaded so often, between two results."""
_MOST_LOOKS = 3
_BATCH = 64  # files that are under way together
_EXCLUSIVE = ("s3", "s3a")
_EXPORTED = re.compile(r"exports/[^/]+/(manifest\.json|README\.md|(epoch-|weighted)[^/]*\.(jsonl|parquet))")
_REPORTED = re.compile(r"reports/[^/]+\.html")
_OF_THIS_MACHINE = re.compile(
    r"storage/(file-hashes\.json|warehouse\.duckdb.*|remote/.*|.*\.attempt\.json|.*\.damaged)"
)

logger = logging.getLogger(__name__)
_held: dict[Path, "_Held"] = {}


class _Synced(NamedTuple):
    """What a file was, there and here, when both sides were the same."""

    identity: str
    size: int
    mtime_ns: int


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
        with self._state() as state, _explained(self.url):
            for look in range(_MOST_LOOKS):
                there = self._listed()
                try:
                    return self._bring(state, there)
                except FileNotFoundError:  # replaced by another machine meanwhile
                    if look == _MOST_LOOKS - 1:
                        raise
        raise AssertionError

    def push(self) -> Moved:
        """Take there what was written, or deleted, here since the last time. TsdsError where that cannot be done.

        What is replaced meanwhile, by a run of Dagster, is left to the next time, and deletions with it.
        """
        with self._state() as state, _explained(self.url):
            here = self._here()
            changed = [name for name, stat in here.items() if not _is_same(state.get(name), stat)]
            gone = [name for name in state if name not in here]
            if not (changed or gone):
                return Moved(0, 0)
            sent = self._upload(changed, here)
            gone = gone if len(sent) == len(changed) else []
            fs, base = opened(self.url)
            _remove(fs, [f"{base}/{name}" for name in gone])
            there = self._listed()
            for name in sent:
                size, mtime_ns = here[name]
                if name in there and there[name][1] == size:
                    state[name] = _Synced(there[name][0], size, mtime_ns)
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
                    fs.put([str(self.root / name) for name in same], [f"{base}/{name}" for name in same])
                sent += same
                progress(len(sent), len(names))
        return sent

    def _bring(self, state: dict[str, _Synced], there: Mapping[str, tuple[str, int]]) -> Moved:
        here = self._here()
        new = [
            name for name, (identity, _) in there.items() if name not in state or state[name][0] != identity
        ]
        gone = [name for name in state if name not in there]
        fs, base = opened(self.url)
        with progress_bar(f"downloading from {self.url}", logger.info) as progress:
            done = 0
            for batch in _batches(new):
                self._download(fs, base, batch, there)
                for name in batch:
                    state[name] = _Synced(*there[name], (self.root / name).stat().st_mtime_ns)
                progress(done := done + len(batch), len(new))
        for name in gone:
            # What was made again here meanwhile is taken there by the next push.
            if _is_same(state.pop(name), here.get(name)):
                (self.root / name).unlink(missing_ok=True)
        return Moved(len(new), len(gone))

    def _download(
        self, fs: Any, base: str, names: Sequence[str], there: Mapping[str, tuple[str, int]]
    ) -> None:
        """All of ``names`` at once, each to a file beside its place, and then into it.

        FileNotFoundError where one is not what was seen ``there`` any more.
        """
        beside = [
            path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in map(self._path, names)
        ]
        try:
            fs.get([f"{base}/{name}" for name in names], [str(path) for path in beside])
            for name, path in zip(names, beside, strict=True):
                if path.stat().st_size != there[name][1]:
                    raise FileNotFoundError(f"{name} is not as long as it was listed")
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

    def _here(self) -> dict[str, tuple[int, int]]:
        """Size and time of change (ns) of every file of ours here."""
        found = {}
        for top in ("storage", "exports", "reports"):
            for folder, _, files in os.walk(self.root / top):
                relative = Path(folder).relative_to(self.root).as_posix()
                names = filter(_is_ours, (f"{relative}/{file}" for file in files))
                found |= {name: stat for name in names if (stat := _stat(self.root / name))}
        return found

    def _listed(self) -> dict[str, tuple[str, int]]:
        """Identity and size of every file of ours there."""
        fs, base = opened(self.url)
        found = fs.find(base, detail=True)
        named = (
            (path.removeprefix(f"{base}/"), info) for path, info in found.items() if info["type"] == "file"
        )
        return {
            name: (identity_of(WHERE, name, info), info["size"]) for name, info in named if _is_ours(name)
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


class _Lock:
    """The object that says which machine works at ``mirror``: a lease that its holder renews.

    A store that creates an object only where there is none (S3 and what keeps to its rules) lets exactly one have it;
    of another, two that ask in the same instant may.
    """

    def __init__(self, mirror: Mirror):
        self._mirror = mirror
        with _explained(mirror.url):
            self._path = f"{opened(mirror.url)[1]}/{LOCK}"
        self._owner = _this_copy(mirror)
        self._ended = threading.Event()
        self._renewed = 0.0

    def take(self, *, wait: bool) -> None:
        """TsdsError while another machine has it, or ``wait``."""
        while (holder := self._try()) is not None:
            if not wait:
                raise self._busy(holder)
            time.sleep(2)
        threading.Thread(target=self._renew, daemon=True).start()

    def require_free(self) -> None:
        """TsdsError while another machine has it."""
        with _explained(self._mirror.url):
            found = self._read()
        if self._is_anothers(found):
            raise self._busy(found)

    def release(self) -> None:
        """Let others have it; where that cannot be said, its lease ends by itself."""
        self._ended.set()
        with suppress(Exception):
            self.require()
            opened(self._mirror.url)[0].rm_file(self._path)

    def require(self) -> None:
        """TsdsError where another machine has taken it, as it may once it could not be renewed for too long."""
        if time.monotonic() - self._renewed < LEASE_SECONDS:
            return
        with _explained(self._mirror.url):
            found = self._read()
        if not self._is_ours(found):
            raise TsdsError(
                f"{self._mirror.url}: this machine was not heard of for so long that another may have taken its place"
            )

    def _try(self) -> dict[str, Any] | None:
        """Take it, or say who has it."""
        with _explained(self._mirror.url):
            # Servers there are that take no notice of the condition on which an object is created.
            found = self._read()
            if self._is_anothers(found):
                return found
            if found is not None:  # left by a process that is gone
                _remove(opened(self._mirror.url)[0], [self._path])
            try:
                self._write("create")
            except (OSError, ValueError):  # another was faster, unless there is none
                if (found := self._read()) is None:
                    raise
            else:
                found = None if protocol_of(self._mirror.url) in _EXCLUSIVE else self._read()
        return found if self._is_anothers(found) else None

    def _busy(self, holder: Mapping[str, Any]) -> TsdsError:
        until = time.strftime("%H:%M:%S", time.localtime(holder["until"]))
        return TsdsError(
            f"{self._mirror.url}: another refresh is under way ({holder['who']}): wait until it has ended; if it was "
            f"killed, its lock ends at {until}"
        )

    def _renew(self) -> None:
        while not self._ended.wait(LEASE_SECONDS / 4):
            with suppress(Exception):  # told by `require`, once it matters
                if self._is_ours(self._read()) and not self._ended.is_set():
                    self._write("overwrite")

    def _write(self, mode: str) -> None:
        who = f"process {os.getpid()} on {socket.gethostname()}"
        said = {"owner": self._owner, "who": who, "until": time.time() + LEASE_SECONDS}
        opened(self._mirror.url)[0].pipe_file(self._path, json.dumps(said).encode(), mode=mode)
        self._renewed = time.monotonic()

    def _read(self) -> dict[str, Any] | None:
        try:
            said = json.loads(opened(self._mirror.url)[0].cat_file(self._path))
            return {"owner": str(said["owner"]), "who": str(said["who"]), "until": float(said["until"])}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return {"owner": "", "who": "nobody", "until": 0.0}

    def _is_anothers(self, found: Mapping[str, Any] | None) -> bool:
        return found is not None and not self._is_ours(found) and found["until"] > time.time()

    def _is_ours(self, found: Mapping[str, Any] | None) -> bool:
        return found is not None and found["owner"] == self._owner


class _Held:
    """A mirror while its lock is held."""

    def __init__(self, mirror: Mirror, lock: _Lock):
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
    lock = _Lock(mirror)
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


def exchange(project: Project) -> None:
    """Pull, and push what runs outside of :func:`held` made; TsdsError where that cannot be done now."""
    mirror = Mirror.of(project)
    if mirror is not None:
        _Lock(mirror).require_free()
        mirror.pull()
        mirror.push()


def _explained(url: str) -> AbstractContextManager[None]:
    return explained(WHERE, url, doing="used")


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    """``names``, some at a time, in order: payloads, tables, exports, and last what says that an export is whole."""

    def turn(name: str) -> int:
        if name.startswith("storage/"):
            return 1 if name.endswith(SUFFIX) else 0
        return 3 if name.endswith("/manifest.json") else 2

    for _, group in groupby(sorted(names, key=lambda name: (turn(name), name)), turn):
        together = list(group)
        yield from (together[start : start + _BATCH] for start in range(0, len(together), _BATCH))


def _stat(path: Path) -> tuple[int, int] | None:
    """Size and time of change (ns); None where it is gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _remove(fs: Any, paths: list[str]) -> None:
    """Delete ``paths``; what is gone already is no error."""
    for path in paths:
        with suppress(FileNotFoundError):
            fs.rm_file(path)


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


def _this_copy(mirror: Mirror) -> str:
    """A name for this working copy: a lock that bears it was left by a process that is gone.

    A number kept in it tells machines of one name apart, name and place a copy of the folder.
    """
    path = mirror.root / "storage" / ".machine"
    try:
        number = path.read_text("utf-8")
    except FileNotFoundError:
        number = secrets.token_hex(16)
        write_atomically(path, lambda target: target.write_text(number, "utf-8"))
    return content_hash(number, socket.gethostname(), str(mirror.root))
