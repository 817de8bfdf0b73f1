"""Every vector that an encoder ever made: a text is never encoded twice.

One folder for each fingerprint holds ``encoder.json`` (the fingerprint), shards (see ``shards``) and the model,
where it had to be converted (see ``onnx_model``). Any
number of processes may read and write it at once. Two that encode one text at the same time both keep its
vector; the two differ in their last bits at most, and a look-up takes the one in the older shard.
"""

import time
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from tsds_pipeline.encoders.shards import ID, Rows, read_shard, remove_abandoned, write_shard
from tsds_pipeline.storage import write_atomically

FOLDER = "embedding_cache"
"""Its place in a project's storage/."""
SHARD_BYTES = 64 * 2**20
"""Size of a full shard: what reading one vector costs at most."""
MERGE_AT = 32
"""So many shards below half of that size are merged: every look-up opens every shard."""
FLUSH_SECONDS = 30.0
"""A killed run loses what it encoded for so long, and the chunk at hand."""
ABANDONED_SECONDS = 24 * 3600.0


class Found(NamedTuple):
    """``vectors`` (n, dim) float32, to be read where ``known`` (n,); None when nothing is known."""

    vectors: np.ndarray | None
    known: np.ndarray


def as_ids(content_ids: list[str]) -> np.ndarray:
    """Content ids of 32 hexadecimal characters as an array (n,) of 16 bytes, in the same order."""
    return np.frombuffer(bytes.fromhex("".join(content_ids)), dtype=ID)


def encoder_folder(root: Path, fingerprint: str) -> Path:
    """The folder under ``root`` of the encoder with this ``fingerprint``."""
    return root / blake2b(fingerprint.encode(), digest_size=16).hexdigest()


class VectorCache:
    """The vectors of the encoder with this ``fingerprint``, in a folder of its own under ``root``."""

    def __init__(self, root: Path, fingerprint: str):
        self.folder = encoder_folder(root, fingerprint)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "encoder.json").exists():
            text = fingerprint + "\n"
            write_atomically(
                self.folder / "encoder.json", lambda path: path.write_text(text, encoding="utf-8")
            )

    def find(self, wanted: np.ndarray) -> Found:
        """Look up ``wanted``, ids (n,) in ascending order, each once."""
        vectors, known = None, np.zeros(len(wanted), dtype=bool)

        def is_new(ids: np.ndarray) -> np.ndarray:
            places = np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)
            return (wanted[places] == ids) & ~known[places]

        seen: set[Path] = set()
        # A shard may be gone, merged by another process: list again, until nothing new is there.
        while not known.all() and (fresh := set(self._shards()) - seen):
            for path in sorted(fresh):
                if (rows := read_shard(path, is_new)) is not None:
                    places = np.searchsorted(wanted, rows.ids)
                    if vectors is None:
                        vectors = np.empty((len(wanted), rows.vectors.shape[1]), np.float32)
                    vectors[places], known[places] = rows.vectors, True
            seen |= fresh
        return Found(vectors, known)

    def merge(self) -> None:
        """Make few large shards of many small ones. Others may read meanwhile: see ``find``."""
        remove_abandoned(self.folder, ABANDONED_SECONDS)
        small = [(path, size) for path in self._shards() if (size := _size(path)) < SHARD_BYTES / 2]
        if len(small) < MERGE_AT:
            return
        group, total = [], 0
        for path, size in small:
            group.append(path)
            total += size
            if total >= SHARD_BYTES / 2:
                self._merge(group)
                group, total = [], 0
        self._merge(group)

    def _merge(self, group: list[Path]) -> None:
        read = [read_shard(path, lambda ids: np.ones(len(ids), dtype=bool)) for path in group]
        parts = [rows for rows in read if rows is not None]
        if len(parts) < 2:
            return
        # The first of equal ids is kept, which is the oldest.
        ids, first = np.unique(np.concatenate([part.ids for part in parts]), return_index=True)
        write_shard(self.folder, Rows(ids, np.concatenate([part.vectors for part in parts])[first]))
        for path in group:
            path.unlink(missing_ok=True)

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.npz"))


class CacheWriter:
    """Gathers vectors and writes a shard of them now and then, and at the end of the ``with`` block."""

    def __init__(self, cache: VectorCache):
        self._cache = cache
        self._begin()

    def _begin(self) -> None:
        self._parts: list[Rows] = []
        self._bytes, self._since = 0, time.monotonic()

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Keep ``vectors`` (n, dim) float32 under ``ids`` (n,) for good."""
        self._parts.append(Rows(ids, vectors))
        self._bytes += vectors.nbytes
        if self._bytes >= SHARD_BYTES or time.monotonic() - self._since >= FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        if self._parts:
            ids, vectors = zip(*self._parts, strict=True)
            write_shard(self._cache.folder, Rows(np.concatenate(ids), np.concatenate(vectors)))
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
