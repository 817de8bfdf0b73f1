"""Several probabilities drawn into one set of examples: each has its share, and no candidate comes twice.

Each has a ranking of its own, that of Pareto order sampling for its share (``sampling``). They take turns in proportion
to their shares, and each takes the first of its ranking that nobody has taken.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tsds_pipeline.core.sampling import inclusion_probabilities, permanent_random_numbers, size_within


@dataclass(frozen=True, eq=False)
class Part:
    """What one task adds: its candidates with their probabilities, n of them, and how much of the whole it gets."""

    name: str
    """In messages."""
    probabilities: np.ndarray
    """(n,), all above zero."""
    ids: Sequence[str]
    """(n,), distinct; the same candidate has the same id in every part."""
    weight: float
    key: str
    """Of its permanent random numbers."""
    costs: np.ndarray | None = None
    """(n,) int64, where the whole is a budget and not a number of examples."""


@dataclass(frozen=True, eq=False)
class Mixed:
    """One epoch, in random order: the number of the part that took each example, and its row there; int64 (k,)."""

    part: np.ndarray
    row: np.ndarray


def shares(weights: Sequence[float], total: int) -> np.ndarray:
    """``total`` in whole numbers in proportion to ``weights``, int64, by the largest remainder (the first of equal)."""
    exact = np.asarray(weights, dtype=np.float64) / np.sum(weights) * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return counts


def mixed_draw(parts: Sequence[Part], total: int, *, epochs: int = 1, key: str) -> list[Mixed]:
    """``total`` examples an epoch, or as many as cost no more where parts have ``costs``; no id twice in one.

    A part with costs is done with its share at the first of its ranking that does not fit. ValueError where a part
    cannot give its share.
    """
    each = shares([part.weight for part in parts], total)
    found = []
    for epoch in range(epochs):
        taken = list(_turns(parts, each, epoch))
        if not taken:
            raise ValueError(f"none of the first examples fits into {total:,}")
        part, row = (np.array(numbers, dtype=np.int64) for numbers in zip(*taken, strict=True))
        ids = [parts[p].ids[r] for p, r in taken]
        order = np.argsort(permanent_random_numbers(ids, f"{key}/epoch-{epoch}/order"), kind="stable")
        found.append(Mixed(part[order], row[order]))
    return found


def _turns(parts: Sequence[Part], each: np.ndarray, epoch: int) -> Iterator[tuple[int, int]]:
    """Part and row of each example of one epoch, in the order in which they are taken."""
    rankings = [_ranking(part, int(share), epoch) for part, share in zip(parts, each, strict=True)]
    taken: set[str] = set()
    spent = np.zeros(len(parts), np.int64)
    # Whoever would have the smallest part of its share is next.
    waiting = [(1.0 / share, number) for number, share in enumerate(each) if share]
    heapq.heapify(waiting)
    while waiting:
        _, number = heapq.heappop(waiting)
        part = parts[number]
        row = next((row for row in rankings[number] if part.ids[row] not in taken), None)
        if row is None:
            # Of a budget that would not buy another of mean length nothing is missing.
            if part.costs is not None and each[number] - spent[number] <= part.costs.mean():
                continue
            raise ValueError(
                f"{part.name} is to give {each[number]:,} and has no more candidates with mass than "
                f"{len(part.ids):,}, of which {sum(i in taken for i in part.ids):,} are taken"
            )
        cost = 1 if part.costs is None else int(part.costs[row])
        if spent[number] + cost > each[number]:
            continue
        taken.add(part.ids[row])
        spent[number] += cost
        yield number, row
        if spent[number] < each[number]:
            heapq.heappush(waiting, ((spent[number] + 1) / each[number], number))


def _ranking(part: Part, share: int, epoch: int) -> Iterator[int]:
    """The rows of ``part`` in the order of its draw."""
    n = len(part.ids)
    if not share:
        return iter(())
    if part.costs is None and share > n:
        raise ValueError(f"{part.name} is to give {share:,} examples and has only {n:,} with mass")
    size = share if part.costs is None else size_within(part.probabilities, part.costs, share)
    pi = inclusion_probabilities(part.probabilities, size)
    u = permanent_random_numbers(part.ids, f"{part.key}/epoch-{epoch}")
    ratio = (u / (1.0 - u)) * ((1.0 - pi) / pi)
    return iter(np.lexsort((u, ratio)).tolist())
