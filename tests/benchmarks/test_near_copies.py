"""Near-copies of texts and what stands for their vectors."""

import numpy as np
import pytest

from near_copies import Edit, approximation_error, copies, edits

WORDS = np.array(["one", "two", "three", "four"], dtype=object)
TEXTS = np.array(["What is the time?", "a\n  b c", "alone"], dtype=object)


@pytest.mark.parametrize(
    ("edit", "text", "expected"),
    [
        (Edit("swap", 0, ""), "a  b\nc", "b  a\nc"),
        (Edit("swap", 2, ""), "a  b\nc", "a  c\nb"),
        (Edit("delete", 0, ""), "a  b\nc", "b\nc"),
        (Edit("delete", 1, ""), "a  b\nc", "a\nc"),
        (Edit("delete", 2, ""), "a  b\nc", "a  b"),
        (Edit("replace", 1, "x"), "a  b\nc", "a  x\nc"),
        (Edit("replace", 4, "x"), "a  b\nc", "a  x\nc"),
        (Edit("delete", 0, "x"), "a", "x"),
    ],
)
def test_an_edit(edit, text, expected):
    assert edit(text) == expected


def test_edits_differ_and_a_longer_list_begins_as_a_shorter_one():
    first = edits(TEXTS[0], 5, WORDS, np.random.default_rng(0))
    longer = edits(TEXTS[0], 12, WORDS, np.random.default_rng(0))
    assert longer[:5] == first
    assert len({edit(TEXTS[0]) for edit in longer} | {TEXTS[0]}) == 13
    assert len(edits("alone", 50, WORDS, np.random.default_rng(0))) == 4, "four words can stand for it"


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def encode(texts: np.ndarray) -> np.ndarray:
    """Sums of random vectors of the words: edits add up, up to the length."""
    words = [np.random.default_rng(list(word.encode())) for text in texts for word in text.split()]
    vectors = np.array([rng.normal(size=64) for rng in words])
    ends = np.cumsum([len(text.split()) for text in texts])
    return unit(np.array([part.sum(axis=0) for part in np.split(vectors, ends[:-1])]))


def test_copies_of_two_records():
    vectors = encode(TEXTS)
    found = copies(TEXTS, vectors, np.array([0, 1]), 20, 6, WORDS, encode, 0)
    assert np.bincount(found.originals).tolist() == [20, 20]
    assert np.bincount(found.originals, weights=found.encoded).tolist() == [6, 6]
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.vectors[found.encoded], encode(found.texts[found.encoded]))
    fewer = copies(TEXTS, vectors, np.array([1]), 3, 6, WORDS, encode, 0)
    assert fewer.texts.tolist() == found.texts[found.originals == 1][:3].tolist()
    error = approximation_error(found, vectors, encode, 10, 0)
    assert error["sampled"] == 10
    assert error["error"] < error["really_moved"]


def test_there_are_only_so_many_pairs_of_edits():
    found = copies(TEXTS, encode(TEXTS), np.array([0]), 100, 5, WORDS, encode, 0)
    assert len(found.texts) == 5 + 10
