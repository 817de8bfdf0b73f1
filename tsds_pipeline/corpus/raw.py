"""What the readers of all formats share: the record they give, and the words for what is wrong with it."""

from typing import Any, NamedTuple

from tsds_pipeline.corpus.quarantine import BadRecord

ID_FIELDS = ("id", "_id", "uuid")
"""Where a record has its own id: the first of these that holds a text or a whole number."""
JSON_NAMES = {
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
    bytes: "binary data",
}


class RawRecord(NamedTuple):
    """One record of a file: its ``fields``, or the ``reason`` why they could not be read.

    ``line`` counts from 1: the line on which a record of JSON Lines or CSV begins, the row of a Parquet or Arrow file.
    """

    line: int
    fields: dict[str, Any]
    reason: str = ""
    raw: bytes = b""
    """What stands in the file; only with a ``reason``."""


def too_long(limit: int, what: str = "line") -> BadRecord:
    """A line or row, before it is looked at, holds more than the longest text could need."""
    return BadRecord(f"the {what} is longer than {limit:,} bytes (a limit that grows with max_chars)")


def not_utf8(byte: int) -> BadRecord:
    """Names the first byte that cannot be decoded."""
    return BadRecord(f"not UTF-8: byte 0x{byte:02x}")


def json_name(value: object) -> str:
    """What ``value`` is, in the words of JSON."""
    return JSON_NAMES.get(type(value)) or f"a {type(value).__name__}"
