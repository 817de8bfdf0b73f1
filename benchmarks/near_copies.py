"""Near-copies of records: texts with a word or two edited, and their vectors.

An edit swaps two words that stand side by side, deletes a word, or puts a word of another text in its place. A record's
first copies have one edit each and are really encoded. Where more are asked for than that, the others have two of those
edits, and the vector v + (a - v) + (b - v), at length 1, from the vectors a and b of the two copies with one of them;
``approximation_error`` says how far from the really encoded ones these are.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

KINDS = ("swap", "delete", "replace")
_SPACES = re.compile(r"(\s+)")
_TRIES = 50

Encode = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Edit:
    """``kind`` of KINDS at the word number ``position``; ``word`` is the new one."""

    kind: str
    position: int
    word: str

    def __call__(self, text: str) -> str:
        parts = _SPACES.split(text)
        words = len(parts) // 2 + 1
        at = 2 * (self.position % words)
        if self.kind == "replace" or words == 1:
            parts[at] = self.word
        elif self.kind == "delete":
            del parts[max(0, at - 1) : at + 1 + (at == 0)]
        else:
            other = at + 2 if at + 2 < len(parts) else at - 2
            parts[at], parts[other] = parts[other], parts[at]
        return "".join(parts)


def edits(text: str, number: int, words: np.ndarray, rng: np.random.Generator) -> list[Edit]:
    """At most ``number`` edits that each make another text; new words are any of ``words``."""
    found, seen = [], {text}
    length = len(_SPACES.split(text)) // 2 + 1
    for _ in range(_TRIES * number):
        if len(found) == number:
            break
        edit = Edit(KINDS[rng.integers(3)], int(rng.integers(length)), str(words[rng.integers(len(words))]))
        edited = edit(text).strip()
        if edited and edited not in seen:
            seen.add(edited)
            found.append(edit)
    return found


@dataclass(frozen=True, eq=False)
class Copies:
    """Copies of ``originals`` (c,), rows of the records that were copied, by their ``texts`` and unit ``vectors``."""

    texts: np.ndarray
    vectors: np.ndarray
    originals: np.ndarray
    encoded: np.ndarray
    """Which of the vectors are of really encoded texts, bool (c,)."""


def copies(
    texts: np.ndarray,
    vectors: np.ndarray,
    rows: np.ndarray,
    times: int,
    encoded: int,
    words: np.ndarray,
    encode: Encode,
    seed: int,
) -> Copies:
    """``times`` near-copies of each of ``rows`` of the records ``texts`` (n,), ``vectors`` (n, dim).

    The first ``encoded`` of a record have one edit; they are the same however many there are. A record that has not so
    many different ones gets fewer.
    """
    edited = {row: edits(texts[row], encoded, words, np.random.default_rng([seed, row])) for row in rows}
    single = {row: [edit(texts[row]).strip() for edit in edited[row]] for row in rows}
    encodings = encode(np.array([text for row in rows for text in single[row]], dtype=object))
    parts, start = [], 0
    for row in rows:
        ours = encodings[start : start + len(single[row])]
        start += len(ours)
        parts.append(_of_one(texts[row], vectors[row], edited[row], single[row], ours, times, [seed, row, 1]))
    return Copies(
        np.array([text for part, _, _ in parts for text in part], dtype=object),
        np.concatenate([part for _, part, _ in parts]),
        np.repeat(rows, [len(part) for part, _, _ in parts]),
        np.concatenate([part for _, _, part in parts]),
    )


def _of_one(text, vector, edited, single, encodings, times, seed) -> tuple[list[str], np.ndarray, np.ndarray]:
    if times <= len(single):
        return single[:times], encodings[:times], np.ones(times, dtype=bool)
    pairs = np.array(list(combinations(range(len(single)), 2))).reshape(-1, 2)
    pairs = np.random.default_rng(seed).permutation(pairs)[: times - len(single)]
    doubled = [edited[b](edited[a](text)).strip() for a, b in pairs]
    moved = approximated(vector, encodings[pairs[:, 0]], encodings[pairs[:, 1]])
    which = np.arange(len(single) + len(pairs)) < len(single)
    return single + doubled, np.concatenate([encodings, moved]), which


def approximated(vectors: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Unit vectors of texts with two edits, (n, dim), from those of the originals and with either edit."""
    moved = one + other - vectors
    return (moved / np.linalg.norm(moved, axis=-1, keepdims=True)).astype(np.float32)


def approximation_error(found: Copies, vectors: np.ndarray, encode: Encode, most: int, seed: int) -> dict:
    """Of a sample of the copies with two edits: plain distances, medians, from what their texts encode to, from their
    originals, and from their originals as encoded. ``vectors`` are those of the records."""
    rows = np.flatnonzero(~found.encoded)
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
    real, original = encode(found.texts[rows]), vectors[found.originals[rows]]

    def median(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.median(np.linalg.norm(one - other, axis=1)))

    return {
        "sampled": len(rows),
        "error": median(found.vectors[rows], real),
        "moved": median(found.vectors[rows], original),
        "really_moved": median(real, original),
    }
