"""Does the selection help? Every method of ``core.baselines``, on real records, against texts held back.

    python benchmarks/evaluation.py DATA --work DIR [--seeds 5] [--out benchmarks/results] [--small]

DATA has sources/NAME.jsonl.gz and tasks/NAME/{query,test}.jsonl.gz. What is encoded and measured is kept in DIR, one
line of results.jsonl for each axis, seed, level and task: a run that was stopped goes on where it was. Three axes:

    copies       half of at most 2,000 records of each source, drawn anew for each seed, with near-copies of some of
                 them; selections of 200 and of 1,000 against up to 500 held-back texts of each task
    labels       half of the labelled records, 0.5, 1 and 5 % of them selected; F1 of a logistic regression on all
                 held-back records of the tasks that classify, labels of other tasks being one class of their own
    transformer  a small one over bytes, trained on some of the selections of 1,000, of the first three seeds

Closeness to the held-back texts alone proves nothing, as the nearest records win it: coverage and diversity stand
beside it. Writes evaluation.md and evaluation.png to --out. --small is a run of seconds, to see that it works.
"""

import argparse
import json
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

import evaluation_report
from evaluation_data import Data, Records, Task, joined
from language_models import NgramModel, Vocabulary, transformer_bits
from near_copies import approximation_error, copies
from tsds_pipeline.core import metrics
from tsds_pipeline.core.array_pool import ArrayPool
from tsds_pipeline.core.baselines import METHODS, Target, log_importance_ratios
from tsds_pipeline.core.config import SelectionConfig
from tsds_pipeline.core.neighbors import Neighbors
from tsds_pipeline.core.prepared import PreparedPool
from tsds_pipeline.ngrams import ngram_counts, total_counts
from tsds_pipeline.storage import write_atomically

RADIUS, DEFAULT_RADIUS = 0.5, 0.1
NARROW = "knn_kde, h = 0.1"
TRANSFORMER_TASKS = ("gsm8k", "nl2bash")
TRANSFORMER_METHODS = ("random", "top_k", "round_robin_deduplicated", "knn_kde")
INVERSE_REGULARISATION = 10.0
# What one search finds for a query: most methods need no more.
FIRST_DEPTH = 1024


@dataclass(frozen=True)
class Level:
    """``share`` of the records copied ``times``, the first ``encoded`` of a record's copies really encoded.

    Records are drawn from all alike or, where ``near``, among the 20 nearest of the queries of all tasks. What takes
    longest has at most so many ``seeds``, and goes ``without`` some methods.
    """

    name: str
    share: float = 0.0
    times: int = 0
    encoded: int = 0
    near: bool = False
    seeds: int | None = None
    without: tuple[str, ...] = ()


LEVELS = (
    Level("clean"),
    Level("0.1 % x 10", 0.001, 10, 10),
    Level("0.1 % x 100", 0.001, 100, 100),
    Level("0.1 % x 1000", 0.001, 1000, 100),
    Level("1 % x 10", 0.01, 10, 10),
    Level("1 % x 100", 0.01, 100, 46),
    Level("1 % near x 100", 0.01, 100, 15, near=True),
    Level("1 % x 1000", 0.01, 1000, 46, seeds=3, without=("knn_tv",)),
)


@dataclass(frozen=True)
class Sizes:
    per_source: int = 2000
    tests: int = 500
    budgets: tuple[int, ...] = (200, 1000)
    shares: tuple[float, ...] = (0.005, 0.01, 0.05)
    levels: tuple[Level, ...] = LEVELS
    transformer_levels: tuple[str, ...] = ("clean", "1 % x 1000")
    transformer_seeds: int = 3
    transformer_steps: int = 200
    transformer_tests: int = 100
    checked: int = 100


SMALL = Sizes(
    per_source=30,
    tests=10,
    budgets=(5,),
    shares=(0.2,),
    levels=(Level("clean"), Level("10 % x 12", 0.1, 12, 6), Level("10 % near x 4", 0.1, 4, 4, near=True)),
    transformer_levels=("clean",),
    transformer_steps=2,
    transformer_tests=2,
    checked=5,
)


class Results:
    """The lines of results.jsonl, and what is not in it yet."""

    def __init__(self, path: Path):
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self._known = {self._key(line) for line in self.lines}

    @staticmethod
    def _key(line: dict) -> tuple:
        return tuple(line.get(name) for name in ("axis", "seed", "level", "task"))

    def has(self, **key: object) -> bool:
        return self._key(key) in self._known

    def add(self, started: float, **line: object) -> None:
        line["seconds"] = round(time.perf_counter() - started, 1)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.lines.append(line)
        self._known.add(self._key(line))
        print(*(line[name] for name in ("axis", "seed", "level", "task", "seconds")), flush=True)


