"""How texts from data and changes of settings are said wherever they are shown: terminal, pages and the UI."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping

GONE = "(no longer in its source)"
"""In place of a text that is not there any more."""
_HASH = re.compile("(sha256:)?[0-9a-f]{12,64}")


def shortened(text: str, length: int) -> str:
    """``text`` in at most ``length`` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def drawn_mark(drawn: int) -> str:
    """The mark of a candidate that was drawn; in several epochs, how often."""
    return f"{drawn}*" if drawn > 1 else "*" if drawn else ""


def changes(before: Mapping[str, object], now: Mapping[str, object], keys: Iterable[str]) -> Iterator[str]:
    """What became of the settings ``keys``, a phrase for each that is another one; tables entry by entry."""
    for key in keys:
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        tables = [{} if value is None else value for value in (old, new)]
        if any(tables) and all(isinstance(table, dict) for table in tables):
            inner = [{f"{key}.{name}": value for name, value in table.items()} for table in tables]
            yield from changes(*inner, sorted({name for table in inner for name in table}))
        elif _names_content(old) or _names_content(new):
            what = "is new" if old is None else "is gone" if new is None else "changed"
            yield f"{key.removesuffix('_hash')} {what}"
        else:
            yield f"{key} {_setting(old)} -> {_setting(new)}"


def _names_content(value: object) -> bool:
    """Whether ``value`` is a hash of what a setting stands for, or has one, which tells a person nothing."""
    if isinstance(value, list):
        return any(map(_names_content, value))
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _setting(value: object) -> str:
    if value is None:
        return "unset"
    said = json.dumps(value, ensure_ascii=False)
    return said[1:-1] if isinstance(value, str) else said
