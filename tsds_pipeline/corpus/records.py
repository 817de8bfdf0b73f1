"""One record's identity: its text, its content id, its own id, and the rest of it as canonical JSON.

Where it comes from, and what becomes of several alike, is not known here (``sources``, ``tables``).
"""

import contextlib
import datetime
import decimal
import hashlib
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tsds_pipeline.corpus.chat_template import ChatTemplate
from tsds_pipeline.corpus.fields import found_text
from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.corpus.raw import ID_FIELDS, json_name
from tsds_pipeline.corpus.template import Template
from tsds_pipeline.corpus.text import content_id, normalized
from tsds_pipeline.corpus.vectors import Vectors


class Identified(NamedTuple):
    """A record that can be used. ``record``: all its fields but its id and its vector, as canonical JSON."""

    content_id: str
    record_id: str
    text: str
    record: str
    vector: np.ndarray | None


@dataclass(frozen=True)
class RecordRules:
    """What decides whether a record can be used, and as what."""

    template: Template | None
    max_chars: int
    vectors: Vectors | None
    chat_template: ChatTemplate | None = None

    def identify(self, fields: dict[str, Any]) -> Identified:
        """The record with these ``fields``; :class:`BadRecord` says why it cannot be used.

        Its id is the first of :data:`ID_FIELDS` that holds a text or a whole number. A record without one is
        named by a hash of its contents, which is the same wherever it stands.
        """
        try:
            return self._identify(fields)
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise BadRecord(f"half a surrogate pair ({half}) stands in it, which is no character") from None

    def skip(self, fields: dict[str, Any]) -> None:
        """Pass over a record that nobody wants: its vector is none without a record."""
        if self.vectors is not None:
            with contextlib.suppress(BadRecord, UnicodeEncodeError):
                self.vectors.of(fields, _own_id(fields)[1])

    def _identify(self, fields: dict[str, Any]) -> Identified:
        id_field, own_id = _own_id(fields)
        vector = None if self.vectors is None else self.vectors.of(fields, own_id)
        text = self._text(fields)
        content = content_id(text, vector)
        vector_field = self.vectors.field if self.vectors else None
        record = _canonical({k: v for k, v in fields.items() if k not in (id_field, vector_field)})
        contents = f"{content}{record}".encode()
        record_id = own_id or hashlib.blake2b(contents, digest_size=16).hexdigest()
        record_id.encode()
        return Identified(content, record_id, text, record, vector)

    def _text(self, fields: dict[str, Any]) -> str:
        text = normalized(self._raw_text(fields))
        if not text:
            raise BadRecord("the text is empty: nothing but white space")
        if len(text) > self.max_chars:
            raise BadRecord(f"the text has {len(text):,} characters, more than max_chars = {self.max_chars}")
        return text

    def _raw_text(self, fields: dict[str, Any]) -> str:
        if self.template is not None:
            return self.template.text(fields)
        chat = None if self.chat_template is None else self.chat_template.rendered(fields)
        return found_text(fields) if chat is None else chat


def _own_id(fields: dict[str, Any]) -> tuple[str | None, str | None]:
    """The field that holds the record's id, and the id; None twice where it has none."""
    name = next((name for name in ID_FIELDS if _is_id(fields.get(name))), None)
    return name, None if name is None else str(fields[name])


def _is_id(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else type(value) is int


def _canonical(fields: dict[str, Any]) -> str:
    try:
        return _encode(fields)
    except ValueError:
        raise BadRecord("NaN or an infinite number stands in it, which JSON cannot hold") from None


def _json_value(value: object) -> object:
    """What Parquet has and JSON has not."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    raise BadRecord(f"a field holds {json_name(value)}, which cannot be exported: drop the column")


_encode = json.JSONEncoder(
    ensure_ascii=False,
    check_circular=False,
    allow_nan=False,
    sort_keys=True,
    separators=(",", ":"),
    default=_json_value,
).encode
