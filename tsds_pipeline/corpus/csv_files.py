"""CSV with a header (RFC 4180: commas, double quotes, line breaks inside quotes). Every value is a text.

A row that does not fit is bad, and reading goes on with the next line. Where such a row spans several lines
(a quote too many may have swallowed other rows) each of its lines counts as one bad record.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tsds_pipeline.corpus.lines import BoundedLines, open_file
from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.corpus.raw import RawRecord, not_utf8, too_long
from tsds_pipeline.errors import TsdsError


def read_csv(path: Path, limit: int) -> Iterator[RawRecord]:
    """The records of ``path``; a row has at most ``limit`` bytes.

    Raises :class:`TsdsError` for a header that cannot be used, and for a quote that nothing closes: which
    lines are rows cannot be told after it.
    """
    with open_file(path) as file:
        rows = _rows(path, file, limit)
        names = None
        for row in rows:
            if names is None:
                names = _column_names(path, row)
                continue
            reason = row.reason or _misfit(row.values, names)
            if reason:
                yield from (RawRecord(line, {}, reason, raw) for line, raw in enumerate(row.raw, row.line))
            else:
                yield RawRecord(row.line, dict(zip(names, row.values, strict=True)))


class _Row(NamedTuple):
    line: int
    raw: list[bytes]
    values: list[str]
    reason: str = ""


class _RowLines:
    """What ``csv.reader`` reads from: decoded lines, while the lines of the current row are kept."""

    def __init__(self, path: Path, file: BinaryIO, limit: int):
        self._path, self._limit = path, limit
        self._lines = BoundedLines(file, limit)
        self.begin_row()

    def begin_row(self) -> None:
        self.line, self.raw, self._taken = self._lines.number + 1, [], 0

    def __iter__(self) -> "_RowLines":
        return self

    def __next__(self) -> str:
        line = next(self._lines, None)
        if line is None and not self.raw:
            raise StopIteration
        self._taken += len(line or b"")
        if line is None or (self.raw and self._taken > self._limit):
            within = f"within {self._limit:,} bytes"
            raise TsdsError(f"{self._path}:{self.line}: a quote in this row is never closed, or not {within}")
        self.raw.append(line)
        if self._lines.cut:
            raise too_long(self._limit)
        # A byte that is not UTF-8 comes through as a surrogate, so that the row keeps its bounds.
        return line.decode(errors="surrogateescape")


def _rows(path: Path, file: BinaryIO, limit: int) -> Iterator[_Row]:
    """Every row that is not blank, the header first."""
    lines = _RowLines(path, file, limit)
    csv.field_size_limit(max(limit, csv.field_size_limit()))
    # Strict: text behind a closing quote is an error, otherwise it would become part of the value.
    reader = csv.reader(lines, strict=True)
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except BadRecord as error:
            yield _Row(lines.line, lines.raw, [], str(error))
        except csv.Error as error:
            yield _Row(lines.line, lines.raw, [], f"invalid CSV: {error}")
        else:
            if len(values) > 1 or "".join(values).strip():
                yield _Row(lines.line, lines.raw, values)
        lines.begin_row()


def _column_names(path: Path, header: _Row) -> list[str]:
    names = [name.strip() for name in header.values]
    reason = header.reason or _undecodable(names) or _other_separator(names)
    if not reason:
        [(name, times)] = Counter(names).most_common(1)
        reason = f'{times} columns are named "{name}"' if times > 1 else ""
    if reason:
        raise TsdsError(f"{path}:{header.line}: the header cannot be used: {reason}")
    return names


def _other_separator(names: list[str]) -> str:
    """Why ``names`` are not those of a file with commas, or nothing: its rows would all be bad, or one long value."""
    found = [sign for sign in ";\t|" if sign in names[0]] if len(names) == 1 else []
    return f"its columns are separated by {json.dumps(found[0])}, expected commas" if found else ""


def _misfit(values: list[str], names: list[str]) -> str:
    """Why ``values`` are no row under ``names``, or nothing."""
    if len(values) != len(names):
        return f"{len(values)} values under {len(names)} column names"
    return _undecodable(values)


def _undecodable(values: list[str]) -> str:
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        return str(not_utf8(ord(error.object[error.start]) - 0xDC00))
    return ""
