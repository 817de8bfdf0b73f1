"""Text templates: ``"{instruction}\\n{input}"`` names the fields that a text is made of.

A name may lead into nested objects: ``{answers.text}``. Of ``str.format`` there is nothing beyond names and
doubled braces: no indexes, conversions or format specifications, and never an attribute of an object.
"""

from string import Formatter
from typing import Any

from tsds_pipeline.corpus.fields import found_value, listed, value_text
from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.errors import TsdsError


class Template:
    """Makes texts from records; a ``template`` that is not understood raises :class:`TsdsError`."""

    def __init__(self, template: str):
        # A line is a list of (literal, name of the field behind it or None).
        self._lines = [_pieces(line) for line in template.splitlines()]

    def text(self, fields: dict[str, Any]) -> str:
        """The text of a record with these ``fields``.

        A line of which every field is null or blank is left out, together with the blank lines behind it.
        Raises :class:`BadRecord` where a field is missing or no text, or where all of them are empty.
        """
        lines: list[str] = []
        any_value = after_gap = False
        for pieces in self._lines:
            values = ["" if name is None else _value(fields, name) for _, name in pieces]
            line = "".join(literal + value for (literal, _), value in zip(pieces, values, strict=True))
            has_value = any(value.strip() for value in values)
            has_field = any(name is not None for _, name in pieces)
            after_gap = not has_value if has_field else after_gap and not line.strip()
            any_value |= has_value
            if not after_gap:
                lines.append(line)
        if not any_value:
            raise BadRecord("the text is empty (every field of the template is)")
        return "\n".join(lines)


def _pieces(line: str) -> list[tuple[str, str | None]]:
    try:
        parsed = list(Formatter().parse(line))
    except ValueError as error:
        raise TsdsError(f"text template: {error} in {line!r}") from None
    for _, name, spec, conversion in parsed:
        if name is not None and (not name or spec or conversion or "[" in name):
            raise TsdsError(f"text template: only plain field names may stand in braces, found {line!r}")
    return [(literal, name) for literal, name, _, _ in parsed]


def _value(fields: dict[str, Any], name: str) -> str:
    """What the field ``name``, or the field that the dots in it lead to, holds."""
    try:
        value = found_value(fields, name)
    except KeyError:
        raise BadRecord(f'the template\'s field "{name}" is missing (found {listed(fields)})') from None
    return value_text(name, value)
