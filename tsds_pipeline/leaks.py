"""Examples that give away what a model is to be judged by: a text held back, or a long piece of one."""

import re
from collections.abc import Iterable, Iterator, Sequence

from tsds_pipeline.ngrams import WORDS

WORDS_IN_A_ROW = 13
"""So long a piece of a text is hardly there by chance (Brown et al., NeurIPS 2020, appendix C)."""


class HeldBackTexts:
    """Texts that no example is to repeat. Case, punctuation and white space do not count."""

    def __init__(self, texts: Iterable[str]):
        # Hashes: the pieces of a large test set would take as much memory as a hundred copies of it.
        self._whole: set[int] = set()
        self._pieces: set[int] = set()
        for text in texts:
            words = _words(text)
            self._whole.add(hash(words))
            self._pieces.update(_pieces(words))

    def leaks(self, texts: Sequence[str]) -> set[int]:
        """Which of ``texts``, by number, are one of the held-back ones, or have 13 words in a row of one."""
        return {number for number, text in enumerate(texts) if self._is_leak(_words(text))}

    def _is_leak(self, words: tuple[str, ...]) -> bool:
        return hash(words) in self._whole or any(piece in self._pieces for piece in _pieces(words))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.findall(WORDS, text.lower()) if word[0].isalnum() or word[0] == "_")


def _pieces(words: tuple[str, ...]) -> Iterator[int]:
    for start in range(len(words) - WORDS_IN_A_ROW + 1):
        yield hash(words[start : start + WORDS_IN_A_ROW])
