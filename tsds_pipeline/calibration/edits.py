"""Small edits of a text, as near-duplicates differ by them, and whether two texts differ by no more."""

import re
from collections import Counter
from collections.abc import Callable

import numpy as np

_WORD = re.compile(r"\S+")
_LETTERS = re.compile(r"\w+")
# Of two texts, one word in so many may differ: about what one edit does, and a reworded text exceeds.
_ONE_IN = 8
_LONG = 4


def _deleted(words: list[str], at: int, rng: np.random.Generator) -> list[str]:
    return words[:at] + words[at + 1 :]


def _swapped(words: list[str], at: int, rng: np.random.Generator) -> list[str]:
    at = min(at, len(words) - 2)
    return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]


def _doubled(words: list[str], at: int, rng: np.random.Generator) -> list[str]:
    return words[: at + 1] + words[at:]


def _mistyped(words: list[str], at: int, rng: np.random.Generator) -> list[str]:
    """Two neighbouring letters of a word change places, if possible in a long one."""
    long = [place for place, word in enumerate(words) if len(word) >= _LONG]
    at = long[int(rng.integers(len(long)))] if long else at
    word = words[at]
    places = [i for i in range(len(word) - 1) if word[i : i + 2].isalnum() and word[i] != word[i + 1]]
    if not places:
        return words
    i = places[int(rng.integers(len(places)))]
    return [*words[:at], word[:i] + word[i + 1] + word[i] + word[i + 2 :], *words[at + 1 :]]


def _restyled(words: list[str], at: int, rng: np.random.Generator) -> list[str]:
    """Another case at the beginning, a full stop more or less at the end."""
    last = words[-1].rstrip(".") if words[-1].endswith(".") else words[-1] + "."
    first, *others = [*words[:-1], last]
    return [first[:1].swapcase() + first[1:], *others]


EDITS: dict[str, Callable[[list[str], int, np.random.Generator], list[str]]] = {
    "a word deleted": _deleted,
    "two words swapped": _swapped,
    "a word doubled": _doubled,
    "a typo": _mistyped,
    "case and full stop": _restyled,
}
"""What is done to the words of a text, by name; the number is the place of the word."""


def edited(text: str, kind: str, rng: np.random.Generator) -> str | None:
    """``text`` after an edit of ``kind``, one of EDITS; None where that leaves nothing, or the same.

    White space between words stays where it is, as far as there are as many words.
    """
    words, gaps = _WORD.findall(text), _WORD.split(text)
    if len(words) < 2:
        return None
    changed = EDITS[kind](words, int(rng.integers(len(words))), rng)
    gaps = [*gaps[:1], *gaps[1:-1], *([" "] * (len(changed) - len(words)))][: len(changed)]
    result = "".join(gap + word for gap, word in zip(gaps, changed, strict=True)).strip()
    return None if result == text.strip() else result


def word_count(text: str) -> int:
    """How many words ``text`` has, split at white space."""
    return len(_WORD.findall(text))


def differ_by_an_edit(left: str, right: str) -> bool:
    """Whether the words of two texts are the same but for about one: their order and case do not matter.

    One word in eight may differ, and one word in any case; an exchanged word counts twice.
    """
    a, b = (Counter(_LETTERS.findall(text.casefold())) for text in (left, right))
    difference = (a - b).total() + (b - a).total()
    return difference <= max(1, min(a.total(), b.total()) // _ONE_IN)
