"""Checks and float64 distances that every part of the core shares."""

from tokenize import TokenError

import numpy as np

# What NumPy raises for a damaged npy file, whose header it reads as a Python literal; beside OSError.
NPY_ERRORS = (ValueError, EOFError, OverflowError, SyntaxError, TokenError)
# Working memory of one block of float64 intermediates.
BLOCK_BYTES = 64 * 2**20
# Blocks that a second pass finds in the processor's caches.
_CACHED_BYTES = 2**20
# How far from 1 the length of a float32 row may be that was scaled to unit length before.
UNIT_ROUNDING = 1e-6
# Of vectors up to this length (2.3e18) squared distances, and what they are put together from, are finite in float32.
LONGEST = float(np.sqrt(np.finfo(np.float32).max)) / 8


def as_vectors(vectors: np.ndarray, name: str) -> np.ndarray:
    """``vectors`` as a C-contiguous float32 array (n, dim); ValueError names what is wrong."""
    array = np.asarray(vectors)
    check_shape(array, name)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf
        return np.ascontiguousarray(array, dtype=np.float32)


def check_shape(array: np.ndarray, name: str) -> None:
    """ValueError unless ``array`` is (n, dim) and has something in it."""
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] == 0:
        raise ValueError(f"{name} must be a non-empty array of shape (n, dim), got shape {array.shape}")


def row_blocks(n: int, bytes_per_row: int, size: int = BLOCK_BYTES) -> list[tuple[int, int]]:
    """``[start, stop)`` pairs that cover ``n`` rows, each within ``size`` bytes (one row at least)."""
    step = max(1, size // max(1, bytes_per_row))
    return [(start, min(start + step, n)) for start in range(0, n, step)]


def spread_sample(n: int, size: int) -> np.ndarray:
    """At most ``size`` of the rows 0..n-1, evenly spread, ascending."""
    return np.unique(np.linspace(0, n - 1, size).astype(np.int64))


def pair_distances(left: np.ndarray, right: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Plain L2 distance of ``left[rows[p]]`` and ``right[columns[p]]`` for every pair p, float64 (P,).

    Sums of squared float64 differences in a fixed order: equal rows give exactly 0 and equal pairs equal
    bits, which the expanded form |x|^2 + |y|^2 - 2xy does not.
    """
    distances = np.empty(len(rows))
    for start, stop in row_blocks(len(rows), left.shape[1] * 16):
        difference = left[rows[start:stop]].astype(np.float64)
        difference -= right[columns[start:stop]]
        np.einsum("ij,ij->i", difference, difference, out=distances[start:stop])
    return np.sqrt(distances, out=distances)


def all_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Plain L2 distances of every pair, float64 (len(left), len(right)).

    A float64 matrix product; where it cancels (small distances), pairs are evaluated again one by one.
    """
    x = left.astype(np.float64)
    norms = np.einsum("ij,ij->i", x, x)[:, None]
    result = np.empty((len(left), len(right)))
    for start, stop in row_blocks(len(right), 8 * (x.shape[1] + 2 * len(x))):
        y = right[start:stop].astype(np.float64)
        scale = norms + np.einsum("ij,ij->i", y, y)
        squared = np.subtract(scale, 2.0 * (x @ y.T), out=result[:, start:stop])
        rows, columns = np.nonzero(squared < 1e-5 * scale)
        np.sqrt(np.maximum(squared, 0.0, out=squared), out=squared)
        squared[rows, columns] = pair_distances(left, right, rows, start + columns)
    return result


def squared_distance_error(dim: int, left_norm: float, right_norm: float) -> float:
    """Bound on the error of a float32 squared distance in expanded form, for rows of these lengths."""
    return float((dim + 16) * np.finfo(np.float32).eps * (left_norm + right_norm) ** 2)


def row_lengths(vectors: np.ndarray) -> np.ndarray:
    """Length of each row, float64 (n,); not finite where a value is not."""
    lengths = np.empty(len(vectors))
    for start, stop in row_blocks(len(vectors), vectors.shape[1] * 8, _CACHED_BYTES):
        block = vectors[start:stop].astype(np.float64)
        np.sqrt(np.einsum("ij,ij->i", block, block), out=lengths[start:stop])
    return lengths
