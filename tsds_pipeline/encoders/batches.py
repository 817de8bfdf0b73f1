"""Texts of similar length beside each other: batches in which little is padding."""

from collections.abc import Iterator, Sequence


def by_length(texts: Sequence[str], tokens: Sequence[int]) -> list[int]:
    """The rows of ``texts``, longest first; the same order for the same texts, however they come."""
    return sorted(range(len(texts)), key=lambda row: (-tokens[row], texts[row]))


def batches(order: Sequence[int], tokens: Sequence[int], size: int, limit: int) -> Iterator[list[int]]:
    """``order`` (longest text first) in batches of at most ``size`` texts and ``limit`` padded tokens."""
    start = 0
    while start < len(order):
        longest = max(1, tokens[order[start]])
        stop = start + max(1, min(size, limit // longest))
        yield list(order[start:stop])
        start = stop
