"""Precomputed vectors in files beside the records, found by the records' own ids.

``x.npy`` has a row a vector, and ``x.ids.txt`` beside it the id of each, a line an id. A Parquet or Arrow file has an
id and a list of numbers, of any or of fixed size, in each row. Rows are mapped from disk; of an id 24 bytes are in
memory.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import NPY_ERRORS
from tsds_pipeline.corpus.arrow_files import arrow_rows
from tsds_pipeline.corpus.parquet_files import parquet_rows
from tsds_pipeline.corpus.quarantine import BadRecord, Quarantined, excerpt_of, quarantined
from tsds_pipeline.corpus.raw import ID_FIELDS
from tsds_pipeline.corpus.vectors import finite
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.file_names import check_name

NPY = ".npy"
IDS = ".ids.txt"
FORMATS = (NPY, ".parquet", ".arrow")
FORMAT_RULE = f"{NPY} (with {IDS} beside it), .parquet or .arrow"
_ID = np.dtype("S16")


def ids_file(path: Path) -> Path | None:
    """The file with the ids of the vectors in ``path``, where they are not in ``path`` itself."""
    return path.with_name(path.name.removesuffix(NPY) + IDS) if path.name.endswith(NPY) else None


class _File(NamedTuple):
    path: Path
    vectors: np.ndarray
    """(n, dim), mapped from disk."""
    first: int
    """How many vectors the files before it have."""


class VectorFiles:
    """The vectors in the files ``paths``; in those with columns, in the column ``field``.

    What has to be converted goes to a folder in ``scratch`` (default: the system's), for as long as this is there;
    ``names`` says what ``unused`` calls a file, where that is not its path.
    Raises :class:`TsdsError` for a file that cannot be read, ids that do not fit, one that stands twice, and vectors
    of different length.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        field: str,
        scratch: Path | None = None,
        names: Mapping[Path, str] | None = None,
    ):
        self.field = field
        self._names = names or {}
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix=".vectors-", suffix=".tmp", dir=scratch)
        self._files: list[_File] = []
        hashes, count = [], 0
        for path in paths:
            check_name(path)
            vectors = _mapped(path) if path.name.endswith(NPY) else self._converted(path)
            first = next((file for file in self._files if len(file.vectors)), None)
            if first and len(vectors) and vectors.shape[1] != (dim := first.vectors.shape[1]):
                raise TsdsError(
                    f"{path}: vectors of {vectors.shape[1]} numbers, in {first.path} they have {dim}: give all vectors "
                    "one length"
                )
            ids = _hashed(self._ids(path))
            if len(ids) != len(vectors):
                raise TsdsError(
                    f"{ids_file(path)}: {len(ids):,} ids for the {len(vectors):,} vectors in {path.name}: give each "
                    "vector its id, on a line of its own"
                )
            self._files.append(_File(path, vectors, count))
            hashes.append(ids)
            count += len(ids)
        every = np.concatenate([np.empty(0, _ID), *hashes])
        self._order = np.argsort(every, kind="stable")
        self._sorted = every[self._order]
        self._used = np.zeros(count, dtype=bool)
        twice = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if len(twice):
            path, row, record_id = self._described(int(self._order[twice[0] + 1]))
            raise TsdsError(
                f'{path}: row {row}: the id "{excerpt_of(record_id)}" stands twice: keep one vector of it'
            )

    def of(self, fields: dict[str, Any], record_id: str | None) -> np.ndarray:
        """See ``vectors.Vectors``."""
        names = ", ".join(file.path.name for file in self._files[:3])
        if record_id is None:
            raise BadRecord(
                f"it has no id ({', '.join(ID_FIELDS)}) by which its vector could be found in {names}"
            )
        wanted = _hashed([record_id])[0]
        place = int(np.searchsorted(self._sorted, wanted))
        if place == len(self._sorted) or self._sorted[place] != wanted:
            raise BadRecord(f'there is no vector for its id "{record_id}" in {names}')
        row = int(self._order[place])
        self._used[row] = True
        file = next(file for file in reversed(self._files) if file.first <= row)
        return finite(file.vectors[row - file.first], f'the vector of "{record_id}" in {file.path.name}')

    def unused(self) -> Iterator[Quarantined]:
        """Every vector that no record asked for, as a bad record of its file."""
        for file in self._files:
            unused = ~self._used[file.first : file.first + len(file.vectors)]
            for row, record_id in enumerate(self._ids(file.path) if unused.any() else ()):
                if unused[row]:
                    error = BadRecord(f'a vector without a record: no record has the id "{record_id}"')
                    name = self._names.get(file.path, str(file.path))
                    yield quarantined(name, row + 1, error, record_id.encode())

    def _described(self, row: int) -> tuple[Path, int, str]:
        file = next(file for file in reversed(self._files) if file.first <= row)
        wanted = row - file.first
        return file.path, wanted + 1, next(one for n, one in enumerate(self._ids(file.path)) if n == wanted)

    def _ids(self, path: Path) -> Iterator[str]:
        listed = ids_file(path)
        return _lines(listed) if listed else _column_ids(path)

    def _converted(self, path: Path) -> np.ndarray:
        """The vectors of a file with columns, in one of rows that can be mapped."""
        raw, count, dim = Path(self._folder.name) / f"{len(self._files)}.raw", 0, None
        with raw.open("wb") as file:
            for start, rows in _rows(path):
                column = _vector_column(path, rows, self.field)
                lengths = column.list.len()
                dim = lengths[0] if dim is None and len(rows) else dim
                odd = lengths.ne_missing(dim) | column.list.eval(pl.element().is_null()).list.any()
                if odd.any():
                    row = int(odd.arg_max())
                    raise TsdsError(
                        f'{path}: row {start + row + 1}: "{self.field}" is no list of {dim} numbers, as in the first '
                        "row: give each row its vector"
                    )
                file.write(column.explode().to_numpy().astype(np.float32).tobytes())
                count += len(rows)
        if not count or not dim:
            return np.empty((0, dim or 0), np.float32)
        return np.memmap(raw, np.float32, "r", shape=(count, dim))


