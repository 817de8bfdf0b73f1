"""Turns what tomllib and pydantic say about a wrong tsds.toml into lines a person can act on.

Nothing is validated here. The words for what a key allows are the ``description`` of its field.
"""

import json
import re
import tomllib
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from tsds_pipeline.addresses import without_secrets
from tsds_pipeline.errors import TsdsError, printable

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
LONGEST_VALUE = 80


def undecodable(file: str, error: UnicodeDecodeError) -> TsdsError:
    """``file`` is not UTF-8."""
    line = error.object.count(b"\n", 0, error.start) + 1
    byte = error.object[error.start]
    return TsdsError(f"{file}:{line}: byte 0x{byte:02x} is not UTF-8: save the file as UTF-8")


def invalid_toml(file: str, text: str, error: tomllib.TOMLDecodeError) -> TsdsError:
    """``file`` is not TOML. tomllib (before 3.14) has the position in its message only."""
    message, _, place = str(error).rpartition(" (at ")
    position = re.fullmatch(r"line (\d+), column (\d+)\)", place)
    if position:
        line, column = position.groups()
    else:
        lines = text.split("\n")
        line, column = len(lines), len(lines[-1]) + 1
    return TsdsError(f"{file}:{line}:{column}: not valid TOML: {message}")


def invalid_settings(
    file: str, document: dict[str, Any], model: type[BaseModel], error: ValidationError
) -> TsdsError:
    """One error with a line for every table or key that is wrong, in the order of ``model``."""
    lines: dict[tuple[str, ...], str] = {}
    for problem in error.errors(include_url=False):
        # A union of types reports once a member: a place is named once.
        place, line = _explain(document, model, problem)
        lines.setdefault(place, f"{file}: {line}")
    return TsdsError("\n".join(lines.values()))


def nearest(word: str, allowed: Collection[str]) -> str:
    """`` (did you mean "x"?)`` with what is nearest to ``word`` among ``allowed``, or nothing."""
    close = get_close_matches(word, sorted(allowed), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _explain(document: dict[str, Any], model: type[BaseModel], problem: Any) -> tuple[tuple[str, ...], str]:
    """Where ``problem`` is, and the words for it."""
    loc = [str(name) for name in problem["loc"]]
    if not loc:  # of several tables together, which the message names
        return (), str(problem["ctx"]["error"])
    if loc[-1] == "[key]" and problem["type"] != "extra_forbidden":
        loc.pop()  # pydantic's mark: not the table is wrong but its name
    table, found_in, key = _locate(model, loc)
    place = table if key is None else (*table, key)
    if problem["type"] == "missing":
        name = ".".join(map(_toml_key, table))
        return place, f"[{name}] {_toml_key(str(key))}: is missing: {found_in.model_fields[key].description}"
    value = document
    for part in place:
        value = value[part]
    name = ".".join(map(_toml_key, table))
    header = f"[{name}]" if table else ""
    if problem["type"] == "extra_forbidden":
        return place, _unknown(header, found_in, str(key), value, _tables_with(model, str(key)))
    shown = (
        "..." if key is not None and _is_secret(found_in.model_fields[key].annotation) else _toml_value(value)
    )
    found = header if key is None else f"{header} {_toml_key(key)} = {shown}"
    if problem["type"] == "value_error":
        return place, f"{found}: {problem['ctx']['error']}"
    if key is None:
        return place, f"{name} = {_toml_value(value)}: must be a table: write {header}"
    return place, f"{found}: must be {found_in.model_fields[key].description}"


def _locate(model: type[BaseModel], names: list[str]) -> tuple[tuple[str, ...], type[BaseModel], str | None]:
    """Split pydantic's place of a problem into the table, the model of that table and the key in it.

    What follows the key (the member of a union, an index in a list) is left out: a key is named as a whole.
    """
    table: list[str] = []
    while names:
        name = names.pop(0)
        field = model.model_fields.get(name)
        if field is None:
            return tuple(table), model, name
        if _is_table(field.annotation):
            table.append(name)
            model = field.annotation
        elif members := _table_members(field.annotation):
            table += [name, *names[:1]]
            names = names[1:]
            model = members
        else:
            return tuple(table), model, name
    return tuple(table), model, None


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_is_secret, get_args(annotation)))


def _table_members(annotation: Any) -> type[BaseModel] | None:
    """The model of each table in a table of tables."""
    return next((member for member in get_args(annotation) if _is_table(member)), None)


def _tables_with(model: type[BaseModel], key: str) -> list[str]:
    """The tables of ``model`` that have ``key``."""
    tables = {name: field.annotation for name, field in model.model_fields.items()}
    return [name for name, table in tables.items() if _is_table(table) and key in table.model_fields]


def _unknown(header: str, model: type[BaseModel], key: str, value: object, elsewhere: Collection[str]) -> str:
    allowed = ", ".join(sorted(model.model_fields))
    hint = nearest(key, model.model_fields)
    if elsewhere:
        hint = f" (it belongs in {' or '.join(f'[{name}]' for name in elsewhere)})"
    if header:
        return f"{header} {_toml_key(key)}: unknown key{hint}; allowed: {allowed}"
    name = (
        f"[{_toml_key(key)}]: unknown table"
        if isinstance(value, dict)
        else f"{_toml_key(key)}: not in a table"
    )
    return f"{name}{hint}; tables: {allowed}"


def _toml_key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else printable(json.dumps(key, ensure_ascii=False))


def _toml_value(value: object) -> str:
    in_toml = isinstance(value, float)  # nan and inf, unlike in JSON
    text = repr(value) if in_toml else printable(json.dumps(value, ensure_ascii=False, default=str))
    text = without_secrets(text)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
