"""Hashes of contents, which decide whether work is redone: of texts, tables and arrays, whatever file they are in."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl

_VECTOR_DECIMALS = 5
_SIGNIFICANT_BITS = 24


def content_hash(*parts: Any) -> str:
    """Hash (32 hex characters) of strings, tables and arrays; computed numbers count after rounding.

    float64 columns count with 24 significant bits (about 7 digits), float32 arrays (vectors) with 5
    decimals, so that a different summation order in a library does not look like a different result.
    """
    digest = _Digest()
    for part in parts:
        for chunk in _chunks(part):
            digest.update(chunk)
    return digest.hexdigest()


class TableHash:
    """The :func:`content_hash` of a table that comes in parts, a part in memory at a time.

    The hash goes column by column, and the parts hold a piece of each: the pieces wait in files in ``folder``.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._streams: list[tuple[Path, _Stream]] = []

    def add(self, part: pl.DataFrame) -> None:
        """The next rows; each part has the same columns."""
        streams = [stream for column in part for stream in _column_streams(column, named=True)]
        if not self._streams:
            self._streams = [(self._folder / f"stream-{n:03}", stream) for n, stream in enumerate(streams)]
        for (path, _), stream in zip(self._streams, streams, strict=True):
            if stream.kind != _NAME:
                with path.open("ab") as file:
                    file.writelines(stream.pieces)

    def hexdigest(self) -> str:
        """The hash of all parts; what waited for it is deleted."""
        digest = _Digest()
        for path, stream in self._streams:
            if stream.kind == _NAME:
                digest.update(*stream.pieces)
                continue
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if stream.kind == _MASK and not any(
                    1 in piece for piece in _read_from_start(file, _BLOCK_BYTES)
                ):
                    digest.update(b"")
                elif stream.kind == _BLOCKS:
                    for block in _read_from_start(file, stream.block):
                        digest.update(block)
                else:
                    digest.begin(size)
                    for piece in _read_from_start(file, _BLOCK_BYTES):
                        digest.go_on(piece)
            path.unlink()
        return digest.hexdigest()


class _Digest:
    """A hash over chunks, each after its length."""

    def __init__(self):
        self._hash = hashlib.blake2b(digest_size=16)
        self.go_on, self.hexdigest = self._hash.update, self._hash.hexdigest

    def begin(self, size: int) -> None:
        self._hash.update(size.to_bytes(8, "little"))

    def update(self, chunk: bytes) -> None:
        self.begin(len(chunk))
        self.go_on(chunk)


_BLOCK_BYTES = 2**24
# What becomes of a stream of pieces: a chunk that is the same in every part of a table, one chunk of all pieces,
# the same unless all are zero, or chunks of ``block`` bytes.
_NAME, _WHOLE, _MASK, _BLOCKS = range(4)


class _Stream(NamedTuple):
    kind: int
    pieces: Iterable[bytes]
    block: int = 0


def _chunks(part: Any) -> Iterable[bytes]:
    if isinstance(part, pl.DataFrame):
        for column in part:
            for stream in _column_streams(column, named=True):
                for piece in stream.pieces:
                    yield b"" if stream.kind == _MASK and 1 not in piece else piece
    elif isinstance(part, np.ndarray):
        yield f"{part.dtype.str}{part.shape}".encode()
        yield from _array_stream(part).pieces
    else:
        yield json.dumps(part, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _column_streams(column: pl.Series, named: bool = False) -> Iterable[_Stream]:
    if named:
        yield _Stream(_NAME, [f"{column.name}:{column.dtype}".encode()])
    yield _Stream(_MASK, [column.is_null().to_numpy().tobytes()])
    dtype = column.dtype
    if dtype == pl.String:
        column = column.fill_null("")
        yield _Stream(_WHOLE, [column.str.len_bytes().to_numpy().tobytes()])
        yield _Stream(_WHOLE, ["".join(column.to_list()).encode()])
    elif isinstance(dtype, pl.Struct):
        for name in [f.name for f in dtype.fields]:
            yield from _column_streams(column.struct.field(name))
    elif isinstance(dtype, pl.Array):
        yield _array_stream(column.to_numpy())
    elif isinstance(dtype, pl.List):
        yield _Stream(_WHOLE, [column.list.len().fill_null(0).to_numpy().tobytes()])
        yield from _column_streams(column.explode(empty_as_null=False, keep_nulls=False))
    else:
        yield _array_stream(column.to_numpy())


def _array_stream(array: np.ndarray) -> _Stream:
    width = math.prod(array.shape[1:])
    rows = max(1, _BLOCK_BYTES // max(1, width * array.itemsize))
    pieces = (_rounded(array[start : start + rows]).tobytes() for start in range(0, len(array), rows))
    return _Stream(_BLOCKS, pieces, rows * width * _rounded(array[:0]).itemsize)


def _read_from_start(file: BinaryIO, size: int) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(size):
        yield block


def _rounded(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.float32:
        return np.round(array.astype(np.float64), _VECTOR_DECIMALS) + 0.0
    if array.dtype == np.float64:
        mantissa, exponent = np.frexp(array)
        return np.ldexp(np.round(np.ldexp(mantissa, _SIGNIFICANT_BITS)), exponent - _SIGNIFICANT_BITS) + 0.0
    return np.ascontiguousarray(array)
