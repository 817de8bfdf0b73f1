"""Small edits of texts, and telling them from other texts."""

import numpy as np
import pytest

from tsds_pipeline.calibration.edits import EDITS, differ_by_an_edit, edited, word_count

TEXT = "Find all files in the current folder that were\n  changed since yesterday and print their names."


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_changes_a_little(kind):
    results = {edited(TEXT, kind, np.random.default_rng(seed)) for seed in range(30)}
    assert TEXT not in results
    for result in results:
        assert differ_by_an_edit(TEXT, result)
        assert abs(word_count(result) - word_count(TEXT)) <= 1
        assert abs(len(result) - len(TEXT)) <= 12
    assert edited(TEXT, kind, np.random.default_rng(1)) == edited(TEXT, kind, np.random.default_rng(1))


def test_the_edits_are_what_they_are_called():
    words, rng = ["one", "two", "three"], np.random.default_rng(0)
    assert EDITS["a word deleted"](words, 1, rng) == ["one", "three"]
    assert EDITS["two words swapped"](words, 2, rng) == ["one", "three", "two"]
    assert EDITS["a word doubled"](words, 2, rng) == ["one", "two", "three", "three"]
    assert sorted(EDITS["a typo"](words, 0, rng)[2]) == sorted("three")
    assert EDITS["case and full stop"](words, 0, rng) == ["One", "two", "three."]
    assert EDITS["case and full stop"](["One", "two."], 0, rng) == ["one", "two"]


def test_white_space_stays():
    assert edited("one two\n\n  three four", "two words swapped", np.random.default_rng(0)).count("\n") == 2
    for kind in EDITS:
        assert edited("word", kind, np.random.default_rng(0)) is None
        assert edited("", kind, np.random.default_rng(0)) is None
    assert edited("aa aa", "two words swapped", np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (TEXT.upper(), True),
        (TEXT.replace("yesterday", "Monday"), True),
        (TEXT.replace("files", "folders").replace("names", "sizes"), False),
        ("Delete a user", False),
    ],
)
def test_other_texts_are_told_from_edits(other, same):
    assert differ_by_an_edit(TEXT, other) is same


def test_of_a_short_text_an_exchanged_word_makes_another():
    assert not differ_by_an_edit("Return the maximum.", "Return the minimum.")
    assert differ_by_an_edit("Return the maximum.", "return maximum")