class SearchedPool:
    """A ``CandidatePool`` over ``pool`` that keeps what was searched for each of its queries, for all methods."""

    def __init__(self, pool: ArrayPool, queries: int):
        self.size, self.distances = pool.size, pool.distances
        self._pool, self._near = pool, [Neighbors(np.empty(0), np.empty(0, np.int64))] * queries
        self._weights = np.ones(pool.size)

    def weighted(self, weights: np.ndarray) -> "SearchedPool":
        """The same, with other ``weights`` (N,) and what was searched in common."""
        other = copy(self)
        other._weights = weights
        return other

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        k = min(k, self.size)
        short = np.array([row for row in rows if len(self._near[row].indices) < k], dtype=np.int64)
        if len(short):
            found = self._pool.nearest(short, min(self.size, max(2 * k, FIRST_DEPTH)))
            for row, distances, indices in zip(short, *found, strict=True):
                self._near[row] = Neighbors(distances, indices)
        near = [self._near[row] for row in rows]
        return Neighbors(*(np.array([getattr(one, name)[:k] for one in near]) for name in Neighbors._fields))

    def weights(self, candidates: np.ndarray) -> np.ndarray:
        return self._weights[candidates]

    def total_weight(self) -> tuple[float, float]:
        total = float(self._weights.sum())
        return total, total


@dataclass(eq=False)
class Pool:
    """Candidates: ``texts`` (n,), unit ``vectors`` (n, dim), and the number of the record each is, or is a copy of."""

    texts: np.ndarray
    vectors: np.ndarray
    originals: np.ndarray
    prepared: dict[float, PreparedPool] = field(default_factory=dict)
    numbered: dict[int, np.ndarray] = field(default_factory=dict)

    @cached_property
    def ngrams(self):
        return ngram_counts(self.texts)

    def with_radius(self, radius: float) -> PreparedPool:
        if radius not in self.prepared:
            self.prepared[radius] = PreparedPool(self.vectors, SelectionConfig(kernel_radius=radius))
            self.prepared[radius].complete()
        return self.prepared[radius]

    def words(self, row: int, vocabulary: Vocabulary) -> np.ndarray:
        """The words of a candidate, numbered; methods and tasks take many of the same."""
        if row not in self.numbered:
            self.numbered[row] = vocabulary.add(self.texts[row])
        return self.numbered[row]

    def targets(self, queries: Records, vectors: np.ndarray) -> dict[str, Target]:
        """What each method looks at, by its name."""
        uniform = SearchedPool(ArrayPool(vectors, self.with_radius(RADIUS), weighted=False), len(queries))
        pool = np.asarray(self.ngrams.sum(axis=0)).ravel()
        weights = self.ngrams @ log_importance_ratios(pool, total_counts(queries.texts))

        def target(radius: float) -> Target:
            pool = uniform.weighted(1 / self.with_radius(radius).densities)
            look_up = self.vectors.__getitem__
            return Target(vectors, pool, uniform, look_up, kernel_radius=radius, log_weights=weights)

        return dict.fromkeys(METHODS, target(RADIUS)) | {NARROW: target(DEFAULT_RADIUS)}


def selections(
    targets: dict[str, Target], sizes: list[int], seed: int
) -> Iterator[tuple[str, int, np.ndarray | str]]:
    """Method, size, and what it selected or why it could not."""
    for name, target in targets.items():
        method = METHODS["knn_kde" if name == NARROW else name]
        for size in sizes:
            rng = np.random.default_rng([seed, size, zlib.crc32(name.encode())])
            try:
                yield name, size, method(target, size, rng)
            except ValueError as error:
                yield name, size, str(error)


