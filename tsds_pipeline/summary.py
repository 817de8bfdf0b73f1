"""What one task's selection amounts to, in figures and examples, read from what the pipeline stored.

How it is laid out is in ``cli.pages``; why each candidate was selected, query by query, is in ``explain``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import describe, stored
from tsds_pipeline.project import Project
from tsds_pipeline.report.pages import page_path, version_of
from tsds_pipeline.results import load_result
from tsds_pipeline.stages.densities import near_duplicates
from tsds_pipeline.storage import Artifact

EXAMPLES = 5
# Among the most crowded candidates the example of a group is looked for.
_CROWDED = 2000


@dataclass(frozen=True)
class Crowd:
    """What the density did about near-duplicates among the candidates with mass."""

    candidates: int
    """How many have near-duplicates somewhere in the pool."""
    weight: float
    """As how many distinct candidates they count together: the sum of count / density."""
    shared: bool
    """Whether the algorithm looked at densities at all."""
    group: pl.DataFrame
    """The largest group of near-duplicates of one among them, drawn ones first: source, text, drawn (how often)."""
    group_weight: float


@dataclass(frozen=True)
class TaskSummary:
    """One task's selection."""

    task: str
    queries: int
    query_texts: tuple[str, ...]
    notes: Mapping[str, Any]
    """Figures of the solution, as ``stages.probabilities.figures`` names them."""
    size: int
    epochs: int
    pool: Mapping[str, int]
    """Candidates by source."""
    sample: pl.DataFrame
    """As in storage/sampled_subset."""
    examples: pl.DataFrame
    """A few rows of the sample, from the nearest to the farthest."""
    crowd: Crowd | None
    """None where no candidate with mass has near-duplicates."""
    outdated: bool
    """Whether the sample was drawn from an earlier solution than what the figures are of: the last draw failed."""
    files: tuple[Path, ...]
    """Where the selection is, for programs."""

    def drawn_by_source(self) -> dict[str, int]:
        """Drawn examples by source, most first."""
        return dict(
            self.sample["source"]
            .value_counts(sort=True)
            .sort("count", "source", descending=[True, False])
            .iter_rows()
        )


@dataclass(frozen=True)
class PoolSummary:
    """What all tasks draw from."""

    candidates: Mapping[str, int]
    """By source."""
    copies: int
    """Records that are exact copies of a candidate."""
    near_duplicates: int
    """Candidates that have near-duplicates."""
    total_weight: float
    """As how many distinct candidates the pool counts: the sum of count / density."""
    density: float
    """The largest one, with the source and text of its candidate."""
    crowded_source: str
    crowded_text: str


def summarize_pool(project: Project) -> PoolSummary:
    """The stored pool of the project's encoder; TsdsError where there is none."""
    table = _beside(project, project.of_encoder("pool_summary")).frame
    candidates = dict(table.select("source", "candidates").iter_rows())
    densest = [
        _beside(project, project.of_encoder("kde_densities", source))
        .frame.with_columns(source=pl.lit(source))
        .top_k(1, by="density")
        for source in candidates
    ]
    top = pl.concat(densest).top_k(1, by="density")
    return PoolSummary(
        candidates=candidates,
        copies=table["copies"].sum() - table["candidates"].sum(),
        near_duplicates=table["near_duplicates"].sum(),
        total_weight=table["total_weight"].sum(),
        density=top["density"].item(),
        crowded_source=top["source"].item(),
        crowded_text=texts_of(project, top).item() or "",
    )


def summarize(project: Project, task: str) -> TaskSummary:
    """The stored selection of ``task``; TsdsError where there is none."""
    project = project.for_task(task)
    sample, solved = (
        load_result(project, name, task) for name in ("sampled_subset", "selection_probabilities")
    )
    queries = _beside(project, f"query_examples|{task}")
    pool = _beside(project, project.of_encoder("pool_summary"))
    frame = sample.frame
    return TaskSummary(
        task=task,
        queries=len(queries.frame),
        query_texts=tuple(queries.frame["text"].head(EXAMPLES)),
        notes=solved.header.notes,
        size=sample.header.notes["size"],
        epochs=sample.header.notes["epochs"],
        pool=dict(pool.frame.select("source", "candidates").iter_rows()),
        sample=frame,
        examples=_spread(frame),
        crowd=_crowd(project, solved, frame),
        outdated=sample.header.inputs[f"selection_probabilities|{task}"] != solved.version,
        files=(
            project.exports / task,
            *_page(project, task, sample),
            sample.path,
            solved.path,
        ),
    )


def _page(project: Project, task: str, sample: Artifact) -> Iterator[Path]:
    """The report of ``sample``, if there is one: not that of an earlier sample."""
    report, page = stored(project.storage, f"selection_report|{task}"), page_path(project, task)
    of_sample = report is not None and report.header.inputs[f"sampled_subset|{task}"] == sample.version
    if of_sample and version_of(page) == report.version:
        yield page


def _beside(project: Project, node: str) -> Artifact:
    artifact = stored(project.storage, node)
    if artifact is None:
        raise TsdsError(f"{project.storage}: {describe(node)} is not there any more: run `tsds refresh`")
    return artifact


