"""The vectors of a table of records: those the cache has, and the others encoded and kept."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tsds_pipeline.encoders.base import Encoder, check_vectors
from tsds_pipeline.encoders.cache import CacheWriter, VectorCache, as_ids
from tsds_pipeline.encoders.precomputed import PrecomputedVectors
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.progress import Progress
from tsds_pipeline.workers import RayWorkers

logger = logging.getLogger(__name__)
_advised: list[str] = []


@dataclass(frozen=True)
class Embedded:
    """``vectors`` (n, dim) float32, one a record and in their order; (0, 0) without records.

    ``encoded`` and ``reused`` count distinct texts: encoded now, and taken from the cache.
    """

    vectors: np.ndarray
    encoded: int
    reused: int


def embed(
    records: pl.DataFrame,
    encoder: Encoder | PrecomputedVectors,
    cache_root: Path,
    name: str,
    progress: Progress | None = None,
    workers: RayWorkers | None = None,
) -> Embedded:
    """Vectors of ``records`` (columns content_id, text; with precomputed vectors also ``vector``).

    ``name`` says whose records they are in errors, as in "source flan_cot". ``progress`` counts the texts
    that are encoded and is not called when there are none; ``workers`` share what is more than one call. The
    result does not depend on the order of the records, and what the cache holds is returned bit for bit.
    Raises :class:`TsdsError` for a vector that is not finite or is all zeros, naming its record; what was
    encoded before it stays in the cache.
    """
    if isinstance(encoder, PrecomputedVectors):
        return Embedded(encoder.vectors(records, name), 0, 0)
    if records.is_empty():
        return Embedded(np.empty((0, 0), np.float32), 0, 0)
    ids, first, copies = _distinct(as_ids(records["content_id"].to_list()))
    cache = VectorCache(cache_root, encoder.fingerprint)
    vectors, known = cache.find(ids)
    missing = np.flatnonzero(~known)
    at_once = encoder.encoded_at_once
    chunks = [missing[start : start + at_once] for start in range(0, len(missing), at_once)]
    texts = (records["text"][first[rows]].to_list() for rows in chunks)
    if workers is not None and len(chunks) > 1:
        made = _spread(encoder, texts, workers, len(missing), progress)
    else:
        if advice := encoder.advice(len(missing)):
            _advise(advice)
        made = _here(encoder, texts, len(missing), progress)
    with CacheWriter(cache) as writer:
        for rows, new in zip(chunks, made, strict=True):
            chunk = records[first[rows]]
            check_vectors(new, chunk, name, "remove the record or use another model")
            writer.add(ids[rows], new)
            if vectors is None:
                vectors = np.empty((len(ids), new.shape[1]), np.float32)
            vectors[rows] = new
    if len(missing):
        cache.merge()
    return Embedded(vectors[copies], len(missing), len(ids) - len(missing))


def _here(
    encoder: Encoder, chunks: Iterator[list[str]], total: int, progress: Progress | None
) -> Iterator[np.ndarray]:
    done = 0
    for texts in chunks:
        yield encoder.encode(texts, _shifted(progress, done, total))
        done += len(texts)


def _spread(
    encoder: Encoder, chunks: Iterator[list[str]], workers: RayWorkers, total: int, progress: Progress | None
) -> Iterator[np.ndarray]:
    """The same vectors: a chunk is encoded by itself, here and there."""
    done, shared = 0, (encoder.afresh(), encoder.fingerprint)
    for vectors in workers.map(encode_chunk, ((texts,) for texts in chunks), shared):
        done += len(vectors)
        if progress:
            progress(done, total)
        yield vectors


def encode_chunk(encoder: Encoder, fingerprint: str, texts: Sequence[str]) -> np.ndarray:
    """What a worker does. Its vectors are kept under ``fingerprint``: they may be of no other model."""
    if encoder.fingerprint != fingerprint:
        raise TsdsError(
            f"a worker has another encoder, {encoder.fingerprint}, than {fingerprint}: put the same model, and the "
            "same packages, on every machine"
        )
    return encoder.encode(texts)


def _advise(text: str) -> None:
    """Once a process: the next source would hear the same."""
    if not _advised:
        _advised.append(text)
        logger.warning(text)


def _distinct(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | slice]:
    """(distinct, first, copies): ascending, ``ids[first] == distinct`` and ``distinct[copies] == ids``."""
    if (ids[:-1] < ids[1:]).all():  # as a corpus always is: nothing to sort, and no copy of the vectors
        return ids, np.arange(len(ids)), slice(None)
    return np.unique(ids, return_index=True, return_inverse=True)


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """The progress of one chunk as that of all texts."""
    return progress and (lambda done, _: progress(before + done, total))
