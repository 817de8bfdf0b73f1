"""Candidates that give away what a task is judged by: found among those that matter, and left out of the pool.

What counts as the same text is in ``tsds_pipeline.leaks``; vectors that are near are told apart here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import all_distances, row_blocks
from tsds_pipeline.corpus import read_test_set
from tsds_pipeline.corpus.quarantine import excerpt_of
from tsds_pipeline.encoders import embed
from tsds_pipeline.encoders.cache import FOLDER as EMBEDDINGS
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, chat_template
from tsds_pipeline.leaks import HeldBackTexts
from tsds_pipeline.project import Project
from tsds_pipeline.stages.gradient_warmup import encoder_of
from tsds_pipeline.stages.pool import ReducedPool, StoredPool
from tsds_pipeline.stages.probabilities import Solved
from tsds_pipeline.stages.texts import texts_by_content
from tsds_pipeline.storage import Artifact, artifact_path, write_atomically

FOLDER = "leaks"
TEXT, PIECE, DISTANCE = "text", "piece", "distance"
QUERY, TEST = "query", "test"
_FOUND = {
    "content_id": pl.String,
    "why": pl.String,
    "of": pl.String,
    "record_id": pl.String,
    "distance": pl.Float64,
    "excerpt": pl.String,
}
SCHEMA = {"source": pl.String, "id": pl.String, **_FOUND, "dropped": pl.Boolean}
"""``why``: the whole TEXT, a PIECE of 13 words (``excerpt``), or the DISTANCE; ``of`` which record of QUERY or TEST."""


@dataclass(frozen=True)
class HeldBack:
    """Queries or test records: ``kind``, ``record_ids``, texts, and vectors (m, dim) where distance counts."""

    kind: str
    record_ids: Sequence[str]
    texts: HeldBackTexts
    vectors: np.ndarray | None = None

    @classmethod
    def of(cls, kind: str, records: pl.DataFrame, vectors: np.ndarray | None = None) -> "HeldBack":
        """Out of a table with ``record_id`` and ``text``."""
        return cls(kind, records["record_id"].to_list(), HeldBackTexts(records["text"]), vectors)


@dataclass(frozen=True)
class Guard:
    """What the examples of a task must not give away; plain L2 ``distance`` up to which a vector does, if any."""

    held_back: Sequence[HeldBack]
    distance: float | None = None

    def leaks(self, candidates: pl.DataFrame, vectors: Callable[[], np.ndarray]) -> pl.DataFrame:
        """Which of ``candidates`` (content_id, text) leak, a row each with the first reason: columns of _FOUND.

        ``vectors`` gives theirs, (n, dim), and is asked only where distance counts.
        """
        texts, ids = candidates["text"].to_list(), candidates["content_id"]
        found: dict[int, tuple] = {}
        for held in self.held_back:
            for number, match in held.texts.matches(texts).items():
                why, shown = (PIECE, match.piece) if match.piece else (TEXT, texts[number])
                reason = (why, held.kind, held.record_ids[match.held_back], None, excerpt_of(shown))
                found.setdefault(number, reason)
        if self.distance is not None and texts:
            rows = vectors()
            for held in self.held_back:
                if held.vectors is None or not len(held.vectors):
                    continue
                nearest, distances = nearest_rows(rows, held.vectors)
                for number in np.flatnonzero(distances <= self.distance):
                    record, shown = held.record_ids[nearest[number]], excerpt_of(texts[number])
                    reason = (DISTANCE, held.kind, record, float(distances[number]), shown)
                    found.setdefault(int(number), reason)
        listed = [(ids[number], *reason) for number, reason in sorted(found.items())]
        return pl.DataFrame(listed, schema=_FOUND, orient="row")


def guard_of(
    observed: Observed, task: str, queries: Artifact, query_vectors: Artifact, tests: pl.DataFrame | None
) -> Guard:
    """What the examples of ``task`` must not give away; test records are embedded only where distance counts."""
    project = observed.project.for_task(task)
    distance = project.settings.resolved_task(task).leak_distance
    held_back = [HeldBack.of(QUERY, queries.frame, query_vectors.vectors)]
    if tests is not None and not tests.is_empty():
        vectors = None
        if distance is not None:
            encoder = encoder_of(project, "candidate")
            vectors = embed(tests, encoder, project.storage / EMBEDDINGS, f"test set of {task}").vectors
        held_back.append(HeldBack.of(TEST, tests, vectors))
    return Guard(held_back, distance)


def held_back_records(observed: Observed, task: str) -> pl.DataFrame | None:
    """The task's test set, if it has one, with the vectors that are given and count; TsdsError if it is unreadable."""
    files, settings = observed.scan.tests.get(task), observed.project.for_task(task).settings
    if files is None:
        return None
    resolved = settings.resolved_task(task)
    return read_test_set(
        files.require(),
        template=resolved.text,
        max_chars=settings.corpus.max_chars,
        vector_field=None if resolved.leak_distance is None else settings.encoder.vector_field,
        names=files.names,
        chat_template=chat_template(observed.project),
    )


