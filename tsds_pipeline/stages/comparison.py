"""What else could have been selected for a task, and how good each choice is by queries that were held back.

Every method selects as many examples for a part of the queries; the rest of them, which it did not see, judge. The
methods are in ``core.baselines``, the metrics in ``core.metrics``.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import all_distances, row_blocks, spread_sample
from tsds_pipeline.core.baselines import METHODS, Target, log_importance_weights
from tsds_pipeline.core.metrics import (
    EXACT_PAIRS,
    energy_distance,
    facility_location,
    kl_reduction,
    maximum_mean_discrepancy,
    near_duplicate_rate,
    sliced_transport_distance,
    transport_distance,
    unique_share,
    vendi_score,
)
from tsds_pipeline.core.sampling import draw
from tsds_pipeline.core.transport import by_unit
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.leaks import HeldBackTexts
from tsds_pipeline.ngrams import ngram_counts
from tsds_pipeline.progress import Progress
from tsds_pipeline.settings import ResolvedTask
from tsds_pipeline.stages.holdout import QueriesOfPool, folds
from tsds_pipeline.stages.pool import StoredPool
from tsds_pipeline.stages.probabilities import solve_task

FOLDS = 4
OWN = "selection"
"""The method of the task's own settings, beside those of ``core.baselines``."""
_POOL_TEXTS = 10_000


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
        "Wasserstein-1 distance of the examples to the held-back queries (exact; sliced where there are too many)",
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
        "examples with the text of a held-back query or test record, or 13 words in a row of one",
    ),
}
"""By name, in order of display; the formulas and references are in ``core.metrics``."""


@dataclass(frozen=True)
class Verdict:
    """What a method chose without one part of the queries, judged by that part."""

    method: str
    fold: int
    metrics: dict[str, float]
    """By name, as far as they apply."""
    nearest_example: np.ndarray
    """Plain distance of each held-back query to its nearest example, (m,)."""
    nearest_query: np.ndarray
    """Plain distance of each example to its nearest held-back query, (size,)."""


@dataclass(frozen=True)
class Choice:
    """Candidates that were chosen, with repetitions in the order of draws; ``effective_size`` where it was a draw."""

    candidates: np.ndarray
    effective_size: float | None = None


