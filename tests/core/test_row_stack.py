"""Blocks seen as one array, and which rows are the same."""

import numpy as np
import pytest

from tsds_pipeline.core import row_stack
from tsds_pipeline.core.row_stack import RowStack, distinct_rows


def test_rows_of_blocks_are_those_of_one_array():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    stack = RowStack([x[:1], x[1:1], x[1:30], x[30:]])
    rows = np.array([49, 0, 1, 29, 30, 30])
    assert stack.shape == (50, 3)
    np.testing.assert_array_equal(stack[rows], x[rows])
    np.testing.assert_array_equal(stack[5:40:7], x[5:40:7])
    np.testing.assert_array_equal(stack[:], x)


def test_blocks_of_two_dimensions_are_refused():
    with pytest.raises(ValueError, match="one dimension"):
        RowStack([np.ones((2, 3)), np.ones((2, 4))])


def test_distinct_rows_are_the_first_of_each_value():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 3, (200, 4)).astype(np.float32)
    first, inverse = distinct_rows(x)
    values, expected = np.unique(x, axis=0, return_index=True)
    assert len(first) == len(values)
    np.testing.assert_array_equal(first, np.sort(expected))
    np.testing.assert_array_equal(x[first][inverse], x)


def test_rows_that_share_a_hash_stay_apart(monkeypatch):
    monkeypatch.setattr(row_stack, "_row_hashes", lambda vectors: np.zeros(len(vectors), dtype=np.uint64))
    first, inverse = distinct_rows(np.array([[1.0], [2.0], [1.0]], dtype=np.float32))
    assert first.tolist() == inverse.tolist() == [0, 1, 2]
