"""What else could have been selected for a task, and how good each choice is by queries that were held back.

Every method selects as many examples for a part of the queries; the rest of them, which it did not see, judge. The
methods are in ``core.baselines``, the metrics in ``core.metrics``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import all_distances, row_blocks, spread_sample
from tsds_pipeline.core.baselines import METHODS, Target, log_importance_ratios
from tsds_pipeline.core.metrics import (
    energy_distance,
    facility_location,
    kl_reduction,
    maximum_mean_discrepancy,
    near_duplicate_rate,
    transport_distance,
    unique_share,
    vendi_score,
)
from tsds_pipeline.core.sampling import draw
from tsds_pipeline.core.transport import by_unit, effective_sample_size
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.leaks import HeldBackTexts
from tsds_pipeline.ngrams import ngram_counts, total_counts
from tsds_pipeline.progress import Progress
from tsds_pipeline.settings import ResolvedTask
from tsds_pipeline.stages.holdout import QueriesOfPool, RememberingPool, folds
from tsds_pipeline.stages.pool import ReducedPool, StoredPool
from tsds_pipeline.stages.probabilities import solve_task

FOLDS = 4
OWN = "selection"
"""The method of the task's own settings, beside those of ``core.baselines``."""
_POOL_TEXTS, _TEXTS_AT_ONCE = 10_000, 50_000
# Examples, and queries, whose distributions are compared: distances of all pairs grow with the square.
_COMPARED = 1000


@dataclass(frozen=True)
class Metric:
    """What a quality metric says, for people."""

    title: str
    better: str
    """"lower" or "higher"."""
    meaning: str


METRICS = {
    "transport_distance": Metric(
        "transport distance",
        "lower",
        "Wasserstein-1 distance of the examples to the held-back queries (of 1,000 of each where there are more)",
    ),
    "energy_distance": Metric(
        "energy distance", "lower", "how far the distributions of examples and held-back queries are apart"
    ),
    "maximum_mean_discrepancy": Metric(
        "MMD", "lower", "the same under a Gaussian kernel as wide as the queries' median distance"
    ),
    "held_back_distance": Metric(
        "distance to nearest", "lower", "mean distance of a held-back query to its nearest example"
    ),
    "facility_location": Metric(
        "facility location", "higher", "coverage: mean cosine of a held-back query and its nearest example"
    ),
    "kl_reduction": Metric(
        "KL reduction",
        "higher",
        "nats by which the examples' n-grams are nearer to the held-back queries' than the pool's",
    ),
    "vendi_score": Metric(
        "Vendi score", "higher", "diversity: how many fully different examples it would be"
    ),
    "near_duplicate_rate": Metric(
        "near-duplicate rate", "lower", "share of the examples that have another within the kernel radius"
    ),
    "unique_share": Metric("unique share", "higher", "share of the draws that are no repetition"),
    "effective_sample_size": Metric(
        "effective size", "higher", "1 / sum p^2: as diverse as so many equally probable examples"
    ),
    "leaks": Metric(
        "leaks",
        "lower",
        "examples with the text of such a query or of a test record, or 13 words in a row of one",
    ),
}
"""By name, in order of display; the formulas and references are in ``core.metrics``."""


@dataclass(frozen=True)
class Verdict:
    """What a method chose without one part of the queries, judged by that part."""

    method: str
    fold: int
    size: int
    """How many examples it chose."""
    metrics: dict[str, float]
    """By name, as far as they apply."""
    nearest_example: np.ndarray
    """Plain distance of each held-back query to its nearest example, (m,)."""
    nearest_query: np.ndarray
    """Plain distance of each example to its nearest held-back query, (size,)."""