class Evaluation:
    def __init__(self, data: Data, sizes: Sizes, results: Results):
        self.data, self.sizes, self.results = data, sizes, results
        self.records = joined([source.some(sizes.per_source) for source in data.sources.values()])
        self.tests = {name: task.test.some(sizes.tests) for name, task in data.tasks.items()}
        self.words = np.array(
            sorted({word for text in self.records.texts for word in text.split()}), dtype=object
        )

    @cached_property
    def vectors(self) -> np.ndarray:
        return self.data.vectors(self.records.texts, "the records")

    def encode(self, texts: np.ndarray) -> np.ndarray:
        return self.data.vectors(texts, "the copies")

    @cached_property
    def task_vectors(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of the queries and of the tests of each task."""
        encode = self.data.vectors
        return {
            name: (encode(task.queries.texts, name), encode(self.tests[name].texts, name))
            for name, task in self.data.tasks.items()
        }

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of all records and all tests, whatever is drawn of them."""
        vocabulary = Vocabulary()
        for text in self.records.texts:
            vocabulary.add(text)
        for test in self.tests.values():
            for text in test.texts:
                vocabulary.add(text)
        return vocabulary

    @cached_property
    def words_of_tests(self) -> dict[str, list[np.ndarray]]:
        return {name: [self.vocabulary.add(text) for text in test.texts] for name, test in self.tests.items()}

    def drawn(self, seed: int) -> np.ndarray:
        """The records of the pool of ``seed``: half of all."""
        return np.sort(
            np.random.default_rng([seed, 1]).permutation(len(self.records))[: len(self.records) // 2]
        )

    def copied(self, level: Level, rows: np.ndarray, seed: int) -> np.ndarray:
        """Which of the records ``rows`` are copied; those of a smaller share are among those of a larger one."""
        rng, number = np.random.default_rng([seed, 2]), max(1, round(level.share * len(rows)))
        if not level.near:
            return np.sort(rng.permutation(rows)[:number])
        queries = np.concatenate([vectors for vectors, _ in self.task_vectors.values()])
        near = np.argsort(-(queries @ self.vectors[rows].T), axis=1)[:, :20]
        return np.sort(rng.permutation(rows[np.unique(near)])[:number])

    def pool(self, level: Level, seed: int) -> tuple[Pool, dict]:
        """The pool of ``seed`` with the copies of ``level``, and what there is to say about these."""
        rows = self.drawn(seed)
        if not level.times:
            return Pool(self.records.texts[rows], self.vectors[rows], rows), {"records": len(rows)}
        encoded = min(level.encoded, level.times)
        made = copies(
            self.records.texts,
            self.vectors,
            self.copied(level, rows, seed),
            level.times,
            encoded,
            self.words,
            self.encode,
            seed,
        )
        gaps = np.linalg.norm(made.vectors - self.vectors[made.originals], axis=1)
        about = {
            "records": len(rows),
            "copied": len(np.unique(made.originals)),
            "copies": len(made.texts),
            "encoded": int(made.encoded.sum()),
            "within": {str(radius): float((gaps <= radius).mean()) for radius in (DEFAULT_RADIUS, RADIUS)},
            "moved": float(np.median(gaps)),
        }
        if not made.encoded.all():
            about["approximation"] = approximation_error(
                made, self.vectors, self.encode, self.sizes.checked, seed
            )
        texts, vectors = (
            np.concatenate([ours[rows], new])
            for ours, new in ((self.records.texts, made.texts), (self.vectors, made.vectors))
        )
        return Pool(texts, vectors, np.concatenate([rows, made.originals])), about

    def copies(self, seed: int) -> None:
        for level in self.sizes.levels:
            if level.seeds is not None and seed >= level.seeds:
                continue
            due = [
                task
                for task in self.data.tasks.values()
                if not self.results.has(axis="copies", seed=seed, level=level.name, task=task.name)
            ]
            if not due:
                continue
            started = time.perf_counter()
            pool, about = self.pool(level, seed)
            about["density_error"] = max(pool.with_radius(r).density_error for r in (RADIUS, DEFAULT_RADIUS))
            if not self.results.has(axis="level", seed=seed, level=level.name):
                self.results.add(started, axis="level", seed=seed, level=level.name, task=None, **about)
            for task in due:
                started = time.perf_counter()
                found = self._copies_of(pool, task, level, seed)
                self.results.add(
                    started, axis="copies", seed=seed, level=level.name, task=task.name, results=found
                )

    def _copies_of(self, pool: Pool, task: Task, level: Level, seed: int) -> list[dict]:
        queries, tests = self.task_vectors[task.name]
        found = []
        targets = pool.targets(task.queries, queries)
        targets = {name: target for name, target in targets.items() if name not in level.without}
        for name, size, chosen in selections(targets, list(self.sizes.budgets), seed):
            line: dict = {"method": name, "size": size}
            if isinstance(chosen, str):
                found.append(line | {"failed": chosen})
                continue
            rows = pool.vectors[chosen]
            line |= {
                "energy": metrics.energy_distance(rows, tests),
                "transport": metrics.transport_distance(rows, tests),
                "coverage": metrics.facility_location(tests, rows),
                "vendi": metrics.vendi_score(rows),
                "near_duplicates": metrics.near_duplicate_rate(rows, RADIUS),
                "distinct": metrics.unique_share(pool.originals[chosen]),
            }
            if not task.classifies:
                texts = [pool.words(row, self.vocabulary) for row in chosen]
                line["words"] = sum(map(len, texts))
                line["bits"] = NgramModel(texts, len(self.vocabulary)).bits(self.words_of_tests[task.name])
            if size == max(self.sizes.budgets) and self._is_trained(task.name, level.name, name):
                self._keep(self._selection(seed, level.name, task.name, name), pool.texts[chosen])
            found.append(line)
        return found

    def _is_trained(self, task: str, level: str, method: str) -> bool:
        return (
            task in TRANSFORMER_TASKS
            and level in self.sizes.transformer_levels
            and method in TRANSFORMER_METHODS
        )

    def _selection(self, seed: int, level: str, task: str, method: str) -> Path:
        return self.results.path.parent / "selections" / f"{seed}-{level}-{task}-{method}.json"

    def _keep(self, path: Path, texts: np.ndarray) -> None:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda path: path.write_text(json.dumps(texts.tolist())))

    def labels(self, seed: int) -> None:
        due = [
            task
            for task in self.data.tasks.values()
            if task.classifies and not self.results.has(axis="labels", seed=seed, task=task.name)
        ]
        if not due:
            return
        started = time.perf_counter()
        records = self._labelled(seed)
        vectors = self.data.vectors(records.texts, "the labelled records")
        pool = Pool(records.texts, vectors, np.arange(len(records)))
        sizes = [max(2, round(share * len(records))) for share in self.sizes.shares]
        for task in due:
            queries = self.task_vectors[task.name][0]
            tests = self.data.vectors(task.test.texts, task.name)
            right = np.isin(records.labels, list(set(task.test.labels)))
            labels = np.where(right, records.labels, "").astype(str)

            def score(rows: np.ndarray, labels=labels, tests=tests, task=task) -> float:
                return f1(vectors[rows], labels[rows], tests, task.test.labels.astype(str))

            found = [{"method": "all", "size": len(records), "f1": score(np.arange(len(records)))}]
            for name, size, chosen in selections(pool.targets(task.queries, queries), sizes, seed):
                line = {"method": name, "size": size, "share": self.sizes.shares[sizes.index(size)]}
                if isinstance(chosen, str):
                    found.append(line | {"failed": chosen})
                    continue
                found.append(line | {"f1": score(chosen), "right": float(right[chosen].mean())})
            self.results.add(
                started,
                axis="labels",
                seed=seed,
                level=None,
                task=task.name,
                records=len(records),
                results=found,
            )
            started = time.perf_counter()

    def _labelled(self, seed: int) -> Records:
        """Half of the labelled records: those of sources with a task's labels whole, at most so many of the others."""
        tasks, parts = self.data.tasks.values(), []
        for source in self.data.sources.values():
            if any(label is not None for label in source.labels):
                whole = any(task.labels_of(source) for task in tasks)
                parts.append(source if whole else source.some(self.sizes.per_source))
        records = joined(parts)
        return records.some(len(records) // 2, seed, 3)

    def transformer(self, seed: int) -> None:
        if seed >= self.sizes.transformer_seeds:
            return
        for level in self.sizes.transformer_levels:
            for task in TRANSFORMER_TASKS:
                if task not in self.data.tasks:
                    continue
                if self.results.has(axis="transformer", seed=seed, level=level, task=task):
                    continue
                started = time.perf_counter()
                tests = self.tests[task].texts[: self.sizes.transformer_tests]
                found = []
                for method in TRANSFORMER_METHODS:
                    path = self._selection(seed, level, task, method)
                    if path.exists():  # not where the method could not select so many
                        bits = transformer_bits(
                            json.loads(path.read_text()), tests, self.sizes.transformer_steps, seed
                        )
                        found.append({"method": method, "size": max(self.sizes.budgets), "bits": bits})
                self.results.add(
                    started, axis="transformer", seed=seed, level=level, task=task, results=found
                )


def f1(train: np.ndarray, labels: np.ndarray, test: np.ndarray, expected: np.ndarray) -> float:
    """Macro F1, over the labels in ``expected``, of a multinomial logistic regression on vectors."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    if len(set(labels)) == 1:
        predicted = np.full(len(expected), labels[0])
    else:
        model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=200, tol=1e-3)
        with warnings.catch_warnings(action="ignore"):  # that there are many classes for so few rows
            predicted = model.fit(train, labels).predict(test)
    return float(
        f1_score(expected, predicted, labels=sorted(set(expected)), average="macro", zero_division=0.0)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    for folder in ("sources", "tasks"):
        if not (options.data / folder).is_dir():
            parser.error(f"{options.data}: no {folder}/ in there")
    if options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    options.work.mkdir(parents=True, exist_ok=True)
    results = Results(options.work / "results.jsonl")
    evaluation = Evaluation(Data(options.data, options.work), SMALL if options.small else Sizes(), results)
    axes: list[Callable[[int], None]] = [evaluation.copies, evaluation.labels, evaluation.transformer]
    for axis in axes:
        for seed in range(options.seeds):
            axis(seed)
    options.out.mkdir(parents=True, exist_ok=True)
    evaluation_report.write(results.lines, options.out)


if __name__ == "__main__":
    main()
