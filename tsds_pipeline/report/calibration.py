"""The page of a calibration: its tables and pictures. What they show is computed in ``calibration``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tsds_pipeline.calibration.advice import (
    TaskFindings,
    alpha_in_words,
    mark,
    radius_in_words,
    scale_in_words,
    shown_alpha,
)
from tsds_pipeline.calibration.alpha import Sweep
from tsds_pipeline.calibration.findings import Findings
from tsds_pipeline.calibration.radius import RadiusFindings
from tsds_pipeline.calibration.texts import LENGTHS
from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.core.calibration import CAUGHT, CAUGHT_AT, MERGED, caught_within, share_below
from tsds_pipeline.project import Project
from tsds_pipeline.report import pictures
from tsds_pipeline.report.pages import svg, write_page
from tsds_pipeline.wording import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LENGTH_COLORS = ("#9ecbea", pictures.CHOSEN, "#2a9d8f")
_LONGEST = 400


def write_calibration(project: Project, findings: Findings, path: Path) -> None:
    """Write the page to ``path``."""
    radius = findings.radius
    tasks = [_task(number, one) for number, one in enumerate(findings.tasks)]
    advice = [f"[{one.table}]\n{one.key} = {one.value:g}    # {one.why}" for one in findings.advices]
    write_page(
        path,
        "calibration.html",
        content_hash([radius.in_use, *(row.figures.radius for row in radius.rows)], advice),
        title="Calibration",
        advice=advice,
        radius=radius,
        radius_words=radius_in_words(radius),
        lengths_said=length_names(),
        lengths=list(LENGTHS),
        rule={"caught_at": CAUGHT_AT, "caught": f"{CAUGHT:.0%}", "merged": f"{MERGED:.0%}"},
        rows=radius_rows(radius),
        examples=[
            {
                name: shortened(value, _LONGEST) if isinstance(value, str) else f"{value:.3g}"
                for name, value in row.items()
            }
            for row in radius.examples.to_dicts()
        ],
        radius_picture=svg(pictures.as_svg(draw_radius(radius), "radius")),
        tasks=tasks,
        scale_words=scale_in_words(findings.tasks, project.settings),
        scales=scale_rows(findings.tasks),
    )


def length_names() -> list[str]:
    """LENGTHS in words: "short (to 15 words)"."""
    bounds = list(LENGTHS.values())
    return [
        f"{name} (to {most} words)" if most is not None else f"{name} (over {bounds[-2]})"
        for name, most in LENGTHS.items()
    ]


def radius_rows(found: RadiusFindings) -> list[dict[str, Any]]:
    """The radii as texts: radius, note, by length, all, weight, merged, touched."""
    rows = []
    for row in found.rows:
        figures = row.figures
        notes = [word for word, holds in (("in use", row.in_use), ("proposed", row.proposed)) if holds]
        rows.append(
            {
                "radius": f"{figures.radius:g}",
                "note": ", ".join(notes),
                "lengths": [_percent(share) for share in row.caught_by_length],
                "all": _percent(figures.caught),
                "weight": "" if np.isnan(figures.mean_weight) else f"{figures.mean_weight:.2f}",
                "merged": _percent(figures.merged, 1),
                "touched": _percent(figures.touched, 1),
            }
        )
    return rows


def alpha_rows(sweep: Sweep) -> list[dict[str, str]]:
    """The alphas as texts: alpha, note, neighbors, effective, with_mass, certain, energy, nearest."""
    rows = [
        {
            "alpha": shown_alpha(row.alpha),
            "note": mark(row, sweep),
            "neighbors": f"{row.neighbors:,.0f}",
            "effective": f"{row.effective_size:,.0f}",
            "with_mass": f"{row.with_mass:,}",
            "certain": "" if row.certain is None else f"{row.certain:.0%}",
            "energy": f"{row.energy.mean():.4g}" if len(row.energy) else "",
            "nearest": f"{row.nearest.mean():.4g}" if len(row.nearest) else "",
        }
        for row in sweep.rows
    ]
    if sweep.folds > 1:
        empty = dict.fromkeys(rows[0], "")
        figures = {"energy": f"{sweep.random_energy:.4g}", "nearest": f"{sweep.random_nearest:.4g}"}
        rows.append({**empty, "alpha": "random", **figures})
    return rows


def scale_rows(tasks: tuple[TaskFindings, ...]) -> list[dict[str, str]]:
    """The distance scale task by task, as texts: task, scale, fitting, low, high, fits."""
    return [
        {
            "task": task.sweep.task,
            "scale": f"{task.scale.scale:g}",
            "fitting": "" if task.scale.proposed is None else f"{task.scale.proposed:g}",
            "low": shown_alpha(task.scale.useful_alphas[0]),
            "high": shown_alpha(task.scale.useful_alphas[1]),
            "fits": "yes" if task.scale.fits else "no",
        }
        for task in tasks
    ]


@pictures.styled
def draw_radius(found: RadiusFindings) -> "Figure":
    """Distances of pairs and of unrelated texts, and what each radius does about them."""
    made, (left, right) = pictures.grid(2, 2, 3.3)
    parts = [
        (name, found.pairs_of_length(group), color)
        for group, (name, color) in enumerate(zip(LENGTHS, _LENGTH_COLORS, strict=True))
    ]
    what = "edits" if found.given is None else "given pairs"
    for name, distances, color in parts:
        if len(distances):
            left.ecdf(distances, color=color, linewidth=1.8, label=f"{what}, {name} texts")
    if len(found.others):
        left.ecdf(
            found.others,
            weights=found.other_weights,
            color=pictures.QUERIES,
            linewidth=1.8,
            label="nearest other text",
        )
    left.set(xlabel="distance", title="How far apart", ylim=(0, 1.02), xlim=(0, None))
    highest = max((row.figures.radius for row in found.rows), default=1.0)
    radii = np.linspace(highest / 200, highest, 200)
    if found.pairs is not None:
        caught = [share_below(found.pairs.distances, found.pairs.weights, caught_within(r)) for r in radii]
        right.plot(radii, caught, color=pictures.NEAREST, linewidth=1.8, label=f"{what} caught")
        right.axhline(CAUGHT, color=pictures.NEAREST, linewidth=0.8, linestyle=":")
    if len(found.others):
        merged = [share_below(found.others, found.other_weights, caught_within(r)) for r in radii]
        right.plot(radii, merged, color=pictures.QUERIES, linewidth=1.8, label="candidates merged")
        right.axhline(MERGED, color=pictures.QUERIES, linewidth=0.8, linestyle=":")
    marks = {found.in_use: "in use"}
    if found.proposal is not None and found.proposal.radius is not None:
        same = found.proposal.radius == found.in_use
        marks[found.proposal.radius] = "in use" if same else "proposed"
    for radius, text in marks.items():
        right.axvline(radius, color=pictures.OTHER, linewidth=1.2)
        right.annotate(
            text, (radius, 1.0), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right",
            xytext=(-2, -3), textcoords="offset points", fontsize=8.5,
        )  # fmt: skip
    right.set(xlabel="kernel radius", title="What a radius does", ylim=(0, 1.02), xlim=(0, highest))
    for axes in (left, right):
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    handles = {
        label: handle
        for axes in (left, right)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    made.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return made


@pictures.styled
def draw_alpha(sweep: Sweep) -> "Figure":
    """How far alpha spreads, and how near to held-back queries what it selects is."""
    made, panels = pictures.grid(2 if sweep.best else 1, 2 if sweep.best else 1, 3.0)
    alphas = np.array([row.alpha for row in sweep.rows])
    left = panels[0]
    for values, name, color in (
        ([row.neighbors for row in sweep.rows], "neighbourhood (median)", pictures.CHOSEN),
        ([row.effective_size for row in sweep.rows], "effective size", pictures.NEAREST),
    ):
        left.plot(alphas, np.maximum(values, 1), "o-", color=color, markersize=3.5, linewidth=1.5, label=name)
    left.axhline(sweep.size, color=pictures.OTHER, linewidth=1.2)
    left.annotate(
        "size", (0.01, sweep.size), xycoords=("axes fraction", "data"), ha="left", va="bottom",
        xytext=(0, 2), textcoords="offset points", fontsize=8.5,
    )  # fmt: skip
    left.set(xlabel="alpha", title="How far a query spreads", yscale="log")
    left.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if sweep.best:
        right = panels[1]
        rows = [row for row in sweep.rows if row.measured]
        means = np.array([row.energy.mean() for row in rows])
        right.plot(
            [row.alpha for row in rows], means, "o-", color=pictures.CHOSEN, markersize=3.5, linewidth=1.5
        )
        good = [row for row in rows if row in sweep.as_good]
        right.plot(
            [row.alpha for row in good], [row.energy.mean() for row in good], "o", color=pictures.QUERIES,
            markersize=6, label="best, and as good",
        )  # fmt: skip
        right.axhline(
            sweep.random_energy,
            color=pictures.OTHER,
            linestyle="--",
            linewidth=1.2,
            label="random candidates",
        )
        right.set(xlabel="alpha", title="Energy distance to held-back queries", ylim=(0, None))
    for axes in panels:
        axes.set_xlim(-0.02, 1.02)
        if sweep.used is not None:
            axes.axvline(sweep.used.alpha, color=pictures.OTHER, linewidth=1.2, linestyle=":", label="in use")
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    made.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return made


def _task(number: int, task: TaskFindings) -> dict[str, Any]:
    sweep = task.sweep
    return {
        "name": sweep.task,
        "queries": sweep.queries,
        "folds": sweep.folds,
        "size": sweep.size,
        "words": alpha_in_words(sweep),
        "rows": alpha_rows(sweep),
        "picture": svg(pictures.as_svg(draw_alpha(sweep), f"alpha-{number}")),
    }


def _percent(share: float, digits: int = 0) -> str:
    return "" if np.isnan(share) else f"{share:.{digits}%}"
