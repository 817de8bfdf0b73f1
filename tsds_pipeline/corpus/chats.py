"""A record as a chat: turns with a role and a text, as trainers and chat templates take them.

Which fields may hold them is in ``fields.SHAPES``, the order of which holds here too, but for plain texts: a record
that has a chat or an answer beside its ``text`` is the chat.
"""

from collections.abc import Iterable
from typing import Any

from tsds_pipeline.corpus.fields import ANSWER, CHATS, SHAPES, listed, part_text, value_text
from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.corpus.raw import json_name

Turn = dict[str, str]
"""``role`` and ``content``."""

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard"), "assistant"),
    **dict.fromkeys(("tool", "observation"), "tool"),
}
"""What speakers are called (OpenAI, ShareGPT and others), in lower case, and which role that is."""
SYSTEM = ("system", "system_prompt")
_SPEAKER = ("role", "from")


def chat_of(fields: dict[str, Any], text: str) -> list[Turn]:
    """The record with these ``fields`` as a chat; ``text`` is what it was selected by.

    * A list of turns (``messages``, ``conversations``) is that chat; turns without a text are left out.
    * Of a question and its answer (``instruction``, ``input`` and ``output``; ``prompt`` and ``completion``; ...) the
      user says all but the answer, and the assistant the answer. A question alone is one turn of the user.
    * In either case the system says what stands in ``system`` or ``system_prompt``, unless the turns say it.
    * Of anything else ``text`` is one turn of the assistant.

    Raises :class:`BadRecord` for turns whose speaker is unknown, and for what is no text: images, calls of tools.
    """
    incomplete: list[Turn] = []
    for first, *others in SHAPES:
        present = [name for name in first if name in fields]
        if not present:
            continue
        if first == CHATS:
            turns = _turns(fields, present)
        elif ANSWER in others:
            turns = _asked(fields, [tuple(present), *others])
        else:
            incomplete = incomplete or _turn("assistant", text)
            continue
        if turns and turns[0]["role"] != "system":
            turns = _turn("system", part_text(fields, SYSTEM, value_text)) + turns
        if turns and (first == CHATS or turns[-1]["role"] == "assistant"):
            return turns
        incomplete = incomplete or turns
    return incomplete or _turn("assistant", text)


def _asked(fields: dict[str, Any], parts: Iterable[tuple[str, ...]]) -> list[Turn]:
    *question, answer = (part_text(fields, names, value_text) for names in parts)
    return _turn("user", "\n\n".join(filter(None, question))) + _turn("assistant", answer)


def _turns(fields: dict[str, Any], names: Iterable[str]) -> list[Turn]:
    """Those of the first of the fields ``names`` that has any."""
    for name in names:
        value = fields[name]
        if isinstance(value, list) and (found := [turn for said in value for turn in _said(name, said)]):
            return found
    return []


def _said(name: str, turn: object) -> list[Turn]:
    """A turn as a trainer takes it; none where nothing is said."""
    if not isinstance(turn, dict):
        raise BadRecord(f'the field "{name}" holds {json_name(turn)} as a turn, expected an object')
    if calls := [key for key in ("tool_calls", "function_call") if turn.get(key)]:
        raise BadRecord(f'a turn of the field "{name}" holds {calls[0]}, which has no text')
    text = _content(name, turn.get("value") if turn.get("content") is None else turn["content"])
    speaker = next((turn[key] for key in _SPEAKER if key in turn), None)
    role = ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise BadRecord(
            f'a turn of the field "{name}" is by {speaker!r}, expected one of {listed(sorted(ROLES))}'
            if speaker is not None
            else f'a turn of the field "{name}" does not say by whom it is ("role" or "from")'
        )
    return _turn(role, text)


def _content(name: str, content: object) -> str:
    """The text of a turn; one in typed parts must have texts alone."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    for part, text in zip(parts, texts, strict=True):
        if not isinstance(text, str) and part is not None:
            raise BadRecord(f'a turn of the field "{name}" holds {json_name(part)}, expected a text')
    return "\n".join(text for text in texts if text)


def _turn(role: str, text: str) -> list[Turn]:
    """One turn, or none where nothing is said."""
    return [{"role": role, "content": text}] if text.strip() else []
