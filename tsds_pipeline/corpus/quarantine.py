"""Records that cannot be used: why, where they stand, and how many of them a source may have.

What makes a record bad is decided where it is read (``lines`` to ``records``), by raising :class:`BadRecord`.
"""

import json
from typing import Any, NamedTuple

import polars as pl

from tsds_pipeline.errors import TsdsError, printable

EXCERPT_CHARS = 200
REASON_CHARS = 500
REASONS_SHOWN = 3
MOST_BAD = 1_000_000
"""What is no source but something else would fill the memory with reasons."""
QUARANTINE_SCHEMA = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "excerpt": pl.String}


class BadRecord(Exception):
    """One record cannot be used; the message is the reason that the quarantine table shows."""


class Quarantined(NamedTuple):
    """A row of the quarantine table. What ``line`` counts: see ``raw.RawRecord``."""

    file: str
    line: int
    reason: str
    excerpt: str


def quarantined(file: str, line: int, error: BadRecord, raw: bytes | dict[str, Any]) -> Quarantined:
    """The row for a record of ``file``; ``raw`` is what stands there, or its fields."""
    reason = printable(" ".join(str(error).split()))
    return Quarantined(file, line, _shortened(reason, REASON_CHARS), excerpt_of(raw))


def add_bad(bad: list[Quarantined], row: Quarantined) -> None:
    """One more of the ``bad`` records of a source; TsdsError where that is more than any source may have."""
    bad.append(row)
    if len(bad) > MOST_BAD:
        raise TsdsError(
            f"{row.file}: more than {MOST_BAD:,} records of this source cannot be used, here line {row.line:,}: "
            f"{row.reason}: see whether it is the right file, or take out what is bad"
        )


def excerpt_of(raw: str | bytes | dict[str, Any]) -> str:
    """The beginning of a text, of what stands in a file, or of a record's fields."""
    if isinstance(raw, bytes):
        raw = raw[: 4 * EXCERPT_CHARS].decode(errors="replace")
    text = raw if isinstance(raw, str) else _json(raw)
    return _shortened(text.strip(), EXCERPT_CHARS)


def quarantine_table(bad: list[Quarantined]) -> pl.DataFrame:
    """``bad`` in order of file and line, which does not depend on the order of reading."""
    return pl.DataFrame(sorted(bad), schema=QUARANTINE_SCHEMA, orient="row")


def first_reasons(quarantine: pl.DataFrame) -> str:
    """``file:line: reason`` for the first few different reasons of a quarantine table, in one line."""
    rows = quarantine.unique("reason", keep="first", maintain_order=True).head(REASONS_SHOWN)
    return "; ".join(f"{file}:{line}: {reason}" for file, line, reason, _ in rows.iter_rows())


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, default=str)


def _shortened(text: str, chars: int) -> str:
    """The beginning of ``text``; half a surrogate pair, which no file can store, becomes its escape."""
    text = text[: chars + 1].encode(errors="backslashreplace").decode()
    return text if len(text) <= chars else text[: chars - 3] + "..."
