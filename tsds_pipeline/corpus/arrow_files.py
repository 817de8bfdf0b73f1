"""Arrow IPC, as a stream (which Hugging Face datasets on disk are) or as a file: one record a row.

The file is mapped, and one record batch is looked at at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tsds_pipeline.corpus.parquet_files import ROWS_AT_A_TIME
from tsds_pipeline.corpus.raw import RawRecord
from tsds_pipeline.errors import TsdsError

FILE_MAGIC = b"ARROW1"
# What ends a stream, in every version of the format.
_END = bytes(4)


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
        raise TsdsError(
            f"{path}: Arrow files need a package that is not installed: pip install pyarrow"
        ) from None
    try:
        with pa.memory_map(str(path)) as mapped:
            if mapped.read(len(FILE_MAGIC)) == FILE_MAGIC:
                reader = pa.ipc.open_file(mapped)
                yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                mapped.seek(0)
                yield from _to_the_end(pa.ipc.open_stream(mapped), mapped)
    except (pa.ArrowException, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise TsdsError(f"{path}: cannot be read: {error.strerror}") from None
        reason = str(error).partition("\n")[0]
        raise TsdsError(f"{path}: not a whole Arrow file ({reason}): copy or write it again") from None


def _to_the_end(reader: Any, mapped: Any) -> Iterator[Any]:
    """The batches of a stream; EOFError where its end is missing, which Arrow itself takes for an end."""
    yield from reader
    mapped.seek(max(0, mapped.tell() - len(_END)))
    if mapped.read(len(_END)) != _END:
        raise EOFError("it ends early")