def _hashed(ids: Iterable[str]) -> np.ndarray:
    return np.frombuffer(b"".join(hashlib.blake2b(one.encode(), digest_size=16).digest() for one in ids), _ID)


def _mapped(path: Path) -> np.ndarray:
    try:
        # Unlike np.load, it knows no other formats, and nothing of pickles.
        with np.errstate(over="ignore"):  # of a shape that no file can have, which is an error anyway
            vectors = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise TsdsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except NPY_ERRORS as error:
        reason = re.sub(
            r" at 0x\w+", "", str(error)
        )  # where an object is says nothing, and each time another thing
        raise TsdsError(f"{path}: not a whole npy file ({reason}): copy or write it again") from None
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or (len(vectors) and not vectors.shape[1]):
        raise TsdsError(f"{path}: not a table of numbers with a vector in each row: save an array (n, dim)")
    return vectors


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                record_id = line.rstrip("\r\n")
                if not record_id.strip():
                    raise TsdsError(f"{path}:{number}: a blank line: give each vector its id")
                yield record_id
    except OSError as error:
        raise TsdsError(
            f"{path}: cannot be read: {error.strerror}: write the ids of the vectors there"
        ) from None
    except UnicodeDecodeError:
        raise TsdsError(f"{path}: not UTF-8: save the file as UTF-8") from None


def _rows(path: Path) -> Iterator[tuple[int, pl.DataFrame]]:
    return arrow_rows(path) if path.name.endswith(".arrow") else parquet_rows(path)


def _column_ids(path: Path) -> Iterator[str]:
    for start, rows in _rows(path):
        name = next((name for name in ID_FIELDS if name in rows.columns), None)
        if name is None or not (rows[name].dtype == pl.String or rows[name].dtype.is_integer()):
            raise TsdsError(
                f"{path}: no column of ids ({', '.join(ID_FIELDS)}): add one of texts or whole numbers"
            )
        ids = rows[name].cast(pl.String)
        if ids.null_count():
            raise TsdsError(
                f"{path}: row {start + int(ids.is_null().arg_max()) + 1}: no id: give each vector its id"
            )
        yield from ids


def _vector_column(path: Path, rows: pl.DataFrame, field: str) -> pl.Series:
    column = rows[field] if field in rows.columns else None
    if column is not None and isinstance(column.dtype, pl.Array) and len(column.dtype.shape) == 1:
        column = column.arr.to_list()
    if column is None or not isinstance(column.dtype, pl.List) or not column.dtype.inner.is_numeric():
        raise TsdsError(
            f'{path}: no column "{field}" of lists of numbers: add it, or name another with [encoder] field = "..."'
        )
    return column
