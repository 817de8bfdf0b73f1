"""One immutable file of vectors: written whole or not at all, never read wrong.

A shard is an ``.npz`` archive without compression, with ``ids`` (n,) of 16 bytes and ``vectors`` (n, dim)
float32. Reading an array verifies the archive's checksum of it. Which shards there are is in ``cache``.
"""

import errno
import logging
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

logger = logging.getLogger(__name__)

ID = np.dtype("S16")
# What numpy and zipfile raise, between them, for files that were cut or altered.
UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, RuntimeError, SyntaxError)


class Rows(NamedTuple):
    """``ids`` (n,) of 16 bytes, ``vectors`` (n, dim) float32."""

    ids: np.ndarray
    vectors: np.ndarray


def write_shard(folder: Path, rows: Rows) -> None:
    """Add a shard to ``folder``. Its name is new, and sorts after those written before."""
    name = f"{time.time_ns():020}-{os.urandom(4).hex()}.npz"
    with written_beside(folder / name) as path, path.open("wb") as file:
        np.savez(file, ids=rows.ids.astype(ID), vectors=rows.vectors.astype(np.float32))


def read_shard(path: Path, choose: Callable[[np.ndarray], np.ndarray]) -> Rows | None:
    """The rows of a shard for which ``choose`` (ids -> mask) says so; vectors are read only if there are any.

    None for a shard that is gone, merged by another process. One that is damaged is set aside with a warning.
    """
    try:
        with np.load(path, allow_pickle=False) as shard:
            ids = shard["ids"]
            mask = choose(ids)
            if not mask.any():
                return None
            vectors = shard["vectors"]
            if (
                ids.dtype != ID
                or vectors.dtype != np.float32
                or vectors.ndim != 2
                or len(vectors) != len(ids)
            ):
                raise ValueError(f"ids {ids.shape} and vectors {vectors.shape} do not fit")
            return Rows(ids[mask], vectors[mask])
    except FileNotFoundError:
        pass
    except UNREADABLE as error:
        _set_aside(path, error)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EIO):  # a seek to a place that cannot be, a bad disk
            raise
        _set_aside(path, error)
    return None


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_suffix(".damaged")
    with suppress(OSError):
        path.rename(aside)
    logger.warning(
        "%s is damaged (%s): set aside as %s, its texts are encoded again", path, error, aside.name
    )


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A temporary path to write; it becomes ``path`` at once, and on disk, when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path, older_than: float) -> None:
    """Remove what killed processes left half written more than ``older_than`` seconds ago."""
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > older_than:
                path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
