"""Examples that give away what a model is to be judged by: a text held back, or a long piece of one."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple
from unicodedata import category

import numpy as np

# Scripts that put no spaces between words, without their punctuation: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = (
    r"\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e80-\u0eff\u1000-\u1049\u1050-\u109f\u1780-\u17d3\u17e0-\u17e9"
    r"\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\uff66-\uff9f\U00020000-\U0003ffff"
)
_JOINERS = "\u200c\u200d"
WORDS_IN_A_ROW = 13
"""So long a piece of a text is hardly there by chance (Brown et al., NeurIPS 2020, appendix C)."""
COMMON_SHARE, COMMON_TEXTS = 0.1, 3
"""A piece of more than this share of the held-back texts, and of so many at least, is their common instruction."""
# Words that are hashed, and texts that are looked through, at once; the multiplier of the rolling hash is odd.
_BATCH = 2**20
_TEXTS = 2**14
_BASE = np.uint64(0x9E3779B97F4A7C15)
# Bits of the table that rules most pieces out: at least so many, and at most.
_TABLE_BITS = 16, 27


class Match(NamedTuple):
    """Why a text leaks: the number of the held-back text, and the words they share, "" where that is all of both."""

    held_back: int
    piece: str


class HeldBackTexts:
    """Texts that no example is to repeat. Case, punctuation and white space do not count.

    Where a script puts no spaces between words, each character is one. A text without any word is compared as it is,
    but for case and white space. A piece that stands in many of the texts (COMMON_SHARE, COMMON_TEXTS), as the
    instruction of a benchmark does, is no evidence; a whole text always is.
    """

    def __init__(self, texts: Iterable[str]):
        # Hashes: the pieces of a large test set would take as much memory as a hundred copies of it.
        self._whole: dict[int, int] = {}
        distinct, numbers = [], []
        for number, text in enumerate(texts):
            words = _words(text)
            if self._whole.setdefault(hash(words), number) == number:
                distinct.append(words)
                numbers.append(number)
        batches = [(pieces.hashes, pieces.text) for pieces in _pieces(distinct)]
        hashes, owners = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        order = np.lexsort((owners, hashes))
        hashes, owners = hashes[order], owners[order]
        # Each piece once a text; then each once, with the first of its texts.
        once = _begins(hashes) | _begins(owners)
        hashes, owners = hashes[once], owners[once]
        first = np.flatnonzero(_begins(hashes))
        stands_in = np.diff(np.append(first, len(hashes)))
        kept = first[(stands_in < COMMON_TEXTS) | (stands_in <= COMMON_SHARE * len(distinct))]
        self._hashes, self._owners = hashes[kept], np.array(numbers, np.int64)[owners[kept]]
        least, most = _TABLE_BITS
        self._mask = np.uint64(2 ** min(most, max(least, 3 + len(kept).bit_length())) - 1)
        self._table = np.zeros(int(self._mask) + 1, dtype=bool)
        self._table[self._hashes & self._mask] = True

    def matches(self, texts: Sequence[str]) -> dict[int, Match]:
        """Those of ``texts``, by number, that are a held-back text or hold 13 words in a row of one, and why.

        Where there are several reasons: the whole text, else the first piece in the order of the words.
        """
        found: dict[int, Match] = {}
        for first in range(0, len(texts), _TEXTS):
            some = self._matches([_words(text) for text in texts[first : first + _TEXTS]])
            found |= {first + number: match for number, match in sorted(some.items())}
        return found

    def _matches(self, words: Sequence[tuple[str, ...]]) -> dict[int, Match]:
        found: dict[int, Match] = {}
        for pieces in _pieces(words):
            likely = np.flatnonzero(self._table[pieces.hashes & self._mask])
            for place, row in zip(*self._known(pieces.hashes, likely), strict=True):
                text, start = int(pieces.text[place]), int(pieces.start[place])
                piece = words[text][start : start + WORDS_IN_A_ROW]
                found.setdefault(text, Match(int(self._owners[row]), " ".join(piece)))
        for number, own in enumerate(words):
            if (held_back := self._whole.get(hash(own))) is not None:
                found[number] = Match(held_back, "")
        return found

    def leaks(self, texts: Sequence[str]) -> set[int]:
        """Which of ``texts``, by number, are one of the held-back ones, or have 13 words in a row of one."""
        return set(self.matches(texts))

    def _known(self, hashes: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of the ``places`` whose hash is that of a held-back piece, and its row here."""
        if not len(self._hashes):
            return places[:0], places[:0]
        row = np.searchsorted(self._hashes, hashes[places]).clip(max=len(self._hashes) - 1)
        same = self._hashes[row] == hashes[places]
        return places[same], row[same]


class _Pieces(NamedTuple):
    """WORDS_IN_A_ROW words in a row, in the order of the texts: hash, number of the text, number of the first word."""

    hashes: np.ndarray
    text: np.ndarray
    start: np.ndarray


def _pieces(texts: Sequence[tuple[str, ...]]) -> Iterator[_Pieces]:
    """The pieces of ``texts``, given as words, a batch of texts at a time; one batch at least."""
    lengths = np.array([len(words) for words in texts], dtype=np.int64)
    ends = np.cumsum(lengths)
    begin = 0
    while True:
        done = int(ends[begin - 1]) if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, done + _BATCH, side="right")))
        yield _hashed(texts[begin:stop], lengths[begin:stop], begin)
        begin = stop
        if begin >= len(texts):
            return


def _hashed(texts: Sequence[tuple[str, ...]], lengths: np.ndarray, first: int) -> _Pieces:
    """The pieces of one batch: the hash of each word once, then a polynomial of them at every place at once."""
    total, more = int(lengths.sum()), WORDS_IN_A_ROW - 1
    if total <= more:
        return _Pieces(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
    words = np.fromiter(map(hash, chain.from_iterable(texts)), np.int64, total).view(np.uint64)
    rolled = words[: total - more].copy()
    for step in range(1, WORDS_IN_A_ROW):
        rolled *= _BASE
        rolled += words[step : total - more + step]
    text = np.repeat(np.arange(len(texts)), lengths)
    inside = np.flatnonzero(text[: total - more] == text[more:])
    text = text[inside]
    start = inside - (np.cumsum(lengths) - lengths)[text]
    return _Pieces(rolled[inside], text + first, start)


def _begins(values: np.ndarray) -> np.ndarray:
    """Where a run of equal ``values`` begins."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _words(text: str) -> tuple[str, ...]:
    return tuple(_word_pattern().findall(text.lower())) or (" ".join(text.casefold().split()),)


@cache
def _word_pattern() -> re.Pattern[str]:
    """A word. Vowel signs and accents are no letters to ``re``, and would cut words of Hindi or Arabic to pieces."""
    unspaced = re.compile(f"[{_UNSPACED}]")
    marks = [chr(code) for code in range(0x300, 0x1F000) if category(chr(code)) in ("Mn", "Mc", "Me")]
    joining = "".join(mark for mark in (*marks, *_JOINERS) if not unspaced.match(mark))
    letters = rf"[^\W{_UNSPACED}]"
    return re.compile(rf"[{_UNSPACED}]|{letters}+(?:[{joining}]+{letters}*)*")
