"""Many records made one table: copies and variants collapsed, in an order that only their contents decide.

However many there are, a bounded number is in memory. Nothing is read here. A single record is judged in ``records``,
except that vectors must have one length.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from tsds_pipeline.corpus.records import Identified

# Rows that wait as Python objects, and characters of them; bytes of rows that wait in memory, until they are
# written to a file; bytes of a part, which takes several times as much while it is sorted.
BATCH, BATCH_CHARS = 2**16, 2**25
SPILL_BYTES = 2**28
PART_BYTES = 2**27
_RUN_ROWS = 2**12
_PREFIX = 16**8
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
    """Collects records with their places (``file`` by number); what is too much for memory goes to files.

    These are in a folder in ``spill``, made when it is needed, and gone when nobody holds :attr:`folder` any more.
    """

    def __init__(self, with_vectors: bool, spill: Path | None = None):
        super().__init__(ROW_SCHEMA | ({"vector": pl.List(pl.Float32)} if with_vectors else {}))
        self._spill = spill
        self.folder: tempfile.TemporaryDirectory | None = None
        self._runs: list[Path] = []
        self._chars = self._waiting = self._spilled = 0
        self._lengths: Counter[int] = Counter()

    def add(self, file: int, line: int, record: Identified) -> None:
        """One more record."""
        row = (file, line, record.content_id, record.record_id, record.text, record.record)
        if record.vector is not None:
            row = (*row, record.vector)
            self._lengths[len(record.vector)] += 1
        self._chars += len(record.text) + len(record.record)
        self.append(row)
        if self._chars >= BATCH_CHARS:
            self._flush()
        if self._waiting >= SPILL_BYTES and self._spill is not None:
            self._write_run()

    @property
    def dim(self) -> int:
        """The most common length of a vector, the longer of two."""
        return max(self._lengths, key=lambda length: (self._lengths[length], length), default=0)

    def parts(self) -> Iterator[pl.DataFrame]:
        """All rows: at once where they are in memory, else by ranges of the content id, ascending."""
        if self.folder is None:
            yield self.frame()
            return
        self._flush()
        self._write_run()
        count = math.ceil(self._spilled / PART_BYTES)
        bounds = [f"{_PREFIX * part // count:08x}" for part in range(count)] + ["g"]
        for first, behind in pairwise(bounds):
            inside = (pl.col("content_id") >= first) & (pl.col("content_id") < behind)
            yield pl.scan_parquet(self._runs, glob=False).filter(inside).collect()

    def _flush(self) -> None:
        super()._flush()
        self._chars = 0
        self._waiting += int(self._batches[-1].estimated_size())

    def _write_run(self) -> None:
        """Write what waits, sorted, in pieces of which only those of a range are read again."""
        if self.folder is None:
            self._spill.mkdir(parents=True, exist_ok=True)
            self.folder = tempfile.TemporaryDirectory(prefix=".rows-", suffix=".tmp", dir=self._spill)
        run = Path(self.folder.name) / f"run-{len(self._runs):05}.parquet"
        rows = pl.concat(self._batches).sort("content_id")
        rows.write_parquet(run, compression="lz4", row_group_size=_RUN_ROWS)
        self._runs.append(run)
        self._spilled += self._waiting
        self._batches, self._waiting = self._batches[:1], 0


def split_by_length(rows: pl.DataFrame, dim: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """``rows`` whose vectors have ``dim`` numbers, as arrays of that length, and the other rows."""
    lengths = rows["vector"].list.len()
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
