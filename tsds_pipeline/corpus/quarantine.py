"""Records that cannot be used: why, where they stand, and how many of them a source may have.

What makes a record bad is decided where it is read (``lines`` to ``records``), by raising :class:`BadRecord`.
"""

import json
from typing import NamedTuple

import polars as pl

EXCERPT_CHARS = 200
QUARANTINE_SCHEMA = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "excerpt": pl.String}


class BadRecord(Exception):
    """One record cannot be used; the message is the reason that the quarantine table shows."""


class Quarantined(NamedTuple):
    """A row of the quarantine table. What ``line`` counts: see ``reading.read_records``."""

    file: str
    line: int
    reason: str
    excerpt: str


def quarantine_table(bad: list[Quarantined]) -> pl.DataFrame:
    """``bad`` in order of file and line, which does not depend on the order of reading."""
    return pl.DataFrame(sorted(bad), schema=QUARANTINE_SCHEMA, orient="row")


def excerpt(raw: object) -> str:
    """The beginning of ``raw`` (the bytes, the text or the fields of a record), storable as UTF-8."""
    if isinstance(raw, bytes):
        raw = raw[: 4 * EXCERPT_CHARS].decode("utf-8", "replace")
    elif not isinstance(raw, str):
        raw = json.dumps(raw, ensure_ascii=False, default=str)
    text = raw.strip()[: EXCERPT_CHARS + 1].encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 3] + "..."


def first_reasons(quarantine: pl.DataFrame, shown: int = 3) -> str:
    """``file:line: reason`` for the first ``shown`` different reasons of a quarantine table, in one line."""
    rows = quarantine.unique("reason", keep="first", maintain_order=True).head(shown)
    return "; ".join(f"{file}:{line}: {reason}" for file, line, reason, _ in rows.iter_rows())
