"""The picture and the page of what other methods would have selected for a task."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tsds_pipeline.report import pictures
from tsds_pipeline.report.pages import svg, write_page
from tsds_pipeline.report.selection import TITLES, compared
from tsds_pipeline.stages.comparison import METRICS, OWN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = (
    "transport_distance",
    "energy_distance",
    "held_back_distance",
    "kl_reduction",
    "vendi_score",
    "near_duplicate_rate",
)


def write_comparison(
    path: Path, task: str, version: str, sample: str, table: pl.DataFrame, left_out: Mapping[str, str]
) -> str:
    """Write the page of a verdict table to ``path``; returns its picture as a data URI (PNG).

    ``sample`` is the data version of the sample that others are compared with.
    """
    picture = _draw(table)
    inline = svg(pictures.as_svg(picture, "comparison"))
    values = {"sample": sample, **compared(table, left_out)}
    write_page(
        path, "comparison.html", version, title=f"{task}: other methods", task=task, picture=inline, **values
    )
    return pictures.as_png(picture)


@pictures.styled
def _draw(table: pl.DataFrame) -> "Figure":
    """A verdict table as a picture: for each metric a dot a method, and small ones for the parts held back."""
    methods = list(dict.fromkeys(table["method"]))
    names = [name for name in DRAWN if table[name].null_count() < len(table)]
    made, axes = pictures.grid(len(names), 3, 0.6 + 0.24 * len(methods), sharey=True)
    rows = np.arange(len(methods))[::-1]
    for one, name in zip(axes, names, strict=True):
        for row, method in zip(rows, methods, strict=True):
            values = table.filter(pl.col("method") == method)[name].drop_nulls().to_numpy()
            color = pictures.QUERIES if method == OWN else pictures.CHOSEN
            one.plot(values, np.full(len(values), row), "o", color=color, alpha=0.3, markersize=3.5)
            one.plot(values.mean(), row, "o", color=color, markersize=6)
        one.set_title(METRICS[name].title, loc="left")
        one.set_xlabel(f"{METRICS[name].better} is better")
        one.set_yticks(rows, [TITLES[method] for method in methods])
        one.set_ylim(-0.6, len(methods) - 0.4)
    return made
