"""Hashes of files, remembered so that a large file that did not change is not read again.

Like git's index: a file whose size, modification time and inode are what they were has the hash it had,
unless it was hashed so soon after its last change that another change could have left the same time behind.
Which files there are is not here (``places``).
"""

import hashlib
import json
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.storage import write_atomically

# The coarsest modification times of a file system in use (FAT) are 2 s apart.
RACY_NS = 2_000_000_000
ATTEMPTS = 3
_FORMAT = 1


class UnsettledFileError(Exception):
    """A file was changing for as long as it was being hashed."""


class _Entry(NamedTuple):
    size: int
    mtime_ns: int
    inode: int
    digest: str


def _digest_of(file: BinaryIO) -> str:
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


class FileHashes:
    """Hashes by file name, kept in the JSON file ``cache`` from one ``with`` block to the next.

    A cache that is missing, damaged or cannot be written costs time only. Two processes may use one at once:
    the last one's stays.
    """

    def __init__(self, cache: Path, of: Callable[[BinaryIO], str] = _digest_of, *, all_at_once: bool = True):
        """``of`` gives the 32 hex characters of an open file.

        Files that a block did not ask for are forgotten after it; where it asks not for ``all_at_once``, those that are
        gone.
        """
        self._cache, self._of, self._all_at_once = cache, of, all_at_once
        self._known: dict[str, _Entry] = {}
        self._seen: dict[str, _Entry] = {}

    def __enter__(self) -> Self:
        self._known, self._seen = _load(self._cache), {}
        return self

    def __exit__(self, interrupted: type[BaseException] | None, *_: object) -> None:
        entries = self._seen
        if interrupted:
            entries = self._known | self._seen
        elif not self._all_at_once:
            others = {name: entry for name, entry in self._known.items() if Path(name).exists()}
            entries = others | self._seen
        if entries != self._known:
            _save(self._cache, entries)

    def digest(self, path: Path) -> str:
        """Hash (32 hex characters) of the bytes of ``path``, a regular file or a link to one.

        Raises OSError, or :class:`UnsettledFileError` when the file changed during each of a few readings.
        """
        name = str(path)
        for _ in range(ATTEMPTS):
            started = time.time_ns()
            before = _identity(path)
            known = self._known.get(name)
            if known and known[:3] == before:
                self._seen[name] = known
                return known.digest
            with path.open("rb") as file:
                digest = self._of(file)
            if _identity(path) == before:
                entry = _Entry(*before, digest)
                if started - entry.mtime_ns > RACY_NS:
                    self._seen[name] = entry
                return digest
        raise UnsettledFileError(name)


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would block whoever opens it
        raise OSError(0, "not a regular file", str(path))
    return status.st_size, status.st_mtime_ns, status.st_ino


def _load(cache: Path) -> dict[str, _Entry]:
    try:
        document = json.loads(cache.read_bytes())
        if document["format"] != _FORMAT:
            return {}
        return {name: _checked(*values) for name, values in document["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _checked(size: int, mtime_ns: int, inode: int, digest: str) -> _Entry:
    if len(bytes.fromhex(digest)) != 16:
        raise ValueError(digest)
    return _Entry(size, mtime_ns, inode, digest)


_noted: ContextVar[bool] = ContextVar("noted", default=True)


@contextmanager
def not_noted() -> Iterator[None]:
    """Inside, no cache is written: for a look that changes nothing."""
    token = _noted.set(False)
    try:
        yield
    finally:
        _noted.reset(token)


def _save(cache: Path, entries: dict[str, _Entry]) -> None:
    if not _noted.get():
        return
    text = json.dumps({"format": _FORMAT, "files": entries}, indent=0, sort_keys=True)
    try:
        write_atomically(cache, lambda path: path.write_text(text, encoding="ascii"))
    except (OSError, TsdsError):
        return  # a full or read-only disk: the next scan reads the files again