def texts_of_test_set(observed: Observed, task: str) -> list[str]:
    """The texts of the task's test set; none where it has none that can be read."""
    try:
        tests = held_back_records(observed, task)
    except TsdsError:
        return []
    return [] if tests is None else tests["text"].to_list()


def nearest_rows(rows: np.ndarray, to: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of ``to`` (m, dim) for each of ``rows`` (n, dim), and its plain L2 distance."""
    nearest, distance = np.empty(len(rows), np.int64), np.empty(len(rows))
    for start, stop in row_blocks(len(rows), len(to) * 16):
        block = all_distances(rows[start:stop], to)
        nearest[start:stop] = block.argmin(axis=1)
        distance[start:stop] = block.min(axis=1)
    return nearest, distance


def solve_without_leaks(
    solve: Callable[[StoredPool | ReducedPool], Solved],
    pool: StoredPool,
    guard: Guard,
    corpora: Mapping[str, pl.LazyFrame],
) -> tuple[Solved, StoredPool | ReducedPool, pl.DataFrame]:
    """The plan that gives no mass to what leaks; the pool without that, and a row for each text left out (_FOUND).

    Only candidates that get mass are looked at: those that leak are taken out of the pool and the plan is solved again,
    until none of them leaks.
    """
    seen, found = pl.Series("content_id", [], dtype=pl.String), []
    reduced: StoredPool | ReducedPool = pool
    while True:
        solved = solve(reduced)
        chosen = np.flatnonzero(solved.solution.probabilities > 0)
        ids = reduced.content_ids[chosen].rename("content_id")
        new = chosen[(~ids.is_in(seen.implode()) & ids.is_first_distinct()).to_numpy()]
        texts = texts_by_content(corpora, reduced.content_ids[new])
        leaks = guard.leaks(texts, lambda reduced=reduced, new=new: reduced.vectors(new))
        if leaks.is_empty():
            return solved, reduced, pl.concat(found) if found else leaks
        found.append(leaks)
        seen = pl.concat([seen, texts["content_id"]])
        reduced = ReducedPool(pool, pl.concat(found)["content_id"])


def without_leaks(observed: Observed, task: str, pool: StoredPool) -> StoredPool | ReducedPool:
    """``pool`` without what the plan of ``task`` left out, where its settings say so."""
    if observed.project.settings.resolved_task(task).leaks != "drop":
        return pool
    dropped = read_leaks(observed.project, task).filter("dropped")
    return pool if dropped.is_empty() else ReducedPool(pool, dropped["content_id"])


def leak_table(leaks: pl.DataFrame, places: pl.DataFrame, dropped: bool) -> pl.DataFrame:
    """``leaks`` (_FOUND) with the ``source`` and ``id`` that ``places`` gives each content id; columns of SCHEMA."""
    first = places.select("content_id", "source", "id").sort("content_id", "source")
    named = leaks.join(first.unique("content_id", keep="first"), on="content_id", how="left")
    table = named.with_columns(dropped=pl.lit(dropped)).select(*SCHEMA)
    return table.sort("source", "id", "content_id")


def leaks_path(project: Project, task: str) -> Path:
    """Where the table of the leaks of ``task`` is."""
    return artifact_path(project.storage, FOLDER, task)


def write_leaks(project: Project, task: str, table: pl.DataFrame) -> None:
    """Store the leaks of ``task``."""
    write_atomically(leaks_path(project, task), table.write_parquet)


def read_leaks(project: Project, task: str) -> pl.DataFrame:
    """The stored leaks of ``task``; none where nobody looked yet."""
    path = leaks_path(project, task)
    try:
        return pl.read_parquet(path, glob=False) if path.is_file() else pl.DataFrame(schema=SCHEMA)
    except pl.exceptions.PolarsError as error:
        made_with = artifact_path(project.storage, "selection_probabilities", task)
        raise TsdsError(
            f"{path}: is damaged ({str(error).splitlines()[0]}): delete it and {made_with}, and run `tsds refresh`"
        ) from None
