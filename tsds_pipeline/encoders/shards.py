"""One immutable file of vectors: written whole or not at all, never read wrong.

A shard is an ``.npz`` archive without compression, with ``ids`` (n,) of 16 bytes and ``vectors`` (n, dim)
float32. Reading an array verifies the archive's checksum of it. Which shards there are is in ``cache``.
"""

import errno
import logging
import secrets
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsds_pipeline.storage import write_atomically

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

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, ids=rows.ids.astype(ID), vectors=rows.vectors.astype(np.float32))

    write_atomically(folder / f"{time.time_ns():020}-{secrets.token_hex(4)}.npz", save)


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
            if (ids.dtype, vectors.dtype, vectors.ndim, len(vectors)) != (ID, np.float32, 2, len(ids)):
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


def remove_abandoned(folder: Path, older_than: float) -> None:
    """Remove what killed processes left half written more than ``older_than`` seconds ago."""
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > older_than:
                path.unlink()
