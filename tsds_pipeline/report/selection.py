"""The report of one task's selection: what it amounts to, in pictures, tables and texts, as a page.

What is shown is computed in ``stages``, ``summary`` and ``explain``.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import spread_sample
from tsds_pipeline.explain import Explainer, Explanation
from tsds_pipeline.node_names import asset_of
from tsds_pipeline.project import Project
from tsds_pipeline.provenance import lineage
from tsds_pipeline.report import pictures
from tsds_pipeline.report.pages import page_path, svg, write_page
from tsds_pipeline.stages.comparison import METRICS, OWN, Verdicts, mean_metrics, verdict_table
from tsds_pipeline.stages.history import Drift
from tsds_pipeline.stages.pool_map import PoolMap
from tsds_pipeline.storage import Artifact
from tsds_pipeline.summary import (
    StoredVectors,
    TaskSummary,
    crowded,
    near_duplicate_groups,
    summarize,
    texts_of,
)
from tsds_pipeline.wording import GONE, drawn_mark, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    OWN: "this selection",
    "random": "random",
    "top_k": "top-k",
    "round_robin": "round-robin",
    "round_robin_deduplicated": "round-robin, distinct",
    "dsir": "DSIR",
    "knn_uniform": "knn_uniform",
    "knn_tv": "knn_tv",
    "knn_kde": "knn_kde",
}
"""Methods by name, for people."""
_QUERIES, _CANDIDATES, _GROUPS, _GROUP_ROWS, _MOVED, _LEAKS = 30, 6, 6, 5, 5, 10
_MOST_SOURCES = 25
_POINTS, _QUERIES_ON_MAP, _CUT = 2000, 1000, 600
# Explaining a query takes distances to all candidates that it gives mass to: fewer queries where these are many.
_DISTANCES = 5_000_000
VERSIONS_SHOWN = 20


@dataclass(frozen=True)
class Material:
    """What a report is made from."""

    project: Project
    task: str
    version: str
    """Of the report."""
    sample: Artifact
    solved: Artifact
    queries: Artifact
    """The task's query embeddings."""
    pool_map: PoolMap
    verdicts: Verdicts
    own: Mapping[str, float]
    """Metrics of the sample itself."""
    leaks: pl.DataFrame
    """What gives away a query or a test record, drawn or left out, as ``stages.leaks`` lists it."""
    drift: Drift | None
    versions: pl.DataFrame
    """The history of the sample, this version included."""


def write_report(material: Material) -> dict[str, str]:
    """Write the page; returns its pictures as data URIs (PNG), by name."""
    report = _Report(material)
    drawn = report.pictures()
    texts = {"map": report.texts_on_map()}
    values = report.values()
    inline = {name: svg(pictures.as_svg(made, name, texts.get(name))) for name, made in drawn.items()}
    path = page_path(material.project, material.task)
    write_page(path, "selection.html", material.version, pictures={"drift": None, **inline}, **values)
    return {name: pictures.as_png(made) for name, made in drawn.items()}


