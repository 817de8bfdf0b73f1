"""Examples that give away what a model is to be judged by: a text held back, or a long piece of one."""

import re
from collections.abc import Iterable, Iterator, Sequence

from tsds_pipeline.ngrams import WORDS

WORDS_IN_A_ROW = 13
"""So long a piece of a text is hardly there by chance (Brown et al., NeurIPS 2020, appendix C)."""


def leaks(texts: Sequence[str], held_back: Iterable[str]) -> list[int]:
    """Which of ``texts``, by number, are one of ``held_back``, or have 13 words in a row of one.

    Case, punctuation and white space do not count.
    """
    whole: set[tuple[str, ...]] = set()
    pieces: set[tuple[str, ...]] = set()
    for text in held_back:
        words = _words(text)
        whole.add(words)
        pieces.update(_pieces(words))
    found = []
    for number, text in enumerate(texts):
        words = _words(text)
        if words in whole or any(piece in pieces for piece in _pieces(words)):
            found.append(number)
    return found


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.findall(WORDS, text.lower()) if word[0].isalnum() or word[0] == "_")


def _pieces(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for start in range(len(words) - WORDS_IN_A_ROW + 1):
        yield words[start : start + WORDS_IN_A_ROW]