class Comparison:
    """The candidates of ``task``, seen by all its queries (``pool``), and a part of these held back.

    ``query_table`` has content_id and text; ``corpora`` the texts of the candidates by source; ``test_texts`` are
    those of the task's test set, normalised like these.
    """

    def __init__(
        self,
        task: str,
        settings: ResolvedTask,
        pool: StoredPool,
        query_table: pl.DataFrame,
        corpora: Mapping[str, pl.LazyFrame],
        size: int,
        kernel_radius: float,
        test_texts: Collection[str] = (),
    ):
        self._task, self._size, self._radius = task, size, kernel_radius
        self._settings = replace(settings, size=size, fraction=None)
        self._weighted, self._uniform = (
            StoredPool(task, pool.parts, pool.queries, uniform=uniform) for uniform in (False, True)
        )
        self._corpora, self._query_table, self._tests = corpora, query_table, HeldBackTexts(test_texts)
        self._fold = folds(query_table["content_id"], FOLDS, f"tsds comparison {task}")

    @property
    def possible(self) -> bool:
        """Whether there are queries to hold back: two with different contents."""
        return bool(self._fold.max() > 0)

    def verdicts(self, methods: Sequence[str], progress: Progress | None = None) -> list[Verdict]:
        """A verdict for each of ``methods`` and each part of the queries that is held back.

        TsdsError where there is nothing to hold back.
        """
        if not self.possible:
            raise TsdsError(
                f"task {self._task}: it has one query, so that none can be held back to judge by: give more queries"
            )
        parts = range(int(self._fold.max()) + 1)
        tasks = [(fold, method) for fold in parts for method in methods]
        choices: list[tuple[int, str, Choice]] = []
        for fold in parts:
            for method in methods:
                choices.append((fold, method, self._choice(fold, method)))
                if progress:
                    progress(len(choices), len(tasks))
        texts = self._texts_of(np.concatenate([choice.candidates for _, _, choice in choices]))
        return [self._judged(fold, method, choice, texts) for fold, method, choice in choices]

    def _choice(self, fold: int, method: str) -> Choice:
        rows = np.flatnonzero(self._fold != fold)
        seed = f"{self._settings.seed} {self._task} {method} {fold}"
        rng = np.random.default_rng(list(seed.encode()))
        if method == OWN:
            return self._own(rows, rng)
        target = Target(
            queries=self._weighted.queries[rows],
            pool=QueriesOfPool(self._weighted, rows),
            uniform=QueriesOfPool(self._uniform, rows),
            vectors=self._weighted.vectors,
            units=self._weighted.units,
            kernel_radius=self._radius,
            log_weights=self._log_weights(rows) if method == "dsir" else None,
        )
        try:
            return Choice(METHODS[method](target, self._size, rng))
        except ValueError as error:
            raise TsdsError(f"task {self._task}, {method}: {error}") from None

    def _own(self, rows: np.ndarray, rng: np.random.Generator) -> Choice:
        """A draw as the task's settings want it, but for some of the queries."""
        pool = self._weighted if self._settings.algorithm == "knn_kde" else self._uniform
        solved = solve_task(self._task, self._settings, QueriesOfPool(pool, rows)).solution
        p = by_unit(solved.probabilities, pool.units)
        again = self._settings.with_replacement
        # At a fixed alpha fewer queries can have too few candidates: all of them then.
        size = self._size if again else min(self._size, int(np.count_nonzero(p)))
        units = draw(p, size, with_replacement=again, rng=rng)[0]
        return Choice(self._first_of_unit[units], float(1.0 / np.square(p).sum()))

    @cached_property
    def _first_of_unit(self) -> np.ndarray:
        return np.unique(self._weighted.units, return_index=True)[1]

    def _log_weights(self, rows: np.ndarray) -> np.ndarray:
        target = ngram_counts(self._query_table["text"][rows])
        return log_importance_weights(self._pool_ngrams, target)

    @cached_property
    def _pool_ngrams(self):
        """Counts of the n-grams of every candidate, source by source, in the pool's order."""
        from scipy.sparse import vstack

        return vstack([ngram_counts(texts) for texts in self._pool_texts()], format="csr")

    def _pool_texts(self) -> Iterator[pl.Series]:
        for part in self._weighted.parts:
            table = self._corpora[part.key].select("content_id", "text").collect()
            order = part.densities.select("content_id")
            yield order.join(table, on="content_id", how="left", maintain_order="left")["text"]

    @cached_property
    def _pool_counts(self) -> np.ndarray:
        """Counts of the n-grams of the pool's texts, or of an even sample of them."""
        sample = spread_sample(self._weighted.size, _POOL_TEXTS)
        return _total(self._texts_of(sample).values())

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

    def _judged(self, fold: int, method: str, choice: Choice, texts: Mapping[int, str]) -> Verdict:
        held = np.flatnonzero(self._fold == fold)
        queries, chosen = self._weighted.queries[held], choice.candidates
        vectors = self._weighted.vectors(chosen)
        nearest_example, nearest_query = _nearest(queries, vectors)
        small = len(vectors) * len(queries) <= EXACT_PAIRS
        chosen_texts = [texts[int(candidate)] for candidate in chosen]
        query_texts = self._query_table["text"][held]
        metrics = {
            "transport_distance": (transport_distance if small else sliced_transport_distance)(
                vectors, queries
            ),
            "energy_distance": energy_distance(vectors, queries),
            "maximum_mean_discrepancy": maximum_mean_discrepancy(vectors, queries),
            "held_back_distance": float(nearest_example.mean()),
            "facility_location": facility_location(queries, vectors),
            "kl_reduction": kl_reduction(_total(query_texts), self._pool_counts, _total(chosen_texts)),
            **intrinsic(vectors, self._weighted.units[chosen], self._radius),
            "leaks": float(
                len(self._tests.leaks(chosen_texts) | HeldBackTexts(query_texts).leaks(chosen_texts))
            ),
        }
        if choice.effective_size is not None:
            metrics["effective_sample_size"] = choice.effective_size
        ordered = {name: metrics[name] for name in METRICS if name in metrics}
        return Verdict(method, fold, ordered, nearest_example, nearest_query)


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
    """A row for each method and part that was held back: method, fold, and a column for each metric."""
    schema = {"method": pl.String, "fold": pl.Int64, **dict.fromkeys(METRICS, pl.Float64)}
    rows = [{"method": one.method, "fold": one.fold, **one.metrics} for one in verdicts]
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


def _total(texts: Collection[str]) -> np.ndarray:
    """Counts of the n-grams of all ``texts``, (BUCKETS,)."""
    return np.asarray(ngram_counts(texts).sum(axis=0), dtype=np.float64).ravel()
