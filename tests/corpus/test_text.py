"""Normalised texts and content ids."""

import hashlib
from unicodedata import is_normalized

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsds_pipeline.corpus.text import content_id, normalized

SPECIAL = st.text(
    st.sampled_from("a \t\n\r\v\f\0\x1b\x1c\x7f\x85\x9f\xa0\ufeff\u2028\u2029\u0301\u200d\u2000e")
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  a b \n", "a b"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x85b\u2028c\u2029d\fe", "a\nb\nc\nd\ne"),
        ("one  \ntwo\t\n\n\nthree", "one\ntwo\n\n\nthree"),
        ("\n\n  x\n \n", "x"),
        ("def f():\n    return  1", "def f():\n    return  1"),
        ("e\u0301 and \u212b", "é and Å"),
        ("\ufeffa\0b\x1b[0m", "ab[0m"),
        ("e\0\u0301", "é"),
        ("\u00a0x\u3000", "x"),
        ("क\u094d\u200dष", "क\u094d\u200dष"),
        (" \t\r\n\ufeff\0", ""),
        ("", ""),
    ],
)
def test_what_is_removed_and_what_stays(raw, expected):
    assert normalized(raw) == expected


@given(st.one_of(SPECIAL, st.text()))
def test_normalising_twice_is_normalising_once(raw):
    once = normalized(raw)
    assert normalized(once) == once
    assert is_normalized("NFC", once)
    assert "\0" not in once
    assert "\r" not in once
    assert all(line == line.rstrip() for line in once.split("\n"))


def test_the_content_id_is_a_hash_of_the_text():
    assert content_id("naïve") == hashlib.blake2b("naïve".encode(), digest_size=16).hexdigest()
    assert len(content_id("")) == 32


def test_with_a_vector_both_decide():
    vector = np.array([1, 2], np.float32)
    expected = hashlib.blake2b(b"a\0" + vector.astype("<f4").tobytes(), digest_size=16).hexdigest()
    assert content_id("a", vector) == expected
    assert (
        len({content_id("a"), content_id("a", vector), content_id("a", vector + 1), content_id("b", vector)})
        == 4
    )


def test_half_a_surrogate_pair_has_no_content_id():
    with pytest.raises(UnicodeEncodeError):
        content_id("\ud83d")
