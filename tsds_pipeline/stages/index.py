"""The search index over one source's vectors: which kind, building it, opening it.

Small sources are searched exactly (a flat index is the vectors themselves, mapped from disk). An inverted
file pays from about a million vectors on.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tsds_pipeline.core.neighbors import ExactSearch, FaissSearch, NeighborSearch
from tsds_pipeline.core.row_stack import RowStack
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.storage import Artifact

EXACT_UP_TO = 1_000_000
_PROBES = 64


def index_factory(setting: str, n: int) -> str:
    """The FAISS factory string for ``n`` vectors; ``setting`` is "auto" or such a string."""
    if setting != "auto":
        return setting
    return "Flat" if n <= EXACT_UP_TO else f"IVF{int(4 * n**0.5)},Flat"


def build_index(vectors: np.ndarray, factory: str) -> Any:
    """A FAISS index (L2) of ``vectors`` (n, dim) float32, in their order."""
    import faiss

    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_L2)
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


def open_index(artifact: Artifact) -> SourceIndex:
    """The search over a stored ``faiss_index`` partition; vectors stay on disk until they are needed."""
    import faiss

    table, source = artifact.frame, artifact.path.stem
    embeddings = artifact.header.inputs.get(f"candidate_embeddings|{source}")
    if table.is_empty():
        return SourceIndex(table, np.empty((0, 0), np.float32), None, embeddings)
    index = artifact.index
    if isinstance(index, faiss.IndexFlat):
        vectors = _mapped_vectors(index)
        return SourceIndex(table, vectors, ExactSearch(RowStack([vectors])), embeddings)
    if isinstance(index, faiss.IndexIVF):
        index.nprobe = min(_PROBES, index.nlist)
    return SourceIndex(table, artifact.vectors, FaissSearch(index, artifact.vectors), embeddings)


def _mapped_vectors(index: Any) -> np.ndarray:
    """The vectors inside a flat index, without a copy; the array keeps the index alive."""
    buffer = (ctypes.c_float * (index.ntotal * index.d)).from_address(int(index.get_xb()))
    buffer.owner = index
    return np.frombuffer(buffer, np.float32).reshape(index.ntotal, index.d)
