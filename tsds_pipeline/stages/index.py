"""The search index over one source's vectors: which kind, building it, opening it.

A flat index is the vectors themselves, mapped from disk, and is searched exactly. An inverted file has to be built,
which costs as much as searching for many queries exactly: it pays for large sources and many tasks.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tsds_pipeline.core.neighbors import ExactSearch, FaissSearch, InvertedFileSearch, NeighborSearch
from tsds_pipeline.core.row_stack import RowStack
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.stages.spread_search import SpreadSearch, mapped_vectors
from tsds_pipeline.storage import Artifact
from tsds_pipeline.workers import RayWorkers

EXACT_UP_TO = 1_000_000
"""Vectors of a source up to which a task's exact search takes seconds."""
# An inverted file of 4 sqrt(n) lists takes as long to build as so many times sqrt(n) queries to answer exactly.
_QUERIES_OF_BUILD = 12
# Vectors that each list is trained on: enough for lists whose number to probe is found by measuring recall.
_POINTS_PER_LIST = 64


def index_factory(setting: str, n: int, expected_queries: int) -> str:
    """The FAISS factory string for ``n`` vectors; ``setting`` is "auto" or such a string.

    ``expected_queries`` are those of all tasks, for as long as the vectors stay the same.
    """
    if setting != "auto":
        return setting
    exact = n <= EXACT_UP_TO or expected_queries <= _QUERIES_OF_BUILD * n**0.5
    return "Flat" if exact else f"IVF{int(4 * n**0.5)},Flat"


def build_index(vectors: np.ndarray, factory: str) -> Any:
    """A FAISS index (L2) of ``vectors`` (n, dim) float32, in their order."""
    import faiss

    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_L2)
        if (inverted := faiss.try_extract_index_ivf(index)) is not None:
            inverted.cp.max_points_per_centroid = _POINTS_PER_LIST
        if not index.is_trained:
            index.train(vectors)
        index.add(np.ascontiguousarray(vectors))
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition("Error: ")[2] or "rejected by FAISS"
        raise TsdsError(
            f'[pool] index = "{factory}": cannot be built for {len(vectors):,} vectors of {vectors.shape[1]} '
            f'dimensions ({reason}); use "auto" or a factory string that fits'
        ) from None
    return index


@dataclass(frozen=True)
class SourceIndex:
    """One source's candidates, ready to be searched. Rows are numbered as in the table."""

    table: pl.DataFrame
    """content_id, count."""
    vectors: np.ndarray
    """(n, dim) float32; (0, 0) where the source is empty."""
    search: NeighborSearch | None
    """None where the source is empty."""
    embeddings: str | None = None
    """Data version of the stored embeddings; None for those that are not stored."""


def open_index(artifact: Artifact, workers: RayWorkers | None = None) -> SourceIndex:
    """The search over a stored ``faiss_index`` partition; vectors stay on disk until they are needed.

    ``workers`` share exact searches that are worth it.
    """
    import faiss

    table, source = artifact.frame, artifact.path.stem
    embeddings = artifact.header.inputs.get(f"candidate_embeddings|{source}")
    if table.is_empty():
        return SourceIndex(table, np.empty((0, 0), np.float32), None, embeddings)
    index = artifact.index
    if isinstance(index, faiss.IndexFlat):
        vectors = mapped_vectors(index)
        rows = RowStack([vectors])
        search = SpreadSearch(rows, artifact.file("index"), workers) if workers else ExactSearch(rows)
        return SourceIndex(table, vectors, search, embeddings)
    inverted = faiss.try_extract_index_ivf(index) is not None
    search = (InvertedFileSearch if inverted else FaissSearch)(index, RowStack([artifact.vectors]))
    return SourceIndex(table, artifact.vectors, search, embeddings)
