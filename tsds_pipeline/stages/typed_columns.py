"""Values out of JSON as columns of one type, nested ones too, where they have one; and that type in words.

What has none is JSON text. Where the values come from is not known here.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

MOST_FIELDS = 100
"""Objects with more different fields than this are no records but tables of their own: JSON text."""
_FLAT: tuple[tuple[frozenset[type], pl.DataType, int | None], ...] = (
    # Python types, column type, below what an integer must be: beyond 2**53 a float is no longer every integer
    (frozenset({str}), pl.String(), None),
    (frozenset({bool}), pl.Boolean(), None),
    (frozenset({int}), pl.Int64(), 2**63),
    (frozenset({int, float}), pl.Float64(), 2**53),
)
_NAMES = {pl.String(): "string", pl.Boolean(): "bool", pl.Int64(): "int64", pl.Float64(): "float64"}


def flat_type(values: Iterable[Any]) -> pl.DataType | None:
    """The type of texts, of true and false, or of numbers; None where ``values`` are mixed or nested.

    Null is of every type.
    """
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    for types, dtype, most in _FLAT:
        fits = most is None or all(not isinstance(value, int) or abs(value) < most for value in present)
        if kinds <= types and fits:
            return dtype
    return None


def common_type(values: Iterable[Any]) -> pl.DataType | None:
    """The one type of all ``values``, as ``json.loads`` gives them; None where they have none.

    Lists have one where all their items do, and objects where the values of each of their fields do; a field that an
    object lacks is null.
    """
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds == {list}:
        inner = common_type([item for value in present for item in value])
        return None if inner is None else pl.List(inner)
    if kinds == {dict}:
        names = list(dict.fromkeys(name for value in present for name in value))
        if not 0 < len(names) <= MOST_FIELDS:
            return None
        found = {name: common_type([value.get(name) for value in present]) for name in names}
        return None if any(dtype is None for dtype in found.values()) else pl.Struct(found)
    return flat_type(present)


def typed_column(name: str, values: Sequence[Any], dtype: pl.DataType | None) -> pl.Series:
    """``values`` as a column of ``dtype``, their ``common_type``; as JSON text where they have none."""
    if dtype is not None and not dtype.is_nested():
        return pl.Series(name, values, dtype=dtype)
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    column = pl.Series(name, texts, dtype=pl.String)
    # Several times as fast as lists of dicts, and as exact.
    return column if dtype is None else column.str.json_decode(dtype)


def feature(dtype: pl.DataType | None) -> dict[str, Any]:
    """``dtype`` as the YAML header of a dataset card names it; None, JSON text, is ``json``."""
    if isinstance(dtype, pl.Struct):
        return {"struct": [{"name": field.name, **feature(field.dtype)} for field in dtype.fields]}
    if isinstance(dtype, pl.List):
        inner = feature(dtype.inner)
        return {"list": inner[next(iter(inner))] if inner.keys() <= {"dtype", "struct"} else inner}
    return {"dtype": "json" if dtype is None else _NAMES[dtype]}
