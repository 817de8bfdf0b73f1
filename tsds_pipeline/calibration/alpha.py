"""What alpha does on a task: how far it spreads, and how well what it selects serves queries that it did not see.

Part of the queries is held back in turn. For the others the task is solved at each alpha of a grid, samples are drawn
in proportion (of size x kept / all queries), and how near these are to the held-back queries is measured. All alphas
see the same folds and random numbers, so that differences between them are not those of the draw.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tsds_pipeline.core.arrays import all_distances, spread_sample
from tsds_pipeline.core.metrics import energy_distance
from tsds_pipeline.core.sampling import inclusion_probabilities, pareto_sample
from tsds_pipeline.core.transport import (
    AUTO_SIZE_ALPHA,
    Swept,
    automatic_size,
    by_unit,
    effective_sample_size,
    solve,
    solve_auto,
    sweep,
)
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import ResolvedTask
from tsds_pipeline.stages.holdout import QueriesOfPool, RememberingPool, folds
from tsds_pipeline.stages.pool import StoredPool
from tsds_pipeline.stages.probabilities import wanted_size

GRID = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
FOLDS, DRAWS = 4, 8
HARDLY = 0.05
# Where neighbourhoods hold so many candidates in all, this and smaller alphas are left out: they only grow from there.
# How many it will be is estimated from some of the queries.
_MOST_PAIRS, _ESTIMATED_FROM = 2 * 10**7, 8
# Examples of a sample that are compared with each other and with the held-back queries.
_COMPARED = 1000


@dataclass(eq=False)
class AlphaRow:
    """One alpha of a sweep, solved for all queries; the rest is measured with held-back ones."""

    alpha: float
    neighbors: float
    """Median neighbourhood size."""
    effective_size: float
    with_mass: int
    """Examples with mass."""
    certain: float | None
    """The share of a sample that is certain; None where there are too few examples with mass for one."""
    energy: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Energy distance to the held-back queries, for each fold and draw; empty where nothing was compared."""
    nearest: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Mean distance of a held-back query to its nearest example, likewise."""
    in_use: bool = False

    @property
    def measured(self) -> bool:
        """Whether samples of the size can be drawn and were compared with held-back queries."""
        return len(self.energy) > 0


@dataclass(frozen=True, eq=False)
class Sweep:
    """What alpha does on one task."""

    task: str
    queries: int
    folds: int
    """1: nothing could be held back."""
    size: int
    rows: tuple[AlphaRow, ...]
    """In order of alpha; the one in use is among them."""
    automatic: float | None
    """What alpha = "auto" is for the size; None where there are too few examples for any."""
    chosen: float | None
    """The alpha in use; None where it is automatic and there is none."""
    is_automatic: bool
    """Whether that is what is in use."""
    left_out: float | None
    """Alphas between 0 and this one were left out, because neighbourhoods are large there; 1 where all were."""
    random_energy: float
    """Of as many candidates taken at random; NaN where nothing was held back."""
    random_nearest: float

    @property
    def best(self) -> AlphaRow | None:
        """Of the rows that have enough examples the one with the least energy distance; None where there is none."""
        measured = [row for row in self.rows if row.measured]
        return min(measured, key=lambda row: row.energy.mean()) if measured else None

    @property
    def as_good(self) -> tuple[AlphaRow, ...]:
        """The best and those that are hardly worse: by no more than the standard error of the difference, or than the
        share HARDLY of what the best gains over random candidates."""
        best = self.best
        if best is None:
            return ()
        margin = HARDLY * max(self.random_energy - best.energy.mean(), 0.0)
        return tuple(row for row in self.rows if row.measured and _as_good(row, best, margin))

    @property
    def span(self) -> tuple[float, float] | None:
        """The alphas around the one in use, itself included, that are all as good; None where it is not."""
        good = [row in self.as_good for row in self.rows]
        place = next((number for number, row in enumerate(self.rows) if row.in_use), None)
        if place is None or not good[place]:
            return None
        low = place - next(n for n, fine in enumerate([*good[place::-1], False]) if not fine) + 1
        high = place + next(n for n, fine in enumerate([*good[place:], False]) if not fine) - 1
        return self.rows[low].alpha, self.rows[high].alpha

    @property
    def telling(self) -> bool:
        """Whether the best alpha is clearly nearer to the held-back queries than random candidates are."""
        return self.best is not None and self.best.energy.mean() < (1 - HARDLY) * self.random_energy

    @property
    def used(self) -> AlphaRow | None:
        """The row of the alpha in use; None where there is no such alpha or it was left out."""
        return next((row for row in self.rows if row.in_use), None)


def sweep_alpha(
    task: str,
    settings: ResolvedTask,
    pool: StoredPool,
    content_ids: Sequence[str],
    seed: int,
    done: Callable[[], None] = lambda: None,
) -> Sweep:
    """The sweep of ``task`` over ``pool``; ``content_ids`` (M,) are those of its queries.

    ``done`` is called for each of FOLDS + 1 steps, or of two where there is nothing to hold back.
    """
    options = {
        "algorithm": settings.algorithm,
        "distance_scale": settings.distance_scale,
        "max_neighbors": settings.max_neighbors,
    }
    pool = RememberingPool(pool)
    try:
        size, automatic = _size_and_alpha(settings, pool, options)
    except ValueError as error:
        raise TsdsError(f"task {task}: {error}") from None
    chosen = automatic if settings.alpha == "auto" else float(settings.alpha)
    alphas = sorted({*GRID, *(alpha for alpha in (automatic, chosen) if alpha is not None)})
    rows, left_out = [], None
    for swept in _affordable(pool, len(pool.queries), alphas, options):
        row = _row(swept, pool, size, settings.with_replacement)
        row.in_use = swept.alpha == chosen
        rows.insert(0, row)
    if missing := set(alphas) - {row.alpha for row in rows}:
        left_out = min((row.alpha for row in rows if row.alpha > max(missing)), default=1.0)
    done()
    fold = folds(content_ids, FOLDS, f"tsds calibrate {seed} {task}")
    held = _HeldBack(task, settings, pool, options, rows, size, seed)
    if fold.max() > 0:
        for number in range(int(fold.max()) + 1):
            held.measure(number, np.flatnonzero(fold != number), np.flatnonzero(fold == number))
            done()
    held.finish()
    return Sweep(
        task=task,
        queries=len(pool.queries),
        folds=int(fold.max()) + 1,
        size=size,
        rows=tuple(rows),
        automatic=automatic,
        chosen=chosen,
        is_automatic=settings.alpha == "auto",
        left_out=left_out,
        random_energy=float(np.mean(held.random_energy)) if held.random_energy else float("nan"),
        random_nearest=float(np.mean(held.random_nearest)) if held.random_nearest else float("nan"),
    )


def _size_and_alpha(settings: ResolvedTask, pool: RememberingPool, options: dict) -> tuple[int, float | None]:
    auto = None
    if settings.size == "auto":
        auto = automatic_size(solve(pool, len(pool.queries), alpha=AUTO_SIZE_ALPHA, **options), pool.units)
    size = wanted_size(settings, pool.examples, auto)
    if size > pool.examples and not settings.with_replacement:
        return size, None
    replacement = settings.with_replacement
    found = solve_auto(
        pool, len(pool.queries), size, units=pool.units, with_replacement=replacement, **options
    )
    return size, found.alpha


def _affordable(pool: RememberingPool, n_queries: int, alphas: Sequence[float], options: dict):
    """The optima from the largest alpha down to where they get too large, and alpha 0, which is cheap."""
    some = spread_sample(n_queries, _ESTIMATED_FROM)
    optima, pairs = sweep(pool, n_queries, alphas, **options), 0
    for estimate in sweep(QueriesOfPool(pool, some), len(some), alphas, **options):
        if estimate.alpha > 0 and max(pairs, estimate.neighborhood_sizes.mean() * n_queries) > _MOST_PAIRS:
            break
        swept = next(optima)
        pairs = swept.neighborhood_sizes.sum()
        yield swept
    else:
        return
    if 0.0 in alphas:
        yield from sweep(pool, n_queries, [0.0], **options)


def _row(swept: Swept, pool: RememberingPool, size: int, with_replacement: bool) -> AlphaRow:
    p = by_unit(swept.probabilities, pool.units)
    with_mass = int(np.count_nonzero(p))
    certain: float | None = 0.0 if with_replacement else None
    if not with_replacement and size <= with_mass:
        certain = float(np.count_nonzero(inclusion_probabilities(p, size) == 1.0) / size)
    median = float(np.median(swept.neighborhood_sizes))
    return AlphaRow(swept.alpha, median, effective_sample_size(p), with_mass, certain)


class _HeldBack:
    """Fills in what is measured with held-back queries, fold by fold."""

    def __init__(self, task, settings, pool: RememberingPool, options, rows: Sequence[AlphaRow], size, seed):
        self._pool, self._options, self._rows = pool, options, {row.alpha: row for row in rows}
        self._size, self._key = size, [seed, *task.encode()]
        self._with_replacement = settings.with_replacement
        _, self._first = np.unique(pool.units, return_index=True)
        drawable = [row.alpha for row in rows if row.certain is not None]
        self._measured: dict[float, list[tuple[float, float]]] = {alpha: [] for alpha in drawable}
        self.random_energy: list[float] = []
        self.random_nearest: list[float] = []

    def measure(self, fold: int, kept: np.ndarray, held: np.ndarray) -> None:
        """Select for the queries ``kept`` and compare with those ``held`` back."""
        queries = self._pool.queries[held]
        size = max(1, round(self._size * len(kept) / len(self._pool.queries)))
        generators = [np.random.default_rng([*self._key, fold, draw]) for draw in range(DRAWS)]
        uniform = [rng.random(len(self._first)) for rng in generators]
        even = np.full(len(self._first), 1.0)
        for u in uniform:
            energy, nearest = self._compared(even, min(size, len(even)), u, queries)
            self.random_energy.append(energy)
            self.random_nearest.append(nearest)
        some = QueriesOfPool(self._pool, kept)
        for swept in sweep(some, len(kept), list(self._measured), **self._options):
            p = by_unit(swept.probabilities, self._pool.units)
            # Fewer queries can have a few candidates too few.
            n = size if self._with_replacement else min(size, int(np.count_nonzero(p)))
            self._measured[swept.alpha] += [self._compared(p, n, u, queries) for u in uniform]

    def _compared(self, p: np.ndarray, size: int, u: np.ndarray, queries: np.ndarray) -> tuple[float, float]:
        """Energy distance of a sample to ``queries``, and their mean distance to its nearest example."""
        if self._with_replacement:
            drawn = np.searchsorted(np.cumsum(p) / p.sum(), np.resize(u, size)).clip(max=len(p) - 1)
        else:
            drawn = pareto_sample(inclusion_probabilities(p, size), u, size)
        vectors = self._pool.vectors(self._first[drawn])
        nearest = all_distances(queries, vectors).min(axis=1).mean()
        step = -(-len(vectors) // _COMPARED)
        return energy_distance(vectors[::step], queries), float(nearest)

    def finish(self) -> None:
        """Write what was measured into the rows."""
        for alpha, measured in self._measured.items():
            both = np.array(measured).reshape(-1, 2)
            self._rows[alpha].energy, self._rows[alpha].nearest = both.T


def _as_good(row: AlphaRow, best: AlphaRow, margin: float) -> bool:
    # Draws within a fold share its queries: the fold is what varies.
    by_fold = (row.energy - best.energy).reshape(-1, DRAWS).mean(axis=1)
    error = by_fold.std(ddof=1) / np.sqrt(len(by_fold)) if len(by_fold) > 1 else 0.0
    return bool(by_fold.mean() <= max(error, margin))
