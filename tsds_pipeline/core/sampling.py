"""Drawing a subset from selection probabilities.

Without replacement: Pareto order sampling (Rosen 1997), a design of fixed size whose inclusion probabilities
are proportional to the selection probabilities, capped at 1. Random numbers are either a generator's, row by
row, or permanent random numbers: keyed hashes of each candidate's id, so that the draw depends on neither
the order of rows nor on who else is drawn, and changes little when the probabilities change little.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def permanent_random_numbers(ids: Sequence, key: str) -> np.ndarray:
    """A uniform number in the open interval (0, 1) for each id, a hash of ``key`` and ``str(id)``; (n,) float64."""
    seed = hashlib.blake2b(key.encode(), digest_size=32).digest()
    digests = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8, key=seed).digest() for i in ids)
    # 52 bits and a half: never 0, never 1 after rounding.
    return ((np.frombuffer(digests, dtype="<u8") >> np.uint64(12)) + 0.5) * 2.0**-52


def inclusion_probabilities(probabilities: np.ndarray, size: int) -> np.ndarray:
    """pi_j = min(1, c p_j) with sum ``size``, (n,) float64.

    ValueError when ``size`` is below 1 or fewer than ``size`` entries are positive.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    support = int(np.count_nonzero(probabilities))
    if size > support:
        raise ValueError(f"{size} examples were asked for but only {support} candidates have mass")
    order = np.argsort(-probabilities, kind="stable")[:support]
    ranked = probabilities[order]
    # tail[t]: mass of all but the t largest, summed from the small end. t of them are certain when the
    # next one is not: ranked[t] * (size - t) <= tail[t], which holds at t = size - 1 at the latest.
    tail = np.cumsum(ranked[::-1])[::-1]
    certain = int(np.argmax(ranked[:size] * (size - np.arange(size)) <= tail[:size]))
    result = np.zeros(len(probabilities))
    result[order[:certain]] = 1.0
    result[order[certain:]] = np.minimum(1.0, ranked[certain:] * ((size - certain) / tail[certain]))
    return result


def pareto_sample(inclusion: np.ndarray, uniform: np.ndarray, size: int) -> np.ndarray:
    """The ``size`` candidates with the smallest odds ratio [u/(1-u)] / [pi/(1-pi)], ascending; int64.

    ``inclusion`` (n,) sums to ``size``; pi = 1 is always in, pi = 0 never. Its true inclusion probabilities
    differ from ``inclusion`` by a bias that vanishes with sum pi (1 - pi): none visible from 10.
    """
    possible = np.flatnonzero(inclusion > 0)
    pi, u = inclusion[possible], uniform[possible]
    ratio = (u / (1.0 - u)) * ((1.0 - pi) / pi)
    return np.sort(possible[np.argsort(ratio, kind="stable")[:size]])


def draw(
    probabilities: np.ndarray,
    size: int,
    *,
    epochs: int = 1,
    with_replacement: bool = False,
    ids: Sequence | None = None,
    key: str = "",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Row numbers drawn from ``probabilities`` (n,), int64 (epochs, size), a fresh draw in each epoch.

    With ``ids`` (n,) the draw is a function of ``key``, the epoch and the ids alone; otherwise ``rng`` gives
    the numbers row by row. The order within an epoch is random.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    pi = None if with_replacement else inclusion_probabilities(probabilities, size)
    support = np.flatnonzero(probabilities)
    if ids is not None:
        # Sorted by id, so that cumulative sums too are independent of the order of rows.
        support = support[np.argsort([str(ids[j]) for j in support], kind="stable")]
    return np.array(
        [_draw_epoch(probabilities, pi, support, size, epoch, ids, key, rng) for epoch in range(epochs)],
        dtype=np.int64,
    ).reshape(epochs, size)


def _draw_epoch(probabilities, pi, support, size, epoch, ids, key, rng) -> np.ndarray:
    epoch_key = f"{key}/epoch-{epoch}"
    if pi is None:
        source = rng if ids is None else _generator(epoch_key)
        cumulative = np.cumsum(probabilities[support])
        position = np.searchsorted(cumulative, source.random(size) * cumulative[-1], side="right")
        return support[np.minimum(position, len(support) - 1)]
    if ids is None:
        return rng.permutation(pareto_sample(pi, rng.random(len(probabilities)), size))
    names = [ids[j] for j in support]
    chosen = support[pareto_sample(pi[support], permanent_random_numbers(names, epoch_key), size)]
    shuffle = permanent_random_numbers([ids[j] for j in chosen], f"{epoch_key}/order")
    return chosen[np.argsort(shuffle, kind="stable")]


def _generator(key: str) -> np.random.Generator:
    return np.random.default_rng(
        int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "little")
    )


def size_within(probabilities: np.ndarray, costs: np.ndarray, budget: float) -> int:
    """The largest number of draws, at least 1, whose expected cost sum_j pi_j cost_j is within ``budget``.

    ``costs`` (n,) are those of the candidates, all of which have mass.
    """
    low, high = 1, len(probabilities)
    while low < high:
        middle = (low + high + 1) // 2
        expected = float(inclusion_probabilities(probabilities, middle) @ costs)
        low, high = (middle, high) if expected <= budget else (low, middle - 1)
    return low
