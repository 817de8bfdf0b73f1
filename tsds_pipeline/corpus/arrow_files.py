"""Arrow IPC, as a stream (which Hugging Face datasets on disk are) or as a file: one record a row.

The file is mapped, and one record batch is looked at at a time.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tsds_pipeline.corpus.parquet_files import ROWS_AT_A_TIME
from tsds_pipeline.corpus.raw import RawRecord
from tsds_pipeline.errors import TsdsError

FILE_MAGIC = b"ARROW1"
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def read_arrow(path: Path) -> Iterator[RawRecord]:
    """The records of ``path``. Raises :class:`TsdsError` where the file is missing, cut off or damaged."""
    for start, rows in arrow_rows(path):
        for line, fields in enumerate(rows.iter_rows(named=True), start + 1):
            yield RawRecord(line, fields)


def arrow_rows(path: Path) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of ``path``, a bounded number at a time, each time with how many came before."""
    start = 0
    for batch in _batches(path):
        for offset in range(0, batch.num_rows, ROWS_AT_A_TIME):
            part = batch.slice(offset, ROWS_AT_A_TIME)
            yield start + offset, pl.DataFrame(pl.from_arrow(part))
        start += batch.num_rows


def _batches(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
    except ImportError:
        raise TsdsError(f"{path}: Arrow needs a package that is not installed: pip install pyarrow") from None
    try:
        with pa.memory_map(str(path)) as mapped:
            if mapped.read(len(FILE_MAGIC)) == FILE_MAGIC:
                reader = pa.ipc.open_file(mapped)
                yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                mapped.seek(0)
                yield from pa.ipc.open_stream(mapped)
                _check_end(path, mapped)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        if isinstance(error, OSError) and error.errno:
            raise TsdsError(f"{path}: cannot be read: {os.strerror(error.errno)}") from None
        raise _damaged(path, reason) from None


def _check_end(path: Path, mapped: Any) -> None:
    """A stream that was cut off between two batches looks whole but for the mark at its end."""
    mapped.seek(max(0, mapped.tell() - len(END_OF_STREAM)))
    if mapped.read(len(END_OF_STREAM)) != END_OF_STREAM:
        raise _damaged(path, "it has no mark at its end")


def _damaged(path: Path, reason: str) -> TsdsError:
    return TsdsError(f"{path}: not a whole Arrow file ({reason}): copy or write it again")
