"""The picture and the page of what other methods would have selected for a task."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tsds_pipeline.report import pictures
from tsds_pipeline.report.selection import TITLES
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


@pictures.styled
def draw_comparison(table: pl.DataFrame) -> "Figure":
    """A verdict table as a picture: for each metric a dot a method, and small ones for the parts held back."""
    methods = list(dict.fromkeys(table["method"]))
    names = [name for name in DRAWN if table[name].null_count() < len(table)]
    made, axes = pictures.grid(len(names), 3, 0.6 + 0.24 * len(methods))
    rows = np.arange(len(methods))[::-1]
    for one, name in zip(axes, names, strict=True):
        for row, method in zip(rows, methods, strict=True):
            values = table.filter(pl.col("method") == method)[name].drop_nulls().to_numpy()
            color = pictures.QUERIES if method == OWN else pictures.CHOSEN
            one.plot(values, np.full(len(values), row), "o", color=color, alpha=0.3, markersize=3.5)
            one.plot(values.mean(), row, "o", color=color, markersize=6)
        one.set_title(f"{METRICS[name].title} ({METRICS[name].better} is better)")
        one.set_yticks(rows, [TITLES[method] for method in methods])
        one.set_ylim(-0.6, len(methods) - 0.4)
    return made