class _Report:
    def __init__(self, material: Material):
        self._of, self._project, self._task = material, material.project, material.task
        self._summary: TaskSummary = summarize(material.project, material.task)
        self._explainer = Explainer(material.project, material.task)
        self._table = material.solved.frame
        self._drawn = material.sample.frame.unique("content_id", maintain_order=True)

    def pictures(self) -> dict[str, "Figure"]:
        of, table = self._of, self._table
        found = {"map": self._map(), "by_source": self._by_source(), "by_query": self._by_query()}
        if of.verdicts.of:
            methods = list(dict.fromkeys(one.method for one in of.verdicts.of))
            colors = {OWN: pictures.CHOSEN, "top_k": pictures.NEAREST, "random": pictures.OTHER}
            ends = [
                {
                    TITLES[method]: np.concatenate(
                        [getattr(v, end) for v in of.verdicts.of if v.method == method]
                    )
                    for method in methods
                }
                for end in ("nearest_example", "nearest_query")
            ]
            found["held_back"] = pictures.held_back(*ends, {TITLES[m]: colors[m] for m in methods})
        found["densities"] = pictures.densities(
            table["density"].to_numpy(), self._drawn["density"].to_numpy()
        )
        if of.drift is not None:
            last = of.versions.filter(pl.col("kept").is_not_null())
            counts = [last[name].to_numpy() for name in ("kept", "added", "dropped")]
            found["drift"] = pictures.drift(*counts, [f"{number}" for number in last["number"]])
        return found

    def texts_on_map(self) -> dict[str, list[str]]:
        """What the dots say that can be pointed at."""
        chosen = self._drawn_on_map()
        return {
            "drawn": [shortened(text, 300) for text in chosen["text"]],
            "queries": [
                shortened(self._explainer.query_texts[number], 300) for number in self._queries_on_map()
            ],
        }

    def values(self) -> dict[str, Any]:
        of, summary = self._of, self._summary
        notes = summary.notes
        each = f" in each of {summary.epochs} epochs" if summary.epochs > 1 else ""
        asked = f"{summary.queries:,} {'query' if summary.queries == 1 else 'queries'}"
        most = int(np.clip(_DISTANCES // len(self._table), 3, _QUERIES))
        numbers = spread_sample(summary.queries, most).tolist()
        explained = [_explained(one) for one in self._explainer.explain(numbers, _CANDIDATES)]
        return {
            "title": f"{self._task}: what was selected",
            "task": self._task,
            "headline": f"{summary.size:,} of {notes['candidates']:,} candidates drawn{each} for {asked}. "
            f"{notes['algorithm']}, alpha {notes['alpha']:.3g}: {notes['examples_with_mass']:,} examples have mass, as "
            f"diverse as {notes['effective_size']:,.0f} equally probable ones.",
            "problems": [*notes["warnings"], *of.sample.header.notes.get("failed_checks", {}).values()],
            **compared(verdict_table(of.verdicts.of), of.verdicts.left_out),
            "own": [(METRICS[name].title, _number(value)) for name, value in of.own.items()],
            "leaks_said": self._leaks_said(),
            "leaking": [
                (row["source"], _leak(row), shortened(row["excerpt"], _CUT))
                for row in of.leaks.head(_LEAKS).to_dicts()
            ],
            "crowd": self._crowd(),
            "groups": self._groups(),
            "explained": explained,
            "queries": summary.queries,
            "queries_left": summary.queries > len(explained),
            "drift": self._drift(),
            "moved": self._moved(),
            "settings": self._settings(),
        }

    def _map(self) -> "Figure":
        of = self._of
        vectors = StoredVectors(self._project)
        rest = self._table.unique("content_id", maintain_order=True).join(
            self._drawn, on="content_id", how="anti"
        )
        rest = rest.head(_POINTS)
        return pictures.pool_map(
            of.pool_map.positions,
            of.pool_map.place(vectors.of(rest)) if len(rest) else np.zeros((0, 2)),
            of.pool_map.place(vectors.of(self._drawn_on_map())),
            of.pool_map.place(of.queries.vectors[self._queries_on_map()]),
        )

    def _queries_on_map(self) -> np.ndarray:
        return spread_sample(self._summary.queries, _QUERIES_ON_MAP)

    def _drawn_on_map(self) -> pl.DataFrame:
        """What is pointed at has a mark each in the page: so many are enough."""
        return self._drawn.head(_POINTS)

    def _by_source(self) -> "Figure":
        summary = self._summary
        mass = dict(summary.notes["mass_by_source"])
        drawn = summary.drawn_by_source()
        names = sorted(summary.pool, key=lambda name: (-mass.get(name, 0.0), -summary.pool[name], name))
        shares = [
            [values.get(name, 0) / max(1e-300, sum(values.values())) for name in names]
            for values in (mass, drawn, summary.pool)
        ]
        if len(names) > _MOST_SOURCES:
            rest = f"{len(names) - _MOST_SOURCES} more"
            names = [*names[:_MOST_SOURCES], rest]
            shares = [[*row[:_MOST_SOURCES], sum(row[_MOST_SOURCES:])] for row in shares]
        return pictures.shares_by_source(names, *(np.array(row) for row in shares))

    def _by_query(self) -> "Figure":
        queries = self._explainer.record_ids
        mass = self._table.group_by("nearest_query").agg(pl.col("probability").sum())
        by_id = dict(mass.iter_rows())
        # Queries that share an id share what is nearest to it.
        times = Counter(queries)
        shares = np.array([by_id.get(name, 0.0) / times[name] for name in queries])
        return pictures.shares_by_query(shares, self._explainer.neighborhood_sizes)

    def _crowd(self) -> str:
        crowd, with_mass = self._summary.crowd, self._summary.notes["examples_with_mass"]
        if crowd is None:
            return f"None of the {with_mass:,} examples with mass has near-duplicates in the pool."
        weigh = (
            f"together they weigh as {crowd.weight:,.1f} distinct ones, so that a group shares the mass of one"
            if crowd.shared
            else f"{self._summary.notes['algorithm']} weighs each of them in full"
        )
        drawn = len(self._drawn.join(crowded(self._of.solved), on="content_id", how="semi"))
        return (
            f"{crowd.candidates:,} of the {with_mass:,} examples with mass have near-duplicates in the pool (within "
            f"{self._project.settings.pool.kernel_radius:g}); {weigh}. {drawn:,} of the {len(self._drawn):,} drawn "
            "examples have some. The largest groups:"
        )

    def _groups(self) -> list[dict[str, Any]]:
        groups = near_duplicate_groups(self._project, self._of.solved, self._of.sample.frame, _GROUPS)
        return [_group(group) for group in groups if len(group) > 1]

    def _drift(self) -> str:
        drift, versions = self._of.drift, self._of.versions
        if drift is None:
            return "This is the first version of this sample on record."
        number = versions["number"].max()
        return (
            f"This is version {number:,}. Of the version before, {len(drift.kept):,} examples were kept and "
            f"{len(drift.dropped):,} dropped; {len(drift.added):,} are new."
        )

    def _leaks_said(self) -> str:
        leaks = self._of.leaks
        number, listed = f"{len(leaks):,}", f", the first {_LEAKS} are" if len(leaks) > _LEAKS else ""
        what = f"{number} drawn examples give away a query or a test record{listed}"
        if leaks["dropped"].any():
            what = f"{number} candidates were left out, as they give away a query or a test record{listed}"
        return f"{what} (all are in storage/leaks/{self._task}.parquet):"

    def _moved(self) -> list[tuple[str, list[tuple[str, str]]]]:
        drift = self._of.drift
        if drift is None:
            return []
        return [
            (f"Added, {min(_MOVED, len(ids))} of {len(ids):,}", self._texts(ids[:_MOVED]))
            if title == "added"
            else (f"Dropped, {min(_MOVED, len(ids))} of {len(ids):,}", self._texts(ids[:_MOVED]))
            for title, ids in (("added", drift.added), ("dropped", drift.dropped))
        ]

    def _texts(self, content_ids: Sequence[str]) -> list[tuple[str, str]]:
        """Source and text of each; of what is in no source any more only that."""
        sources = list(self._summary.pool)
        wanted = pl.DataFrame({"content_id": list(content_ids)}, schema={"content_id": pl.String}).join(
            pl.DataFrame({"source": sources}), how="cross"
        )
        table = wanted.with_columns(text=texts_of(self._project, wanted)).drop_nulls("text")
        found = {row["content_id"]: (row["source"], row["text"]) for row in table.reverse().to_dicts()}
        return [(s, shortened(t, _CUT)) for s, t in (found.get(one, ("", GONE)) for one in content_ids)]

    def _settings(self) -> list[tuple[str, str]]:
        sample, solved = self._of.sample.header, self._of.solved.header
        _, settings = lineage(self._project.storage, sample)
        said: dict[str, Any] = {}
        for name, text in settings.items():
            values = json.loads(text)
            if isinstance(values, dict):
                part = asset_of(name).removesuffix("_settings").replace("_", " ")
                said |= {f"{part}: {key}": json.dumps(value).strip('"') for key, value in values.items()}
        counted = {
            "alpha as used": f"{solved.notes['alpha']:.6g}",
            "objective": f"{solved.notes['objective']:.6g}",
            "transport cost": f"{solved.notes['transport_cost']:.6g}",
            "diversity penalty": f"{solved.notes['diversity_penalty']:.6g}",
            "share of the draws that is certain": f"{sample.notes['certain_share']:.1%}",
            "data version of the sample": sample.version,
            "data version of the probabilities": solved.version,
        }
        return list({**said, **counted}.items())


def _leak(row: Mapping[str, Any]) -> str:
    """Why what ``row`` of the table of leaks names is one."""
    of = f"{row['of']} {row['record_id']}"
    if row["why"] == "distance":
        return f"at distance {row['distance']:.3g} of {of}"
    return f"the text of {of}" if row["why"] == "text" else f"13 words in a row of {of}"


def compared(table: pl.DataFrame, left_out: Mapping[str, str]) -> dict[str, Any]:
    """What a page says of a verdict table, and of the methods that are not in it."""
    least, most = table["size"].min(), table["size"].max()
    return {
        "parts": table["fold"].n_unique(),
        "size": "" if least is None else f"{most:,}" if least == most else f"{least:,} to {most:,}",
        "methods": [TITLES[method] for method in dict.fromkeys(table["method"])],
        "quality": quality_rows(table),
        "left_out": [(TITLES[method], why) for method, why in left_out.items()],
    }


def quality_rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    """A row for each metric of a verdict table: title, meaning, better, and a cell for each method.

    A cell has its mean, its spread, as texts, and whether it is the best of its row.
    """
    means = mean_metrics(table).to_dicts()
    rows = []
    for name, metric in METRICS.items():
        values = [one[name] for one in means]
        there = [value for value in values if value is not None]
        if not there:
            continue
        spread = f"{name}_spread"
        best = min(there) if metric.better == "lower" else max(there)
        several = len(set(there)) > 1
        cells = [
            {
                "mean": "" if one[name] is None else _number(one[name]),
                "spread": f"± {one[spread]:.2g}" if one[spread] else "",
                "best": several and one[name] == best,
            }
            for one in means
        ]
        rows.append(
            {
                "name": name,
                "title": metric.title,
                "meaning": metric.meaning,
                "better": metric.better,
                "cells": cells,
            }
        )
    return rows


def _number(value: float) -> str:
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _explained(one: Explanation) -> dict[str, Any]:
    return {
        "text": shortened(one.text, _CUT),
        "more": one.with_mass - len(one.candidates),
        "rows": [
            {
                "drawn": drawn_mark(row["drawn"]),
                "distance": f"{row['distance']:.3f}",
                "density": f"{row['density']:.2f}",
                "share": f"{row['share']:.2%}",
                "probability": f"{row['probability']:.3%}",
                "source": row["source"],
                "text": shortened(row["text"] or GONE, _CUT),
            }
            for row in one.candidates.to_dicts()
        ],
    }


def _group(group: pl.DataFrame) -> dict[str, Any]:
    mass, drawn = group["probability"].sum(), int((group["drawn"] > 0).sum())
    return {
        "title": f"{len(group):,} texts with {mass:.2%} of the probability, {group['weight'].sum():.1f} by weight; "
        f"{drawn:,} drawn",
        "more": f"{len(group) - _GROUP_ROWS:,}" if len(group) > _GROUP_ROWS else "",
        "rows": [
            {
                "drawn": drawn_mark(row["drawn"]),
                "density": f"{row['density']:.2f}",
                "probability": f"{row['probability']:.3%}",
                "source": row["source"],
                "text": shortened(row["text"] or GONE, _CUT),
            }
            for row in group.head(_GROUP_ROWS).to_dicts()
        ],
    }