@dataclass(frozen=True)
class Verdicts:
    """``of`` each method and part of the queries; ``left_out`` names the methods that could not choose, and why."""

    of: tuple[Verdict, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Choice:
    """Candidates that were chosen, with repetitions in the order of draws; ``effective_size`` where it was a draw."""

    method: str
    candidates: np.ndarray
    effective_size: float | None = None


class Comparison:
    """The candidates of ``task``, seen by all its queries (``pool``), and a part of these held back.

    ``query_table`` has content_id and text; ``corpora`` the texts of the candidates by source; ``tests`` are the texts
    of the task's test set, normalised like these.
    """

    def __init__(
        self,
        task: str,
        settings: ResolvedTask,
        pool: StoredPool | ReducedPool,
        query_table: pl.DataFrame,
        corpora: Mapping[str, pl.LazyFrame],
        size: int,
        kernel_radius: float,
        tests: HeldBackTexts,
    ):
        self._task, self._size, self._radius = task, size, kernel_radius
        self._settings = replace(settings, size=size, fraction=None, tokens=None)
        weighted, uniform = (pool.uniform(uniform) for uniform in (False, True))
        self._weighted = RememberingPool(weighted)
        self._uniform = RememberingPool(uniform, like=self._weighted)
        self._corpora, self._query_table, self._tests = corpora, query_table, tests
        self._fold = folds(query_table["content_id"], FOLDS, f"tsds comparison {task}")

    @property
    def possible(self) -> bool:
        """Whether there are queries to hold back: two with different contents."""
        return bool(self._fold.max() > 0)

    def verdicts(self, methods: Sequence[str], progress: Progress | None = None) -> Verdicts:
        """A verdict for each of ``methods``, OWN first, and each part of the queries that is held back.

        A method that cannot choose without some part is left out. TsdsError where there is nothing to hold back.
        """
        if not self.possible:
            raise TsdsError(
                f"task {self._task}: all its queries are one, so that none can be held back to judge by: give more"
            )
        left_out: dict[str, str] = {}
        chosen: dict[int, list[_Choice]] = {}
        parts = range(int(self._fold.max()) + 1)
        for part in parts:
            chosen[part] = []
            budget = self._size
            for number, method in enumerate(methods, start=1):
                try:
                    choice = self._choice(part, method, budget)
                except ValueError as error:
                    left_out.setdefault(method, str(error))
                else:
                    chosen[part].append(choice)
                    # At a fixed alpha fewer queries can have fewer candidates: the same for everybody then.
                    budget = len(choice.candidates) if method == OWN else budget
                if progress:
                    progress(part * len(methods) + number, len(parts) * len(methods))
        choices = [(part, c) for part in parts for c in chosen[part] if c.method not in left_out]
        texts = self._texts_of(np.concatenate([choice.candidates for _, choice in choices]))
        return Verdicts(tuple(self._judged(part, choice, texts) for part, choice in choices), left_out)

    def _choice(self, fold: int, method: str, size: int) -> _Choice:
        """ValueError where ``method`` cannot choose ``size`` examples."""
        rows = np.flatnonzero(self._fold != fold)
        if method == OWN:
            return self._own(rows, self._rng(method, fold))
        target = Target(
            queries=self._weighted.queries[rows],
            pool=QueriesOfPool(self._weighted, rows),
            uniform=QueriesOfPool(self._uniform, rows),
            vectors=self._weighted.vectors,
            units=self._weighted.units,
            kernel_radius=self._radius,
            log_weights=self._log_weights[fold] if method == "dsir" else None,
        )
        # Where the settings want repetitions there may be more draws than examples.
        size = min(size, self._weighted.examples) if self._settings.with_replacement else size
        return _Choice(method, METHODS[method](target, size, self._rng(method, fold)))

    def _own(self, rows: np.ndarray, rng: np.random.Generator) -> _Choice:
        """A draw as the task's settings want it, but for some of the queries."""
        pool = self._weighted if self._settings.algorithm == "knn_kde" else self._uniform
        solved = solve_task(self._task, self._settings, QueriesOfPool(pool, rows)).solution
        p = by_unit(solved.probabilities, pool.units)
        again = self._settings.with_replacement
        size = self._size if again else min(self._size, int(np.count_nonzero(p)))
        units = draw(p, size, with_replacement=again, rng=rng)[0]
        return _Choice(OWN, self._first_of_unit[units], effective_sample_size(p))

    def _rng(self, *what: object) -> np.random.Generator:
        return np.random.default_rng(list(f"{self._settings.seed} {self._task} {what}".encode()))

    @cached_property
    def _first_of_unit(self) -> np.ndarray:
        return np.unique(self._weighted.units, return_index=True)[1]

    @cached_property
    def _log_weights(self) -> np.ndarray:
        """DSIR's logarithms of importance weights for the queries without each fold, (folds, N)."""
        pool = sum(total_counts(texts) for texts in self._pool_texts())
        ratios = []
        for fold in range(int(self._fold.max()) + 1):
            target = total_counts(self._query_table["text"].filter(pl.Series(self._fold != fold)))
            ratios.append(log_importance_ratios(pool, target))
        return np.concatenate([ngram_counts(t) @ np.array(ratios).T for t in self._pool_texts()]).T

    def _pool_texts(self) -> Iterator[pl.Series]:
        """The texts of all candidates, in the pool's order and in pieces."""
        sources = self._weighted.sources(np.arange(self._weighted.size)).rename("source")
        table = pl.DataFrame([sources, self._weighted.content_ids.rename("content_id")])
        for (source,), rows in table.group_by("source", maintain_order=True):
            corpus = self._corpora[source].select("content_id", "text")
            for piece in rows.select("content_id").iter_slices(_TEXTS_AT_ONCE):
                texts = corpus.join(piece.lazy(), on="content_id", how="semi").collect()
                yield piece.join(texts, on="content_id", how="left", maintain_order="left")["text"]

    @cached_property
    def _pool_counts(self) -> np.ndarray:
        """Counts of the n-grams of the pool's texts, or of an even sample of them."""
        sample = spread_sample(self._weighted.size, _POOL_TEXTS)
        return total_counts(self._texts_of(sample).values())

    def _texts_of(self, candidates: np.ndarray) -> dict[int, str]:
        """The texts of ``candidates``, by number."""
        rows = np.unique(candidates)
        table = pl.DataFrame({"candidate": rows}).with_columns(
            content_id=self._weighted.content_ids[rows], source=self._weighted.sources(rows)
        )
        found = [
            corpus.select("content_id", "text")
            .join(table.lazy().filter(pl.col("source") == source), on="content_id", how="inner")
            .select("candidate", "text")
            for source, corpus in sorted(self._corpora.items())
        ]
        return dict(pl.concat(found).collect().iter_rows())

    def _judged(self, fold: int, choice: _Choice, texts: Mapping[int, str]) -> Verdict:
        held = np.flatnonzero(self._fold == fold)
        queries, chosen = self._weighted.queries[held], choice.candidates
        vectors = self._weighted.vectors(chosen)
        nearest_example, nearest_query = _nearest(queries, vectors)
        # The methods' order may mean something: a sample of each, the same places for all.
        some = vectors[self._sample(fold, "examples", len(vectors))]
        few = queries[self._sample(fold, "queries", len(queries))]
        chosen_texts = [texts[int(candidate)] for candidate in chosen]
        query_texts = self._query_table["text"][held]
        metrics = {
            "transport_distance": transport_distance(some, few),
            "energy_distance": energy_distance(some, few),
            "maximum_mean_discrepancy": maximum_mean_discrepancy(some, few),
            "held_back_distance": float(nearest_example.mean()),
            "facility_location": facility_location(queries, vectors),
            "kl_reduction": kl_reduction(
                total_counts(query_texts), self._pool_counts, total_counts(chosen_texts)
            ),
            **intrinsic(vectors, self._weighted.units[chosen], self._radius),
            "leaks": float(
                len(self._tests.leaks(chosen_texts) | HeldBackTexts(query_texts).leaks(chosen_texts))
            ),
        }
        if choice.effective_size is not None:
            metrics["effective_sample_size"] = choice.effective_size
        ordered = {name: metrics[name] for name in METRICS if name in metrics}
        return Verdict(choice.method, fold, len(chosen), ordered, nearest_example, nearest_query)

    def _sample(self, fold: int, what: str, n: int) -> np.ndarray:
        return np.sort(self._rng(fold, what).permutation(n)[:_COMPARED])


def intrinsic(vectors: np.ndarray, units: np.ndarray, kernel_radius: float) -> dict[str, float]:
    """The metrics of a sample that need no queries; rows of ``vectors`` (n, dim) are draws of ``units`` (n,)."""
    _, first = np.unique(units, return_index=True)
    return {
        "vendi_score": vendi_score(vectors),
        # Repetitions of one example are counted by unique_share.
        "near_duplicate_rate": near_duplicate_rate(vectors[first], kernel_radius),
        "unique_share": unique_share(units),
    }


def verdict_table(verdicts: Sequence[Verdict]) -> pl.DataFrame:
    """A row for each method and part that was held back: method, fold, size, and a column for each metric."""
    schema = {"method": pl.String, "fold": pl.Int64, "size": pl.Int64, **dict.fromkeys(METRICS, pl.Float64)}
    rows = [{"method": one.method, "fold": one.fold, "size": one.size, **one.metrics} for one in verdicts]
    return pl.DataFrame(rows, schema=schema)


def mean_metrics(table: pl.DataFrame) -> pl.DataFrame:
    """A row for each method, in the order of ``table``: the mean of each metric over the parts, and its spread.

    The spread (sample standard deviation) is in the columns that end in "_spread".
    """
    names = [name for name in METRICS if name in table.columns]
    means = [pl.col(name).mean() for name in names]
    spreads = [pl.col(name).std().alias(f"{name}_spread") for name in names]
    return table.group_by("method", maintain_order=True).agg(*means, *spreads)


def _nearest(queries: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of each query to the nearest of ``vectors``, and of each of these to the nearest query."""
    of_query, of_vector = np.full(len(queries), np.inf), np.empty(len(vectors))
    for start, stop in row_blocks(len(vectors), 8 * len(queries)):
        block = all_distances(queries, vectors[start:stop])
        np.minimum(of_query, block.min(axis=1), out=of_query)
        of_vector[start:stop] = block.min(axis=0)
    return of_query, of_vector
