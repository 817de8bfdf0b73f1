"""Many records made one table: copies and variants collapsed, in an order that only their contents decide.

Nothing is read here. A single record is judged in ``records``, except that vectors must have one length.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from tsds_pipeline.corpus.records import Identified

BATCH = 2**16
ROW_SCHEMA = {
    "file": pl.UInt32,
    "line": pl.Int64,
    "content_id": pl.String,
    "record_id": pl.String,
    "text": pl.String,
    "record": pl.String,
}


class Rows:
    """Collects rows of ``schema``; a batch at a time leaves Python's memory."""

    def __init__(self, schema: Mapping[str, Any]):
        self._schema = dict(schema)
        self._rows: list[tuple] = []
        self._batches = [pl.DataFrame(schema=self._schema)]

    def append(self, row: tuple) -> None:
        """One more row."""
        self._rows.append(row)
        if len(self._rows) == BATCH:
            self._flush()

    def frame(self) -> pl.DataFrame:
        """All rows, in the order they came."""
        self._flush()
        return pl.concat(self._batches)

    def _flush(self) -> None:
        self._batches.append(pl.DataFrame(self._rows, schema=self._schema, orient="row"))
        self._rows = []


class RowTable(Rows):
    """Collects records with their places (``file`` by number)."""

    def __init__(self, with_vectors: bool):
        super().__init__(ROW_SCHEMA | ({"vector": pl.List(pl.Float32)} if with_vectors else {}))

    def add(self, file: int, line: int, record: Identified) -> None:
        """One more record."""
        row = (file, line, record.content_id, record.record_id, record.text, record.record)
        self.append(row if record.vector is None else (*row, record.vector))


def split_by_length(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """``rows`` whose vectors have the most common length (the longer of two), and the other rows.

    The vectors of the first are arrays of that length.
    """
    lengths = rows["vector"].list.len()
    common = lengths.value_counts(sort=False).sort("count", "vector", descending=True).head(1)["vector"]
    dim = common[0] if len(common) else 0
    usual = rows.filter(lengths == dim).with_columns(pl.col("vector").list.to_array(dim))
    return usual, rows.filter(lengths != dim)


def collapsed(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a content id, with its copies counted: the columns of ``sources.SourceRecords.corpus``."""
    rows = rows.sort("content_id", "record_id", "record")
    vector = [pl.col("vector").first()] if "vector" in rows.columns else []
    return (
        rows.group_by("content_id", maintain_order=True)
        .agg(
            pl.col("text").first(),
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("record_id").unique(maintain_order=True).alias("record_ids"),
            pl.struct("record_id", "record").filter(pl.col("record").is_first_distinct()).alias("variants"),
            *vector,
        )
        .rechunk()
    )
