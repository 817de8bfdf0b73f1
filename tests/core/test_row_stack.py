"""Blocks seen as one array, and which rows are the same."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tsds_pipeline import SelectionConfig, select
from tsds_pipeline.core import row_stack
from tsds_pipeline.core.arrays import LONGEST
from tsds_pipeline.core.row_stack import RowStack, distinct_rows
from tsds_pipeline.core.transport import ALGORITHMS


def test_rows_of_blocks_are_those_of_one_array():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    stack = RowStack([x[:1], x[1:1], x[1:30], x[30:]])
    rows = np.array([49, 0, 1, 29, 30, 30])
    assert stack.shape == (50, 3)
    np.testing.assert_array_equal(stack[rows], x[rows])
    np.testing.assert_array_equal(stack[5:40:7], x[5:40:7])
    np.testing.assert_array_equal(stack[:], x)


def test_vectors_stay_where_they_are_and_are_read_at_unit_length(tmp_path):
    x = np.random.default_rng(2).normal(size=(10, 4)).astype(np.float32)
    assert np.shares_memory(RowStack.of(x, "x", normalize=False)[:], x)
    unit = RowStack.of(x, "x", normalize=True)[:]
    np.testing.assert_allclose(np.linalg.norm(unit.astype(float), axis=1), 1, atol=1e-6)
    assert np.shares_memory(RowStack.of(unit, "x", normalize=True)[:], unit)
    partly = unit.copy()
    partly[3] *= 2
    again = RowStack.of(partly, "x", normalize=True)
    np.testing.assert_allclose(again[:], unit, atol=1e-7)
    np.testing.assert_array_equal(again[:3], unit[:3])
    np.testing.assert_array_equal(again[np.array([3, 1])], again[:][[3, 1]])
    for other in (x.astype(np.float64), np.asfortranarray(x), x.tolist()):
        stack = RowStack.of(other, "x", normalize=False)
        np.testing.assert_array_equal(stack[:], x)
        assert stack[:].dtype == np.float32
    half = RowStack.of(x.astype(np.float16), "x", normalize=True)
    np.testing.assert_allclose(half.lengths, 1)
    np.testing.assert_allclose(np.linalg.norm(half[:].astype(float), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("mode", ["r", "c"])
def test_what_was_read_of_a_mapped_file_may_be_given_back_at_any_time(tmp_path, monkeypatch, mode):
    x = np.random.default_rng(3).normal(size=(5000, 16)).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
    if mode == "c":
        mapped[7] = x[7] = 3
    monkeypatch.setattr(row_stack, "_RESIDENT", 0)
    stack = RowStack([mapped[:2000], mapped[2000:]])
    np.testing.assert_array_equal(
        np.concatenate([block for _, block in stack.blocks(4096)]), x.astype(np.float32)
    )
    np.testing.assert_array_equal(stack[np.array([7, 4000])], x[[7, 4000]].astype(np.float32))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells what is resident")
def test_little_of_a_mapped_file_is_resident(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros((100_000, 256), dtype=np.float32))  # 100 MB
    stack = RowStack([np.load(tmp_path / "x.npy", mmap_mode="r")])
    monkeypatch.setattr(row_stack, "_RESIDENT", 2**22)

    def of_files() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssFile:")[2].split()[0]) * 1024

    before = of_files()
    for _ in stack.blocks(2**20):
        assert of_files() - before < 50e6
    for row in np.random.default_rng(0).permutation(len(stack))[:2000]:
        stack[np.array([row])]
    assert of_files() - before < 50e6


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([np.nan, 1], r"queries\[2\] has a value that is not finite"),
        ([np.inf, 1], r"queries\[2\] has a value that is not finite"),
        ([1e300, 1], r"queries\[2\] has a value that is not finite in float32"),
        ([0, 0], r"queries\[2\] is all zeros"),
    ],
)
def test_a_row_that_is_no_vector_is_named(row, message):
    with pytest.raises(ValueError, match=message):
        RowStack.of(np.array([[1, 2], [3, 4], row, row], dtype=np.float64), "queries", normalize=True)


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


def test_a_row_that_is_too_long_for_squared_distances_is_named():
    long = np.array([[1, 2], [3, LONGEST * 1.01]])
    with pytest.raises(
        ValueError, match=r"queries\[1\] has length 2.33e\+18, too long for squared distances"
    ):
        RowStack.of(long, "queries", normalize=False)
    assert np.isfinite(RowStack.of(long, "queries", normalize=True)[0:2]).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_longest_rows_are_selected_from(algorithm):
    rng = np.random.default_rng(2)
    queries, candidates = rng.normal(size=(3, 4)), rng.normal(size=(200, 4))
    scale = LONGEST / np.linalg.norm(candidates, axis=1).max() * (1 - 1e-6)
    config = SelectionConfig(algorithm=algorithm, normalize=False, kernel_radius=0.5, alpha=0.5)
    plain = select(queries, candidates, 5, config, 0)
    scaled = replace(config, kernel_radius=0.5 * scale, distance_scale=config.distance_scale * scale)
    found = select(queries * scale, candidates * scale, 5, scaled, 0)
    np.testing.assert_allclose(found.probabilities, plain.probabilities, rtol=1e-4, atol=1e-9)
