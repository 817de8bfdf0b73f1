"""Parquet: one record a row, a bounded number of rows at a time."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tsds_pipeline.corpus.raw import RawRecord
from tsds_pipeline.errors import TsdsError

ROWS_AT_A_TIME = 2**16


def read_parquet(path: Path) -> Iterator[RawRecord]:
    """The records of ``path``. Raises :class:`TsdsError` where the file is missing, cut off or damaged."""
    for start, rows in parquet_rows(path):
        for line, fields in enumerate(rows.iter_rows(named=True), start + 1):
            yield RawRecord(line, fields)


def parquet_rows(path: Path) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of ``path``, a bounded number at a time, each time with how many came before."""
    start, rows = 0, _rows(path, 0)
    while not rows.is_empty():
        yield start, rows
        start += len(rows)
        rows = _rows(path, start)


def _rows(path: Path, start: int) -> pl.DataFrame:
    # A slice skips whole row groups; of the batches of polars' streaming engine far more are held at once.
    try:
        return pl.scan_parquet(path, glob=False).slice(start, ROWS_AT_A_TIME).collect()
    except OSError as error:
        raise TsdsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise TsdsError(f"{path}: not a whole Parquet file ({reason}): copy or write it again") from None
