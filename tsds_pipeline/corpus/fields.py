"""Finding the text of a record that no template describes: the usual field names, in a fixed order.

Normalising what is found is not here (``text``), nor are templates (``template``).
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.corpus.raw import json_name

SHOWN = 10
CHATS = ("messages", "conversations")
ANSWER = ("output", "response", "completion", "answer", "solution", "target", "targets")

SHAPES: tuple[tuple[tuple[str, ...], ...], ...] = (
    # first part, further parts
    (("text",),),
    (CHATS,),
    (("instruction",), ("input", "context"), ANSWER),
    (("prompt",), ANSWER),
    (("question", "problem", "query"), ("context",), ANSWER),
    (("input", "inputs"), ANSWER),
    (("content", "document", "sentence"),),
)
"""What a record may look like. The first shape whose first part is among its fields, and that gives any text
at all, is used. A part is the first of its names that holds something; parts are joined by a blank line.
The chats are lists of turns, each with its text as ``content`` (OpenAI) or ``value`` (ShareGPT); every turn
counts, whoever speaks."""


def found_text(fields: dict[str, Any]) -> str:
    """The text of a record with these ``fields``, by :data:`SHAPES`.

    Raises :class:`BadRecord` where no shape fits, nothing but blanks is found, or a value is no text.
    """
    empty = []
    for first, *others in SHAPES:
        present = [name for name in first if name in fields]
        if not present:
            continue
        parts = [
            part_text(fields, present, _first_text),
            *(part_text(fields, names, value_text) for names in others),
        ]
        text = "\n\n".join(part for part in parts if part)
        if text:
            return text
        empty += present
    if empty:
        raise BadRecord(f"the text is empty ({listed(empty)})")
    raise BadRecord(f"no field known to hold text (found {listed(fields)}): say which by a text template")


def found_value(fields: dict[str, Any], name: str) -> object:
    """What the field ``name``, or the field that the dots in it lead to, holds; null inside of null.

    KeyError where there is no such field.
    """
    if name in fields:
        return fields[name]
    value: Any = fields
    for key in name.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise KeyError(name)
        value = value[key]
    return value


def value_text(name: str, value: object) -> str:
    """The value of the field ``name`` as a text: null is empty, a list has one line an item.

    Numbers, true and false are written as in JSON. Anything else is a :class:`BadRecord`.
    """
    if isinstance(value, list):
        return "\n".join(_single_text(name, item) for item in value)
    return _single_text(name, value)


def part_text(fields: dict[str, Any], names: Iterable[str], as_text: Callable[[str, Any], str]) -> str:
    """The text of the first of ``names`` that holds any, or nothing; blank lines around it would add up."""
    texts = (as_text(name, fields[name]).strip("\r\n") for name in names if name in fields)
    return next((text for text in texts if text.strip()), "")


def listed(names: Iterable[str]) -> str:
    """``names`` for a message, which they do not flood."""
    names = list(names)
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join(names[:SHOWN] + more) or "nothing"


def _single_text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float):
        return json.dumps(value)
    raise BadRecord(f'the field "{name}" holds {json_name(value)}, expected a text')


def _first_text(name: str, value: object) -> str:
    if value is None:
        return ""
    if name in CHATS and isinstance(value, list):
        turns = [_turn_text(name, turn) for turn in value]
        return "\n\n".join(turn for turn in turns if turn.strip())
    if name not in CHATS and isinstance(value, str):
        return value
    expected = "a list of turns" if name in CHATS else "a text"
    raise BadRecord(f'the field "{name}" holds {json_name(value)}, expected {expected}')


def _turn_text(name: str, turn: object) -> str:
    """What is said in one turn of a chat; of content in typed parts (text, images) the texts."""
    if not isinstance(turn, dict):
        raise BadRecord(f'the field "{name}" holds {json_name(turn)} as a turn, expected an object')
    content = turn.get("value") if turn.get("content") is None else turn["content"]
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "\n".join(text for text in texts if isinstance(text, str))
    if content is None or isinstance(content, str):
        return (content or "").strip("\r\n")
    raise BadRecord(f'the field "{name}" holds {json_name(content)} in a turn, expected a text')
