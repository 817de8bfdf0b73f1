"""Parquet: one record a row, a bounded number of rows at a time."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tsds_pipeline.corpus.columnar import damage_told, records_of
from tsds_pipeline.corpus.raw import RawRecord

ROWS_AT_A_TIME = 2**16


def read_parquet(path: Path, limit: int) -> Iterator[RawRecord]:
    """The records of ``path``; a row has at most ``limit`` bytes.

    Raises :class:`TsdsError` where the file is missing, cut off or damaged.
    """
    return records_of(parquet_rows(path), limit)


def parquet_rows(path: Path) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of ``path``, a bounded number at a time, each time with how many came before."""
    start, rows = 0, _rows(path, 0)
    while not rows.is_empty():
        yield start, rows
        start += len(rows)
        rows = _rows(path, start)


def _rows(path: Path, start: int) -> pl.DataFrame:
    # A slice skips whole row groups; of the batches of polars' streaming engine far more are held at once.
    with damage_told(path, "Parquet"):
        return pl.scan_parquet(path, glob=False).slice(start, ROWS_AT_A_TIME).collect()
