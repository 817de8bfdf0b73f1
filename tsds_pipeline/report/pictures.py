"""The pictures of the reports, drawn by matplotlib; each function takes arrays and returns a figure.

``as_svg`` makes a picture for a page, whose ink follows the page's colours in light and dark; ``as_png`` one on white
for where only images can be shown.
"""

import base64
import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from tsds_pipeline.errors import printable
from tsds_pipeline.wording import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHOSEN, QUERIES, OTHER, NEAREST = "#2f7fc1", "#e0701a", "#9a9a9a", "#8e5ab5"
# Drawn as they are in a PNG; in a page they are the page's own colours.
_INK, _GRID = "#1a1a1b", "#d7d7d8"
_IN_PAGE = {_INK: "var(--ink)", _GRID: "var(--grid)"}
_WIDTH = 8.0
# Fewer leave room, so that a bar is a bar.
_FEWEST_BARS = 8
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
# What matplotlib calls parts of every picture.
_NAME = re.compile(r"(figure|axes|patch|text|line2d|matplotlib|xtick|ytick|legend)[._]")
_SVG = "http://www.w3.org/2000/svg"
_LONGEST_NAME = 28


def styled(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """A function that draws, in the style that all pictures share."""

    @functools.wraps(draw)
    def drawing(*args: Any, **options: Any) -> "Figure":
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **options)

    return drawing


def grid(panels: int, columns: int, height: float, **options: Any) -> tuple["Figure", list["Axes"]]:
    """An empty picture of the page's width, with ``panels`` of ``height`` inches in rows of ``columns``."""
    from matplotlib.figure import Figure

    rows = -(-panels // columns)
    made = Figure(figsize=(_WIDTH, height * rows), layout="constrained")
    axes = made.subplots(rows, columns, squeeze=False, **options).ravel()
    for rest in axes[panels:]:
        rest.remove()
    return made, list(axes[:panels])


@styled
def pool_map(
    landmarks: np.ndarray, unchosen: np.ndarray, chosen: np.ndarray, queries: np.ndarray
) -> "Figure":
    """The pool, candidates with mass that were not drawn, drawn ones and queries, each (n, 2), on one map."""
    made, (axes,) = grid(1, 1, 5.2)
    _dots(axes, landmarks, "candidates (a sample)", 2.6, OTHER, 0.55, rasterized=True)
    _dots(axes, unchosen, "could have been drawn", 3.4, CHOSEN, 0.4, rasterized=True)
    _dots(axes, chosen, "drawn", 4.5, CHOSEN, 0.9, gid="drawn")
    _dots(axes, queries, "queries", 6.0, QUERIES, 0.95, marker="D", gid="queries")
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axes.spines[:].set_visible(False)
    made.legend(loc="outside lower center", ncols=4, markerscale=1.4)
    return made


@styled
def shares_by_source(names: Sequence[str], mass: np.ndarray, drawn: np.ndarray, pool: np.ndarray) -> "Figure":
    """For each source its share of the probability mass, of what was drawn and of the pool; each (n,)."""
    made, (axes,) = grid(1, 1, 0.9 + 0.42 * len(names))
    rows = np.arange(len(names))[::-1]
    for shift, values, name, color in (
        (0.26, mass, "of the probability", CHOSEN),
        (0.0, drawn, "of what was drawn", QUERIES),
        (-0.26, pool, "of the candidates", OTHER),
    ):
        axes.barh(rows + shift, values, 0.24, color=color, label=name)
    axes.set_yticks(rows, [shortened(name, _LONGEST_NAME) for name in names])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(False, axis="y")
    made.legend(loc="outside upper left", ncols=3)
    return made


@styled
def shares_by_query(mass: np.ndarray, sizes: np.ndarray) -> "Figure":
    """How much probability lies nearest to each query, (M,), and over how many candidates each spreads, (M,)."""
    made, (left, right) = grid(2, 2, 2.9)
    left.stairs(np.sort(mass)[::-1], np.arange(len(mass) + 1) + 0.5, fill=True, color=CHOSEN)
    left.axhline(1 / len(mass), color=QUERIES, linewidth=1.2)
    left.annotate(
        "an equal share", (1, 1 / len(mass)), xycoords=("axes fraction", "data"), ha="right", va="bottom",
        xytext=(0, 2), textcoords="offset points", color=QUERIES,
    )  # fmt: skip
    left.set(xlabel="queries, by their share", ylabel="share of the probability", title="Nearest query")
    left.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}" if value < 0.001 else f"{value:.1%}")
    left.grid(False, axis="x")
    counted = sizes[sizes > 0]
    if len(counted) and counted.max() > counted.min():
        low, high = counted.min(), counted.max()
        wide = high > 20 * low
        bins = (
            np.geomspace(low, high, 25)
            if wide
            else np.linspace(low - 0.5, high + 0.5, min(25, high - low + 2))
        )
        right.hist(counted, bins=bins, color=CHOSEN)
        right.set_xscale("log" if wide else "linear")
        if not wide:
            _whole_numbers(right.xaxis)
    elif len(counted):
        right.bar([str(int(counted[0]))], [len(counted)], 0.3, color=CHOSEN)
    right.set(
        xlabel="candidates that share its mass", ylabel="queries", title="Neighbourhood size of each query"
    )
    _whole_numbers(right.yaxis)
    return made


