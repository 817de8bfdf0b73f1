"""Exact search among the rows of a flat index, over workers that map the same file: each among some of the rows.

What is found does not depend on how the rows are divided: distances are evaluated pair by pair, and order is by
distance, then by row (see ``core.neighbors``).
"""

import ctypes
import socket
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tsds_pipeline.core.arrays import row_blocks
from tsds_pipeline.core.machine import use_cores
from tsds_pipeline.core.neighbors import ExactSearch, Neighbors, sort_rows
from tsds_pipeline.core.row_stack import RowStack
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.workers import RayWorkers

WORTH = 5e10
"""Products (queries x candidates x dimensions) from which a search takes longer than to hand it out."""
LEAST_ROWS = 2**15
_PIECES_PER_WORKER = 2
_FOUND_BYTES = 2**29


class SpreadSearch(ExactSearch):
    """Exact neighbours among ``candidates``, which are the rows of the flat index in ``file``."""

    def __init__(self, candidates: RowStack, file: Path, workers: RayWorkers):
        super().__init__(candidates)
        self._file, self._workers = file, workers

    def search(self, queries: np.ndarray, k: int) -> Neighbors:
        n, dim = self.candidates.shape
        if float(len(queries)) * n * dim < WORTH:
            return super().search(queries, k)
        rows = max(LEAST_ROWS, -(-n // (_PIECES_PER_WORKER * self._workers.at_once())))
        pieces = [(start, min(start + rows, n)) for start in range(0, n, rows)]
        cores = max(1, int(self._workers.cpus))
        found = []
        for start, stop in row_blocks(len(queries), min(k, rows) * len(pieces) * 48, _FOUND_BYTES):
            shared = (str(self._file), queries[start:stop], k, cores)
            parts = list(self._workers.map(search_rows, pieces, shared))
            merged = sort_rows(*(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))
            found.append(Neighbors(merged.distances[:, :k], merged.indices[:, :k]))
        return Neighbors(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def search_rows(file: str, queries: np.ndarray, k: int, cores: int, start: int, stop: int) -> Neighbors:
    """What a worker does: the ``k`` nearest of ``queries`` among the rows [start, stop) of the index in ``file``."""
    use_cores(cores)
    found = ExactSearch(RowStack([_vectors(file)[start:stop]])).search(np.ascontiguousarray(queries), k)
    return Neighbors(found.distances, found.indices + start)


@lru_cache(maxsize=4)
def _vectors(file: str) -> np.ndarray:
    import faiss

    if not Path(file).is_file():
        raise TsdsError(
            f"{file}: a Ray worker on {socket.gethostname()} does not find it: the project folder has to be at the "
            "same place on every machine"
        )
    return mapped_vectors(faiss.read_index(file, faiss.IO_FLAG_MMAP_IFC))


def mapped_vectors(index: Any) -> np.ndarray:
    """The vectors inside a flat index, without a copy; the array keeps the index alive."""
    buffer = (ctypes.c_float * (index.ntotal * index.d)).from_address(int(index.get_xb()))
    buffer.owner = index
    return np.frombuffer(buffer, np.float32).reshape(index.ntotal, index.d)
