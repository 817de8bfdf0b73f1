"""Columns of one type out of JSON."""

import json

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tsds_pipeline.stages.typed_columns import MOST_FIELDS, common_type, feature, typed_column

LEAVES = st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.text() | st.floats(allow_nan=False)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def like(found: object, value: object) -> bool:
    """Whether ``found`` is ``value``, but for fields of null that it has more."""
    if isinstance(value, list) and isinstance(found, list):
        return len(found) == len(value) and all(map(like, found, value))
    if isinstance(value, dict) and isinstance(found, dict):
        return value.keys() <= found.keys() and all(like(found[name], value.get(name)) for name in found)
    return found == value and isinstance(found, bool) == isinstance(value, bool)


@settings(max_examples=40)
@given(
    st.lists(VALUES, max_size=4) | st.lists(st.lists(st.dictionaries(st.sampled_from("ab"), st.integers())))
)
@example([[{"a": 1}], [], None, [{"b": [1, 2.5]}]])
@example([{"a": {"b": None}}, {"a": {"c": 2**60}}, {"a": {"c": 0.5}}])
def test_nothing_is_lost(values):
    dtype = common_type(values)
    column = typed_column("x", values, dtype)
    texts = column.to_list()
    found = texts if dtype is not None else [text if text is None else json.loads(text) for text in texts]
    assert all(map(like, found, values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None, None], pl.String()),
        ([1, None, 2.5], pl.Float64()),
        ([[1], [], [None]], pl.List(pl.Int64())),
        ([{"a": 1}, {"b": ["x"]}], pl.Struct({"a": pl.Int64(), "b": pl.List(pl.String())})),
        # of no type in common
        ([1, "x"], None),
        ([1, True], None),
        ([2**53, 0.5], None),
        ([[1], ["x"]], None),
        ([{"a": [1]}, {"a": 1}], None),
        ([{}], None),
        ([{str(n): n} for n in range(MOST_FIELDS + 1)], None),
    ],
)
def test_types(values, expected):
    assert common_type(values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["x"], {"dtype": "string"}),
        ([1, "x"], {"dtype": "json"}),
        ([[1.5]], {"list": "float64"}),
        ([[[True]]], {"list": {"list": "bool"}}),
        ([[{"a": 1}]], {"list": [{"name": "a", "dtype": "int64"}]}),
        ([{"a": {"b": "x"}}], {"struct": [{"name": "a", "struct": [{"name": "b", "dtype": "string"}]}]}),
    ],
)
def test_features(values, expected):
    assert feature(common_type(values)) == expected
