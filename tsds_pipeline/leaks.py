"""Examples that give away what a model is to be judged by: a text held back, or a long piece of one."""

import re
from collections.abc import Iterable, Iterator, Sequence

# Scripts that put no spaces between words, without their punctuation: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = (
    r"\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e80-\u0eff\u1000-\u1049\u1050-\u109f\u1780-\u17d3\u17e0-\u17e9"
    r"\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\uff66-\uff9f\U00020000-\U0003ffff"
)
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
WORDS_IN_A_ROW = 13
"""So long a piece of a text is hardly there by chance (Brown et al., NeurIPS 2020, appendix C)."""


class HeldBackTexts:
    """Texts that no example is to repeat. Case, punctuation and white space do not count.

    Where a script puts no spaces between words, each character is one. A text without any word is compared as it is,
    but for case and white space.
    """

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
    return tuple(_WORDS.findall(text.lower())) or (" ".join(text.casefold().split()),)


def _pieces(words: tuple[str, ...]) -> Iterator[int]:
    for start in range(len(words) - WORDS_IN_A_ROW + 1):
        yield hash(words[start : start + WORDS_IN_A_ROW])