@styled
def held_back(
    nearest_example: Mapping[str, np.ndarray],
    nearest_query: Mapping[str, np.ndarray],
    colors: Mapping[str, str],
) -> "Figure":
    """By method: distance of each held-back query to its nearest example, and of each example to its nearest such
    query, as cumulative shares."""
    made, panels = grid(2, 2, 3.2, sharex=True)
    titles = ("Held-back queries: is an example near?", "Examples: is a held-back query near?")
    for axes, distances, title in zip(panels, (nearest_example, nearest_query), titles, strict=True):
        for name, values in distances.items():
            axes.ecdf(values, color=colors[name], label=name, linewidth=1.8)
        axes.set(xlabel="distance to the nearest", title=title, ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    handles, labels = panels[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return made


@styled
def densities(values: np.ndarray, drawn: np.ndarray) -> "Figure":
    """How many candidates with mass, and how many of those drawn, have which density (n,), (m,)."""
    made, (axes,) = grid(1, 1, 2.6)
    high = max(2.0, float(values.max(initial=1.0)))
    bins = np.geomspace(1.0, high * 1.0001, 33) if high > 10 else np.linspace(1.0, high * 1.0001, 33)
    axes.hist(values, bins=bins, color=OTHER, label="with mass")
    axes.hist(drawn, bins=bins, color=CHOSEN, label="drawn")
    axes.set_xscale("log" if high > 10 else "linear")
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlabel="density: near-duplicates in the pool, itself included", ylabel="candidates")
    axes.set_xlim(left=bins[0])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    made.legend(loc="outside upper left", ncols=2)
    return made


@styled
def drift(kept: np.ndarray, added: np.ndarray, dropped: np.ndarray, labels: Sequence[str]) -> "Figure":
    """What each version of a sample kept of the one before, added and dropped; each (n,)."""
    made, (axes,) = grid(1, 1, 2.6)
    place = np.arange(len(kept))
    axes.bar(place, kept, 0.6, color=CHOSEN, label="kept")
    axes.bar(place, added, 0.6, bottom=kept, color=QUERIES, label="added")
    axes.bar(place, -dropped, 0.6, color=OTHER, label="dropped")
    axes.axhline(0, color=_INK, linewidth=0.8)
    axes.set_xticks(place, labels)
    axes.set(xlabel="version", ylabel="examples", xlim=(-0.6, max(len(kept), _FEWEST_BARS) - 0.4))
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
    axes.grid(False, axis="x")
    made.legend(loc="outside upper left", ncols=3)
    return made


def as_png(made: "Figure") -> str:
    """The picture as a data URI, on white, in few colours: Dagster keeps one for each version."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    _lay_out(made)
    made.dpi = 90
    canvas, target = FigureCanvasAgg(made), io.BytesIO()
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(64).save(target, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def as_svg(made: "Figure", name: str, texts: Mapping[str, Sequence[str]] | None = None) -> str:
    """The picture as an SVG element to stand in a page, whose colours its ink takes; ``name`` is unique there.

    ``texts`` are what dots say when they are pointed at, by the gid that they were drawn with.
    """
    import matplotlib

    target = io.StringIO()
    _lay_out(made)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        made.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(target.getvalue())
    for gid, said in (texts or {}).items():
        marks = root.findall(f".//*[@id='{gid}']//{{{_SVG}}}use")
        for mark, text in zip(marks, said, strict=True):
            ElementTree.SubElement(mark, f"{{{_SVG}}}title").text = printable(text)
    for element in root.iter():
        _adapt(element.attrib)
    metadata = root.find(f"{{{_SVG}}}metadata")
    if metadata is not None:
        root.remove(metadata)
    root.attrib.pop("height", None)
    root.set("width", "100%")
    root.set("role", "img")
    return ElementTree.tostring(root, encoding="unicode")


def _lay_out(made: "Figure") -> None:
    """Find the places of its parts, once; a figure with an engine for it is drawn twice each time it is saved."""
    engine = made.get_layout_engine()
    if engine is not None:
        engine.execute(made)
        made.set_layout_engine(None)


def _adapt(attributes: dict[str, str]) -> None:
    """Give an element the page's colours, and take away a name that others in the page have too."""
    for name, value in attributes.items():
        for color, variable in _IN_PAGE.items():
            value = value.replace(color, variable)
        attributes[name] = value
    if _NAME.match(attributes.get("id", "")):
        del attributes["id"]


def _dots(axes, points, label, size, color, alpha, marker="o", rasterized=False, gid=None) -> None:
    axes.plot(
        points[:, 0], points[:, 1], marker, markersize=size, color=color, alpha=alpha, label=label,
        markeredgewidth=0, rasterized=rasterized, gid=gid,
    )  # fmt: skip


def _whole_numbers(axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))
