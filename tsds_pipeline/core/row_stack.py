"""Several arrays of vectors seen as one, and which of their rows are the same."""

from collections.abc import Sequence

import numpy as np

from tsds_pipeline.core.arrays import row_blocks

# Odd, so that no word of a row is lost; the seed is arbitrary but fixed.
_HASH_SEED = 20241030


class RowStack:
    """``blocks`` of (n_b, dim) float32, in memory or mapped from disk, addressed as one array (n, dim)."""

    def __init__(self, blocks: Sequence[np.ndarray]):
        if len({block.shape[1] for block in blocks}) != 1:
            raise ValueError(
                f"blocks of one pool need one dimension, got {[block.shape for block in blocks]}"
            )
        self._blocks = list(blocks)
        self._starts = np.cumsum([0] + [len(block) for block in blocks])
        self.shape = (int(self._starts[-1]), blocks[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """The rows of an integer array, or of a slice; always a copy where more than one block is touched."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        if len(self._blocks) == 1:
            return self._blocks[0][rows]
        result = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        home = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(home):
            mine = home == number
            result[mine] = self._blocks[number][rows[mine] - self._starts[number]]
        return result


def distinct_rows(vectors: np.ndarray | RowStack) -> tuple[np.ndarray, np.ndarray]:
    """``first`` (u,), ascending: the first row of each distinct value; ``inverse`` (n,): which of them a row is."""
    n = len(vectors)
    hashes = _row_hashes(vectors)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    for start, stop in row_blocks(n, vectors.shape[1] * 8):
        repeated = start + np.flatnonzero(first[inverse[start:stop]] != np.arange(start, stop))
        if len(repeated) and (vectors[repeated] != vectors[first[inverse[repeated]]]).any():
            return np.arange(n), np.arange(n)  # two rows share a hash: treat all as distinct
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]


def _row_hashes(vectors: np.ndarray | RowStack) -> np.ndarray:
    n, dim = vectors.shape
    factors = np.random.default_rng(_HASH_SEED).integers(2**63, size=dim, dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    hashes = np.empty(n, dtype=np.uint64)
    for start, stop in row_blocks(n, dim * 16):
        words = np.ascontiguousarray(vectors[start:stop]).view(np.uint32).astype(np.uint64)
        # Words of one row that differ only in high bits would differ only in high bits of the sum.
        words ^= words >> np.uint64(15)
        hashes[start:stop] = (words * factors).sum(axis=1, dtype=np.uint64)
    return hashes
