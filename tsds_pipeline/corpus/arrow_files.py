"""Arrow IPC, as a stream (which Hugging Face datasets on disk are) or as a file: one record a row.

The file is mapped, and one record batch is looked at at a time.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tsds_pipeline.corpus.columnar import damage_told, damaged, records_of
from tsds_pipeline.corpus.parquet_files import ROWS_AT_A_TIME
from tsds_pipeline.corpus.raw import RawRecord
from tsds_pipeline.errors import TsdsError

FILE_MAGIC = b"ARROW1"
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def read_arrow(path: Path, limit: int) -> Iterator[RawRecord]:
    """The records of ``path``; a row has at most ``limit`` bytes.

    Raises :class:`TsdsError` where the file is missing, cut off or damaged.
    """
    return records_of(arrow_rows(path), limit)


def arrow_rows(path: Path) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of ``path``, a bounded number at a time, each time with how many came before."""
    start = 0
    for batch in _batches(path):
        for offset in range(0, batch.num_rows, ROWS_AT_A_TIME):
            with damage_told(path, "Arrow"):
                rows = pl.DataFrame(pl.from_arrow(batch.slice(offset, ROWS_AT_A_TIME)))
                rows.columns = batch.schema.names  # polars calls one without a name column_0
            yield start + offset, rows
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
                yield from (_sound(reader.get_batch(number)) for number in range(reader.num_record_batches))
            else:
                mapped.seek(0)
                yield from map(_sound, pa.ipc.open_stream(mapped))
                _check_end(path, mapped)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise TsdsError(f"{path}: cannot be read: {os.strerror(error.errno)}") from None
        raise damaged(path, "Arrow", str(error)) from None


def _sound(batch: Any) -> Any:
    """``batch``, once nothing in it leads out of it: polars takes that for granted."""
    batch.validate(full=True)
    return batch


def _check_end(path: Path, mapped: Any) -> None:
    """A stream that was cut off between two batches looks whole but for the mark at its end."""
    mapped.seek(max(0, mapped.tell() - len(END_OF_STREAM)))
    if mapped.read(len(END_OF_STREAM)) != END_OF_STREAM:
        raise damaged(path, "Arrow", "it has no mark at its end")
