"""What Parquet and Arrow files share: their tables as records, and what polars says of damaged ones.

Where the tables come from is in ``parquet_files`` and ``arrow_files``.
"""

import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from tsds_pipeline.corpus.raw import RawRecord, too_long
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.wording import shortened

LONGEST_REASON = 200
CONVERTED = 512
"""Rows that become Python objects together."""
_one_at_a_time = threading.Lock()


def records_of(tables: Iterable[tuple[int, pl.DataFrame]], limit: int) -> Iterator[RawRecord]:
    """The rows of ``tables``, each of which comes with how many rows were before; one has at most ``limit`` bytes."""
    for start, rows in tables:
        for first in range(0, len(rows), CONVERTED):
            yield from _records(rows.slice(first, CONVERTED), start + first + 1, limit)


def _records(rows: pl.DataFrame, line: int, limit: int) -> Iterator[RawRecord]:
    """Halved for as long as not all of ``rows`` can be converted together: a bad one costs no other."""
    too_large = rows.estimated_size() + sum(map(_bytes_of_categories, rows)) > limit
    try:
        if not too_large:
            with _without_panics():
                converted = list(rows.iter_rows(named=True))
            yield from (RawRecord(line + n, fields) for n, fields in enumerate(converted))
            return
    except (ValueError, OverflowError, pl.exceptions.PanicException):
        # Of what passed the checks of the file only times have no counterpart in Python.
        pass
    if len(rows) > 1:
        half = len(rows) // 2
        yield from _records(rows[:half], line, limit)
        yield from _records(rows[half:], line + half, limit)
        return
    reason = (
        str(too_long(limit, "row")) if too_large else "a date or time in it is not of the years 1 to 9999"
    )
    yield RawRecord(line, {}, reason, f"row {line}".encode())


def _bytes_of_categories(column: pl.Series) -> int:
    """What the categories in ``column`` take as texts: polars counts their numbers only."""
    if isinstance(column.dtype, pl.Struct):
        return sum(map(_bytes_of_categories, column.struct.unnest()))
    if isinstance(column.dtype, pl.List | pl.Array):
        return _bytes_of_categories(column.explode())
    return int(column.cat.len_bytes().sum()) if isinstance(column.dtype, pl.Categorical | pl.Enum) else 0


@contextmanager
def damage_told(path: Path, kind: str) -> Iterator[None]:
    """What polars cannot do with ``path`` as a :class:`TsdsError` that names it; ``kind`` is Parquet or Arrow."""
    try:
        with _without_panics():
            yield
    except OSError as error:
        raise TsdsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise damaged(path, kind, str(error)) from None
    except pl.exceptions.PanicException:
        raise damaged(path, kind, "what is in it does not fit together") from None


def damaged(path: Path, kind: str, said: str) -> TsdsError:
    """``path`` is not, or not wholly, what it is called."""
    reason = shortened(said.partition("\n")[0], LONGEST_REASON)
    return TsdsError(f"{path}: not a whole {kind} file ({reason}): copy or write it again")


@contextmanager
def _without_panics() -> Iterator[None]:
    """What polars writes to standard error about a panic, which is an exception here, is not for the user.

    What anybody else writes meanwhile comes through, unless there was a panic.
    """
    with _one_at_a_time, tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        panicked = False
        try:
            yield
        except pl.exceptions.PanicException:
            panicked = True
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if not panicked and said.tell():
                said.seek(0)
                os.write(2, said.read())
