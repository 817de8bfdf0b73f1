"""The tables and the plot of ``evaluation.py``, from its lines.

A cell is the mean over the tasks, and of that the mean ± standard deviation over the seeds. Two methods differ where
the mean over the seeds of their difference is larger than its standard deviation; else they tie.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import report

Values = dict[tuple, dict[int, float]]
"""Of each cell, its value by the seed."""

MEASURES = {
    "energy": ("Energy distance to the held-back texts, times 1000 (less is better)", 1000.0, 1),
    "bits": ("Bits a word of the n-gram model (less is better)", 1.0, 3),
    "transport": ("Wasserstein-1 distance to the held-back texts (less is better)", 1.0, 4),
}
SIDES = {
    "coverage": ("coverage", 3),
    "vendi": ("Vendi score", 1),
    "near_duplicates": ("near-duplicates", 3),
    "distinct": ("distinct originals", 3),
}
OURS = "knn_kde"
BETTER, WORSE, TIED = "+", "−", "="
COLORS = {
    "random": "0.6",
    "top_k": "tab:red",
    "round_robin": "tab:orange",
    "dsir": "tab:brown",
    "knn_uniform": "tab:purple",
    "knn_tv": "tab:pink",
    "knn_kde, h = 0.1": "tab:cyan",
    "knn_kde": "tab:blue",
    "round_robin_deduplicated": "tab:green",
}


def write(lines: list[dict], out: Path) -> None:
    (out / "evaluation.md").write_text(text(lines), encoding="utf-8")
    plot(lines, out / "evaluation.png")


def text(lines: list[dict]) -> str:
    copies = [line for line in lines if line["axis"] == "copies"]
    methods = _in_order(result["method"] for line in copies for result in line["results"])
    levels = _in_order(line["level"] for line in copies)
    sizes = sorted({result["size"] for line in copies for result in line["results"]})
    parts = ["## Copies", *_levels(lines)]
    for measure, (title, scale, digits) in MEASURES.items():
        found = _values(copies, measure, scale)
        for size in sizes if measure != "transport" else sizes[-1:]:
            table = [
                [name, *(_cell(found, (level, size, name), digits) for level in levels)] for name in methods
            ]
            parts += [f"{title}, {size} selected", *report.rows(["method", *levels], table)]
    parts += _sides(copies, methods, levels, sizes[-1])
    parts += _verdicts(copies, methods, levels, sizes)
    parts += ["## Labels", *_labels(lines)]
    parts += ["## Transformer", *_transformer(lines)]
    return "\n\n".join("\n".join(part) if isinstance(part, list) else part for part in _blocks(parts)) + "\n"


def _blocks(parts: list[str]) -> Iterable[list[str]]:
    """Lines of one table together, everything else alone."""
    block: list[str] = []
    for part in parts:
        if block and not (part.startswith("|") and block[-1].startswith("|")):
            yield block
            block = []
        block.append(part)
    if block:
        yield block


def _levels(lines: list[dict]) -> list[str]:
    """What the copies are, of the seeds together."""
    found = defaultdict(list)
    for line in lines:
        if line["axis"] == "level" and "copies" in line:
            found[line["level"]].append(line)
    rows = []
    for level, group in found.items():
        near = [f"{np.mean([line['within'][radius] for line in group]):.2f}" for radius in group[0]["within"]]
        moved, errors = (
            [line["approximation"][name] for line in group if "approximation" in line]
            for name in ("really_moved", "error")
        )
        whole = f"{sum(line['encoded'] for line in group) / sum(line['copies'] for line in group):.2f}"
        gap = [f"{np.mean(values):.2f}" if values else "–" for values in (moved, errors)]
        counts = [
            f"{np.mean([line[name] for line in group]):,.0f}" for name in ("records", "copied", "copies")
        ]
        rows.append([level, *counts, whole, *near, *gap])
    heads = ["level", "records", "copied", "copies", "share encoded", "within 0.1", "within 0.5"]
    return report.rows([*heads, "two edits move", "approximation off by"], rows)


def _sides(copies: list[dict], methods: list[str], levels: list[str], size: int) -> list[str]:
    shown = [levels[0], next((level for level in levels if level == "1 % x 1000"), levels[-1])]
    found = {name: _values(copies, name, 1.0) for name in SIDES}
    heads = [f"{title}, {level}" for title, _ in SIDES.values() for level in shown]
    table = [
        [
            name,
            *(
                _cell(found[side], (level, size, name), digits)
                for side, (_, digits) in SIDES.items()
                for level in shown
            ),
        ]
        for name in methods
    ]
    return [f"Coverage and diversity, {size} selected", *report.rows(["method", *heads], table)]


def _verdicts(copies: list[dict], methods: list[str], levels: list[str], sizes: list[int]) -> list[str]:
    found = {measure: _values(copies, measure, 1.0) for measure in MEASURES}
    columns = [(measure, size) for measure in found for size in sizes]

    def marks(level: str, other: str) -> str:
        groups = (
            "".join(compared(values, (level, size), other) for size in sizes) for values in found.values()
        )
        return " ".join(groups)

    against = [[other, *(marks(level, other) for level in levels)] for other in methods if other != OURS]
    heading = (
        f"{OURS} against each: better (+), worse (−) or tied (=) in {', '.join(found)}, in each "
        f"for {' and '.join(map(str, sizes))} selected"
    )
    best = [
        [
            f"{measure}, {size}",
            *(", ".join(leaders(found[measure], (level, size), methods)) for level in levels),
        ]
        for measure, size in columns
    ]
    return [
        heading,
        *report.rows(["against", *levels], against),
        "The best mean, and what ties with it",
        *report.rows(["measure", *levels], best),
    ]


def compared(found: Values, place: tuple, other: str, ours: str = OURS) -> str:
    """Whether ``ours`` has less than ``other``: by more than the spread over the seeds of the difference, or not."""
    one, two = found.get((*place, ours), {}), found.get((*place, other), {})
    differences = np.array([one[seed] - two[seed] for seed in sorted(one.keys() & two.keys())])
    if not len(differences):
        return "?"
    spread = differences.std(ddof=1) if len(differences) > 1 else 0.0
    if abs(differences.mean()) <= spread:
        return TIED
    return BETTER if differences.mean() < 0 else WORSE


def leaders(found: Values, place: tuple, methods: list[str]) -> list[str]:
    """The method with the least mean, then those tied with it."""
    means = {
        name: np.mean(list(found[(*place, name)].values())) for name in methods if (*place, name) in found
    }
    order = sorted(means, key=means.__getitem__)
    return order[:1] + [name for name in order[1:] if compared(found, place, name, order[0]) == TIED]


def _labels(lines: list[dict]) -> list[str]:
    """F1 by task and share, and the mean over the tasks."""
    lines = [line for line in lines if line["axis"] == "labels"]
    tasks = sorted({line["task"] for line in lines})
    found: Values = defaultdict(dict)
    for line in lines:
        for result in line["results"]:
            if "f1" in result:
                share = result.get("share", 1.0)
                found[line["task"], share, result["method"]][line["seed"]] = result["f1"]
    shares = sorted({share for _, share, name in found if name != "all"})
    methods = _in_order(name for _, _, name in found)
    for share, name in {(share, name) for _, share, name in found}:
        each = [found.get((task, share, name), {}) for task in tasks]
        for seed in set.intersection(*(set(values) for values in each)):
            found["all tasks", share, name][seed] = float(np.mean([values[seed] for values in each]))
    parts = ["Macro F1 (more is better), by the share of the pool selected; `all` is the whole of it"]
    columns = [*tasks, "all tasks"]
    for share in shares:
        table = [
            [name, *(_cell(found, (task, 1.0 if name == "all" else share, name), 3) for task in columns)]
            for name in methods
        ]
        parts += [f"{100 * share:g} %", *report.rows(["method", *columns], table)]
    # What is compared is an error: less is better.
    errors = {place: {seed: -value for seed, value in values.items()} for place, values in found.items()}
    marks = [
        [other, *(compared(errors, ("all tasks", share), other) for share in shares)]
        for other in methods
        if other not in ("all", OURS)
    ]
    heading = f"{OURS} against each, mean of the tasks: better (+), worse (−) or tied (=)"
    return [*parts, heading, *report.rows(["against", *(f"{100 * share:g} %" for share in shares)], marks)]


def _transformer(lines: list[dict]) -> list[str]:
    lines = [line for line in lines if line["axis"] == "transformer"]
    found: Values = defaultdict(dict)
    for line in lines:
        for result in line["results"]:
            found[line["task"], line["level"], result["method"]][line["seed"]] = result["bits"]
    places = _in_order((task, level) for task, level, _ in found)
    methods = _in_order(name for _, _, name in found)
    table = [[name, *(_cell(found, (*place, name), 3) for place in places)] for name in methods]
    return [
        "Bits a byte (less is better)",
        *report.rows(["method", *(f"{task}, {level}" for task, level in places)], table),
    ]


def _values(copies: list[dict], measure: str, scale: float) -> Values:
    """(level, size, method) -> mean over the tasks, of each seed that has all of them."""
    each: dict[tuple, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in copies:
        for result in line["results"]:
            if measure in result:
                place = line["level"], result["size"], result["method"]
                each[place][line["seed"]][line["task"]] = result[measure] * scale
    number = max((len(tasks) for seeds in each.values() for tasks in seeds.values()), default=0)
    return {
        place: {
            seed: float(np.mean(list(tasks.values())))
            for seed, tasks in seeds.items()
            if len(tasks) == number
        }
        for place, seeds in each.items()
    }


def _cell(found: Values, place: tuple, digits: int) -> str:
    values = list(found.get(place, {}).values())
    if not values:
        return "–"
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def _in_order(names: Iterable) -> list:
    return list(dict.fromkeys(names))


def plot(lines: list[dict], path: Path) -> None:
    """Energy distance and bits over the number of copies, for each share of the records, of the largest selection."""
    from matplotlib.figure import Figure

    copies = [line for line in lines if line["axis"] == "copies"]
    size = max(result["size"] for line in copies for result in line["results"])
    levels = [level for level in _in_order(line["level"] for line in copies) if "near" not in level]
    shares = _in_order(level.partition(" x ")[0] for level in levels if " x " in level)
    figure = Figure(figsize=(5 * len(shares) + 2, 8), layout="constrained")
    axes = figure.subplots(2, len(shares), squeeze=False, sharey="row")
    for row, measure in zip(axes, ("energy", "bits"), strict=True):
        title, scale, _ = MEASURES[measure]
        found = _values(copies, measure, scale)
        for ax, share in zip(row, shares, strict=True):
            shown = [levels[0], *(level for level in levels if level.startswith(share + " x "))]
            for name, color in COLORS.items():
                points = [list(found.get((level, size, name), {}).values()) for level in shown]
                if not any(points):
                    continue
                mean = [np.mean(values) if values else np.nan for values in points]
                spread = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in points]
                style = "--" if name == "round_robin_deduplicated" else "-"  # lies on knn_kde
                ax.errorbar(
                    range(len(shown)), mean, spread, ls=style, color=color, label=name, marker="o", capsize=3
                )
            ax.set(title=f"{share} of the records copied", xlabel="copies of each")
            ax.set_xticks(range(len(shown)), ["none", *(level.partition(" x ")[2] for level in shown[1:])])
            ax.grid(alpha=0.3)
        row[0].set_ylabel(title.partition(" (")[0])
        if measure == "energy":
            row[0].set_yscale("log")
            row[0].yaxis.set_major_formatter("{x:g}")
            row[0].yaxis.set_minor_formatter("{x:g}")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8)
    figure.savefig(path, dpi=110)
