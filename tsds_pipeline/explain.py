"""Why candidates were selected: one query at a time, the candidates that it gives mass to.

Everything is read from what the pipeline stored; the mathematics is in ``core.plan``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_result
from tsds_pipeline.settings_errors import nearest
from tsds_pipeline.summary import StoredVectors, texts_of

# Candidates whose vectors are held at a time.
_AT_ONCE = 50_000


@dataclass(frozen=True)
class Explanation:
    """What one query gave its mass to."""

    number: int
    """From 0."""
    record_id: str
    text: str
    with_mass: int
    """How many candidates the query gives mass to."""
    candidates: pl.DataFrame
    """The nearest of them: source, id, text, distance (plain L2), density, count, share (of the query's mass),
    probability, drawn (in how many draws)."""


class Explainer:
    """The stored selection of ``task``; TsdsError where there is none."""

    def __init__(self, project: Project, task: str):
        self._project, self._task = project, task
        solved = load_result(project, "selection_probabilities", task)
        examples = load_result(project, "query_examples", task)
        embedded = load_result(project, "query_embeddings", task)
        for made, node, read in (
            (solved, f"query_embeddings|{task}", embedded),
            (embedded, f"query_examples|{task}", examples),
        ):
            if made.header.inputs.get(node) != read.version:
                raise TsdsError(f"task {task}: its queries changed after it was solved: run `tsds refresh`")
        drawn = load_result(project, "sampled_subset", task).frame["content_id"].value_counts(name="drawn")
        table = solved.frame.join(drawn, on="content_id", how="left")
        self._table, self._notes = table.with_columns(pl.col("drawn").fill_null(0)), solved.header.notes
        self._queries, self._vectors = examples.frame, embedded.vectors
        self._candidate_vectors = StoredVectors(project.for_task(task))

    @property
    def record_ids(self) -> list[str]:
        """Of the queries, in order."""
        return self._queries["record_id"].to_list()

    @property
    def query_texts(self) -> list[str]:
        """In order."""
        return self._queries["text"].to_list()

    @property
    def neighborhood_sizes(self) -> np.ndarray:
        """How many candidates each query gives mass to, (M,)."""
        entries = self._table.select(pl.col("plan").explode()).drop_nulls().unnest("plan")
        if not self._notes["background"]:
            return np.bincount(entries["query"].to_numpy(), minlength=len(self._queries))
        # The background gives to all, and an entry that is negative takes it away.
        none = entries.filter(pl.col("mass") < 0)["query"].to_numpy()
        return len(self._table) - np.bincount(none, minlength=len(self._queries))

    def numbers(self, wanted: Iterable[str]) -> list[int]:
        """The queries, from 0, that ``wanted`` names: by record id, else by number from 1, or "all"."""
        return [number for name in wanted for number in self._numbers(name, self.record_ids)]

    def _numbers(self, name: str, ids: list[str]) -> list[int]:
        if name in ids:
            return [number for number, record_id in enumerate(ids) if record_id == name]
        if name == "all":
            return list(range(len(ids)))
        if name.isascii() and name.isdigit() and 1 <= int(name) <= len(ids):
            return [int(name) - 1]
        raise TsdsError(
            f'task {self._task} has no query "{name}"{nearest(name, ids)}: name a number from 1 to {len(ids)}, or '
            f'a record id such as "{ids[0]}"'
        )

    def explain(self, numbers: Sequence[int], limit: int) -> list[Explanation]:
        """The ``limit`` nearest of the candidates that each of the queries ``numbers`` (from 0) gives mass to."""
        found = [self._nearest(number, limit) for number in numbers]
        shown = pl.concat([candidates.select("source", "content_id") for _, candidates in found])
        texts = shown.unique(maintain_order=True)
        texts = texts.with_columns(text=texts_of(self._project, texts))
        explanations = []
        for number, (with_mass, candidates) in zip(numbers, found, strict=True):
            row = self._queries.row(number, named=True)
            candidates = candidates.join(
                texts, on=["source", "content_id"], how="left", maintain_order="left"
            )
            columns = (
                "source",
                "id",
                "text",
                "distance",
                "density",
                "count",
                "share",
                "probability",
                "drawn",
            )
            explanations.append(
                Explanation(number, row["record_id"], row["text"], with_mass, candidates.select(columns))
            )
        return explanations

    def _nearest(self, number: int, limit: int) -> tuple[int, pl.DataFrame]:
        """How many candidates query ``number`` gives mass to, and the ``limit`` nearest of them."""
        table = self._with_shares(number).filter(pl.col("share") > 1e-12)
        query = self._vectors[number].astype(np.float64)
        distance = [
            np.linalg.norm(self._candidate_vectors.of(piece) - query, axis=1)
            for piece in table.select("source", "content_id").iter_slices(_AT_ONCE)
        ]
        table = table.with_columns(distance=pl.Series(np.concatenate([*distance, []]), dtype=pl.Float64))
        return len(table), table.sort("distance", "source", "content_id").head(limit)

    def _with_shares(self, number: int) -> pl.DataFrame:
        """The candidates with what each gets of this query's mass: M gamma_ij."""
        notes = self._notes
        mass = pl.col("plan").list.eval(
            pl.element().struct.field("mass").filter(pl.element().struct.field("query") == number)
        )
        share = mass.list.sum().fill_null(0.0) * notes["queries"]
        if notes["background"]:
            weight = pl.col("count") / (pl.col("density") if notes["algorithm"] == "knn_kde" else 1.0)
            share += notes["background"] * weight / notes["total_weight"]
        return self._table.with_columns(share=share).drop("plan")