def _spread(sample: pl.DataFrame) -> pl.DataFrame:
    """The nearest, the farthest and some between, evenly by rank."""
    distinct = sample.unique("content_id").sort("distance", "content_id")
    rows = np.linspace(0, len(distinct) - 1, min(EXAMPLES, len(distinct))).round().astype(int)
    return distinct[rows.tolist()]


def _crowd(project: Project, solved: Artifact, sample: pl.DataFrame) -> Crowd | None:
    near = crowded(solved)
    if near.is_empty():
        return None
    (group,) = near_duplicate_groups(project, solved, sample, 1)
    return Crowd(
        candidates=len(near),
        weight=near["weight"].sum(),
        shared=solved.header.notes["algorithm"] == "knn_kde",
        group=group.select("source", "text", "drawn"),
        group_weight=group["weight"].sum(),
    )


def near_duplicate_groups(
    project: Project, solved: Artifact, sample: pl.DataFrame, limit: int
) -> list[pl.DataFrame]:
    """The ``limit`` largest groups of candidates with mass that are near-duplicates of one among them.

    Rows of a group, drawn ones first: source, content_id, text, density, weight (count / density), probability, drawn
    (how often). No candidate is in two groups; only the 2,000 most crowded are looked at.
    """
    near = crowded(solved).head(_CROWDED)
    drawn = sample["content_id"].value_counts(name="drawn")
    rows = _largest_groups(StoredVectors(project).of(near), project.settings.pool.kernel_radius, limit)
    table = near.join(drawn, on="content_id", how="left", maintain_order="left")
    table = table.with_columns(pl.col("drawn").fill_null(0))
    groups = [table[members].sort("drawn", "density", descending=True) for members in rows]
    if not groups:
        return []
    texts = texts_of(project, pl.concat(groups))
    starts = np.cumsum([0, *(len(group) for group in groups)])
    return [
        group.with_columns(text=texts[int(start) : int(start) + len(group)])
        for group, start in zip(groups, starts, strict=False)
    ]


def crowded(solved: Artifact) -> pl.DataFrame:
    """The examples with mass that have near-duplicates, most crowded first.

    The same text in two sources is one example, not two near-duplicates.
    """
    examples = solved.frame.group_by("content_id", maintain_order=True).agg(
        pl.col("source", "density").first(), pl.col("count", "probability").sum()
    )
    weight = (pl.col("count") / pl.col("density")).alias("weight")
    order = ("density", "source", "content_id")
    return near_duplicates(examples).with_columns(weight).sort(order, descending=[True, False, False])


def _largest_groups(vectors: np.ndarray, radius: float, limit: int) -> list[np.ndarray]:
    """Row numbers of ``vectors`` within ``radius`` of the one that has the most such neighbours, then of the rest."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    near = squares[:, None] + squares - 2.0 * vectors @ vectors.T < radius**2
    groups = []
    while len(groups) < limit and near.any():
        members = np.flatnonzero(near[near.sum(axis=1).argmax()])
        groups.append(members)
        near[members], near[:, members] = False, False
    return groups


class StoredVectors:
    """Vectors of candidates, read from what the project's encoder made."""

    def __init__(self, project: Project):
        self._project = project
        self._read: dict[str, tuple[pl.DataFrame, np.ndarray] | None] = {}

    def of(self, candidates: pl.DataFrame) -> np.ndarray:
        """A row for each of ``candidates`` (source, content_id), float64; NaN for one that is not there any more."""
        found: np.ndarray | None = None
        for source in candidates["source"].unique().sort():
            mine = np.flatnonzero((candidates["source"] == source).to_numpy())
            read = self._of_source(source)
            if read is None:
                continue
            numbered, vectors = read
            rows = (
                candidates[mine]
                .select("content_id")
                .join(numbered, on="content_id", how="left", maintain_order="left")["row"]
            )
            if found is None:
                found = np.full((len(candidates), vectors.shape[1]), np.nan)
            there = rows.is_not_null().to_numpy()
            found[mine[there]] = vectors[rows.drop_nulls().to_numpy()]
        return np.full((len(candidates), 1), np.nan) if found is None else found

    def _of_source(self, source: str) -> tuple[pl.DataFrame, np.ndarray] | None:
        """Its content_id with their row, and the vectors, opened when first asked for; None where there are none."""
        if source not in self._read:
            artifact = stored(self._project.storage, self._project.of_encoder("candidate_embeddings", source))
            self._read[source] = (
                (artifact.scan().select("content_id").with_row_index("row").collect(), artifact.vectors)
                if artifact is not None and artifact.rows
                else None
            )
        return self._read[source]


def texts_of(project: Project, candidates: pl.DataFrame) -> pl.Series:
    """The texts of ``candidates`` (source, content_id); null for one that is not there any more."""
    wanted = candidates.select("source", "content_id")
    corpora = [
        artifact.scan().select("content_id", "text").with_columns(source=pl.lit(source))
        for source in wanted["source"].unique().sort()
        if (artifact := stored(project.storage, f"candidate_corpus|{source}")) is not None
    ]
    if not corpora:
        return pl.Series("text", [None] * len(wanted), dtype=pl.String)
    texts = pl.concat(corpora).join(wanted.lazy().unique(), on=["source", "content_id"], how="semi").collect()
    return wanted.join(texts, on=["source", "content_id"], how="left", maintain_order="left")["text"]
