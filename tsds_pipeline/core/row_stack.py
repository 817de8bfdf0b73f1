"""Several arrays of vectors seen as one, read block by block where they do not fit in memory."""

import mmap
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Self

import numpy as np

from tsds_pipeline.core.arrays import LONGEST, UNIT_ROUNDING, as_vectors, check_shape, row_blocks, row_lengths
from tsds_pipeline.core.machine import block_bytes

# What the system maps around a row that is read of a file; what may be mapped before it is given back.
_READ_AROUND, _RESIDENT = 2**16, 2**30
# Odd, so that no word of a row is lost; the seed is arbitrary but fixed.
_HASH_SEED = 20241030


class RowStack:
    """``blocks`` of (n_b, dim) float32 or float16, in memory or mapped from disk, addressed as one float32 array.

    With ``lengths`` (n,) every row is divided by its own where it is read.
    """

    @classmethod
    def of(cls, vectors: np.ndarray, name: str, *, normalize: bool) -> Self:
        """``vectors`` (n, dim) of any real dtype, checked, and read at length 1 where ``normalize``.

        float32 and float16 stay where they are, in memory or in a mapped file, of which little is resident.
        ValueError names the row that is not finite or, to be normalised, all zeros; or else longer than LONGEST.
        """
        as_it_is = isinstance(vectors, np.ndarray) and vectors.dtype in (np.float32, np.float16)
        if not (as_it_is and vectors.flags.c_contiguous):
            vectors = as_vectors(vectors, name)
        check_shape(vectors, name)
        stack = cls([vectors])
        lengths = stack.lengths
        with np.errstate(over="ignore"):
            finite = np.isfinite(lengths.astype(np.float32))
        if not finite.all():
            row = int(np.argmin(finite))
            raise ValueError(f"{name}[{row}] has a value that is not finite in float32; remove or repair it")
        if not normalize:
            if stack.longest > LONGEST:
                row = int(np.argmax(lengths))
                raise ValueError(
                    f"{name}[{row}] has length {lengths[row]:.3g}, too long for squared distances in float32; scale "
                    f"all vectors down (to {LONGEST:.2g} at most) or normalize"
                )
            return stack
        if not lengths.all():
            row = int(np.argmin(lengths))
            raise ValueError(
                f"{name}[{row}] is all zeros and has no direction; remove it or do not normalize"
            )
        lengths = np.where(np.abs(lengths - 1.0) <= UNIT_ROUNDING, 1.0, lengths)
        return stack if (lengths == 1.0).all() else cls([vectors], lengths)

    def __init__(self, blocks: Sequence[np.ndarray], lengths: np.ndarray | None = None):
        if len({block.shape[1] for block in blocks}) != 1:
            raise ValueError(
                f"blocks of one pool need one dimension, got {[block.shape for block in blocks]}"
            )
        self._blocks = list(blocks)
        self._starts = np.cumsum([0] + [len(block) for block in blocks])
        self._lengths = None if lengths is None else lengths.astype(np.float32)
        self.shape = (int(self._starts[-1]), blocks[0].shape[1])
        # Only what cannot have been written to is given back: a change of a private mapping would be lost.
        self._mapped = [block for block in blocks if isinstance(block, np.memmap) and block.mode == "r"]
        self._resident = 0

    def subset(self, rows: np.ndarray) -> "RowStack":
        """The ``rows`` (n,) as a stack of their own, read where they are."""
        return _Subset(self, rows)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """The rows of an integer array or of a slice, float32; a view where they are so in memory."""
        result = self._slice(rows) if isinstance(rows, slice) else self._gather(rows)
        if self._mapped:
            self._note_read(result.nbytes if isinstance(rows, slice) else len(rows) * _READ_AROUND)
        if self._lengths is None:
            return result
        return result / self._lengths[rows, None]

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """First row and rows of blocks of ``size`` bytes, in order; without ``size`` as large as memory allows."""
        for start, stop in row_blocks(len(self), self.shape[1] * 4, size or block_bytes()):
            yield start, self[start:stop]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Length of each row as it is read, float64 (n,); not finite where a value is not."""
        if self._lengths is not None:
            return np.ones(len(self))
        return np.concatenate([row_lengths(block) for _, block in self.blocks()])

    @property
    def longest(self) -> float:
        """Length of the longest row."""
        return float(self.lengths.max())

    def _note_read(self, size: int) -> None:
        """Now and then give back the memory of what was read of mapped files; it stays in the system's cache."""
        self._resident += size
        if self._resident > _RESIDENT and hasattr(mmap, "MADV_DONTNEED"):
            self._resident = 0
            for block in self._mapped:
                block._mmap.madvise(mmap.MADV_DONTNEED)

    def _slice(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        if step == 1 and first < len(self._blocks) and stop <= self._starts[first + 1]:
            low = self._starts[first]
            return np.asarray(self._blocks[first][start - low : stop - low], dtype=np.float32)
        return self._gather(np.arange(start, stop, step))

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        if len(self._blocks) == 1:
            return np.asarray(self._blocks[0][rows], dtype=np.float32)
        result = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        home = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(home):
            mine = home == number
            result[mine] = self._blocks[number][rows[mine] - self._starts[number]]
        return result


class _Subset(RowStack):
    def __init__(self, stack: RowStack, rows: np.ndarray):
        self._stack, self._rows, self._lengths = stack, rows, None
        self.shape = (len(rows), stack.shape[1])

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        return self._stack[self._rows[rows]]


def distinct_rows(vectors: np.ndarray | RowStack) -> tuple[np.ndarray, np.ndarray]:
    """``first`` (u,), ascending: the first row of each distinct value; ``inverse`` (n,): which of them a row is."""
    n = len(vectors)
    hashes = _row_hashes(vectors)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[inverse] != np.arange(n))
    for start, stop in row_blocks(len(repeated), vectors.shape[1] * 8):
        rows = repeated[start:stop]
        if (vectors[rows] != vectors[first[inverse[rows]]]).any():
            return np.arange(n), np.arange(n)  # two rows share a hash: treat all as distinct
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]


def _row_hashes(vectors: np.ndarray | RowStack) -> np.ndarray:
    """A sum of the row's words, each times a factor of its own (modulo 2^64), after mixing each word's bits."""
    n, dim = vectors.shape
    factors = np.random.default_rng(_HASH_SEED).integers(2**63, size=dim, dtype=np.uint64) * 2 + 1
    hashes = np.empty(n, dtype=np.uint64)
    # Blocks that stay in the processor's caches: the words are passed over several times.
    for start, stop in row_blocks(n, dim * 8, 2**20):
        words = np.ascontiguousarray(vectors[start:stop]).view(np.uint32).astype(np.uint64)
        # Words of one row that differ only in high bits would differ only in high bits of the sum.
        words ^= words >> np.uint64(15)
        np.einsum("ij,j->i", words, factors, out=hashes[start:stop])
    return hashes
