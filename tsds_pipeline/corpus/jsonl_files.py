"""JSON Lines: one JSON object a line, each line judged on its own. Blank lines are no records."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tsds_pipeline.corpus.lines import BoundedLines, open_file
from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.corpus.raw import RawRecord, json_name, not_utf8, too_long

MAX_DEPTH = 100
"""Real records stay far below. Python's own limit depends on who calls: that must not decide what is read."""
TOO_DEEP = f"nested more than {MAX_DEPTH} deep"
_ARRAY = "a JSON array begins here, expected one JSON object a line (jq -c '.[]' makes a file of those)"


def read_jsonl(path: Path, limit: int) -> Iterator[RawRecord]:
    """The records of ``path``, plain, gzip or zstd; a line has at most ``limit`` bytes."""
    with open_file(path) as file:
        lines = BoundedLines(file, limit)
        for line in lines:
            if line.strip():
                yield _record(line, lines.number, limit if lines.cut else None)


def _record(line: bytes, number: int, exceeded: int | None) -> RawRecord:
    try:
        if exceeded is not None:
            raise too_long(exceeded)
        return RawRecord(number, _fields(line))
    except BadRecord as error:
        return RawRecord(number, {}, str(error), line)


def _fields(line: bytes) -> dict[str, Any]:
    """The object on ``line``, or :class:`BadRecord`."""
    try:
        value = _decode(line.rstrip().decode())
    except UnicodeDecodeError as error:
        raise not_utf8(line[error.start]) from None
    except json.JSONDecodeError as error:
        if line.lstrip().startswith(b"["):
            raise BadRecord(_ARRAY) from None
        raise BadRecord(f"invalid JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise BadRecord(TOO_DEEP) from None
    except ValueError:
        raise BadRecord("invalid JSON: a whole number of thousands of digits") from None
    if not isinstance(value, dict):
        raise BadRecord(f"expected one JSON object a line, found {json_name(value)}")
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise BadRecord(TOO_DEEP)
    return value


def _depth(value: object) -> int:
    """How many lists and objects lie in one another at most."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        [(name, times)] = Counter(name for name, _ in pairs).most_common(1)
        raise BadRecord(f'invalid JSON: the key "{name}" stands {times} times in one object')
    return fields


def _constant(name: str) -> None:
    raise BadRecord(f"invalid JSON: {name} is not a JSON number")


# Python's reader is laxer than the standard: of repeated keys it keeps the last, and it passes NaN on.
_decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant).decode
