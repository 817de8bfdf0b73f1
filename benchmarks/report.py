"""What ``compare`` found, as Markdown tables and as a plot; ``scaling`` shares their parts."""

import statistics
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path

import machine

REFERENCE, SELECT, EXACT, FURTHER = "reference", "select cold", "exact cold", "further task"
METHODS = (REFERENCE, SELECT, EXACT, FURTHER)
STAGES = ("index", "search", "densities", "transport", "draw", "other")
COLORS = dict(zip(STAGES, ("#8c8c8c", "#3b76af", "#d9822b", "#519e3e", "#c94f4f", "#c9c9c9"), strict=True))
NONE = "–"

peak = itemgetter("peak")


def total(run: dict) -> float:
    return sum(run["stages"].values())


def in_short(run: dict) -> str:
    return f"{total(run):8.2f} s  {peak(run) / 2**30:6.2f} GiB"


def table(results: dict) -> str:
    work, settings = results["workload"], results["settings"]
    lines = [
        f"{work['name']}: {work['queries']:,} queries x {work['candidates']:,} candidates x {work['dim']}; alpha "
        f"{settings['alpha']:g}, C {settings['C']:g}, {settings['size']:,} draws. Rounds: {rounds(results)}, of which "
        "these are the medians; faster and leaner: how many times, against the reference in the same round.",
        "",
        *rows(
            ["h", "method", *STAGES, "seconds", "faster", "peak GiB", "leaner"],
            [line for radius in radii(results) for line in method_lines(results, radius)],
        ),
        "",
        *quality_lines(results),
        *roofline(results),
        "",
        f"Machine: {machine.in_words(results['machine'])}.",
    ]
    return "\n".join(lines) + "\n"


def method_lines(results: dict, radius: float) -> list[list[str]]:
    lines = []
    for method in METHODS:
        here = [run for run in results["runs"] if (run["method"], run["radius"]) == (method, radius)]
        runs = runs_of(results, method, radius)
        if len(runs) < len(here):
            why = next(run["failed"] for run in here if "failed" in run)
            name = f"{method}: {len(here) - len(runs)} of {len(here)} failed: {why}"
            lines.append([name, *[NONE] * (len(STAGES) + 4)])
        if runs:
            seconds, memory = median(runs, total), median(runs, peak)
            faster, leaner = (times(results, runs, figure) for figure in (total, peak))
            figures = [f"{seconds:.2f}", faster, f"{memory / 2**30:.2f}", leaner]
            lines.append([method, *stage_cells(runs, "stages"), *figures])
        if runs and runs[0].get("preparing"):
            seconds = median(runs, lambda run: sum(run["preparing"].values()))
            lines.append(["preparing, once", *stage_cells(runs, "preparing"), f"{seconds:.2f}", *[NONE] * 3])
    return [[f"{radius:g}", *line] for line in lines]


def stage_cells(runs: Sequence[dict], key: str) -> list[str]:
    there = {stage for run in runs for stage in run[key]}
    return [f"{median(runs, seconds_of(stage, key)):.2f}" if stage in there else NONE for stage in STAGES]


def times(results: dict, runs: Sequence[dict], figure: Callable[[dict], float]) -> str:
    """The reference's figure over that of ``runs``: the median of the rounds that have both."""
    if runs[0]["method"] == REFERENCE:
        return "1"
    reference = {run["round"]: run for run in runs_of(results, REFERENCE, runs[0]["radius"])}
    # No figure: memory, where the system does not tell.
    pairs = [(reference[run["round"]], run) for run in runs if run["round"] in reference and figure(run)]
    ratios = [figure(theirs) / figure(ours) for theirs, ours in pairs]
    return f"{statistics.median(ratios):.1f}" if ratios else NONE


def quality_lines(results: dict) -> list[str]:
    if not results["quality"]:
        return []
    body = [
        [
            f"{one['radius']:g}",
            one["method"],
            f"{one['candidates']:,}",
            f"{one['recall']:.5f}",
            f"{one['least_recall']:.3f}",
            f"{one['mean_density_error']:.1e}",
            f"{one['largest_density_error']:.1e}",
            f"{one['objective']:.6f}",
            f"{one['objective_gap']:+.1e}",
            f"{one['variation']:.1e}",
        ]
        for one in sorted(results["quality"], key=lambda one: (one["radius"], METHODS.index(one["method"])))
    ]
    head = [
        "h",
        "method",
        "with mass",
        "recall",
        "least",
        "density error",
        "largest",
        "objective",
        "gap",
        "variation",
    ]
    return [
        f"Against brute force: how many candidates have mass; recall of the neighbours used, mean and least of "
        f"{results['sampled_queries']} queries; relative error of the densities of candidates with mass, mean and "
        "largest; the plan's objective with exact distances and densities, without the (1 - alpha)/S that all share; "
        f"its relative gap to that of {EXACT}, and the total variation from the probabilities of that.",
        "",
        *rows(head, body),
        "",
    ]


def roofline(results: dict) -> list[str]:
    work, roof = results["workload"], results["machine"]["product_rate"]
    runs = [run for run in results["runs"] if run["method"] == EXACT and run.get("stages", {}).get("search")]
    if not runs:
        return []
    flops = 2 * work["queries"] * work["candidates"] * work["dim"]
    rate = flops / median(runs, seconds_of("search"))
    return [
        f"The search of {EXACT} does {rate / 1e9:.0f} GFLOP/s, {rate / roof:.0%} of what a matrix product alone did in "
        f"the same run ({roof / 1e9:.0f} GFLOP/s)."
    ]


def rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; the first two columns are names."""
    rule = ["---" if number < 2 else "---:" for number in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]


def radii(results: dict) -> list[float]:
    return sorted({run["radius"] for run in results["runs"]})


def rounds(results: dict) -> int:
    return len({run["round"] for run in results["runs"]})


def runs_of(results: dict, method: str, radius: float) -> list[dict]:
    """Those that did not fail."""
    return [
        run
        for run in results["runs"]
        if (run["method"], run["radius"]) == (method, radius) and "failed" not in run
    ]


def seconds_of(stage: str, key: str = "stages") -> Callable[[dict], float]:
    return lambda run: run[key].get(stage, 0.0)


def median(runs: Sequence[dict], figure: Callable[[dict], float]) -> float:
    return statistics.median(figure(run) for run in runs)


def plot(results: dict, path: Path) -> None:
    """Seconds per stage, and peak memory, of each method at each radius."""
    from matplotlib.figure import Figure

    bars = [(m, h, runs) for h in radii(results) for m in METHODS if (runs := runs_of(results, m, h))]
    names = [f"{method}, h = {radius:g}" for method, radius, _ in bars]
    figure = Figure(figsize=(11, 1.2 + 0.45 * len(bars)), layout="constrained")
    seconds, memory = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    left = [0.0] * len(bars)
    for stage in STAGES:
        widths = [median(runs, seconds_of(stage)) for _, _, runs in bars]
        seconds.barh(names, widths, left=left, label=stage, color=COLORS[stage])
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for name, (_, _, runs), end in zip(names, bars, left, strict=True):
        label = f" {median(runs, total):.1f} s, {times(results, runs, total)}x"
        seconds.text(end, name, label, va="center", fontsize=8)
    memory.barh(names, [median(runs, peak) / 2**30 for _, _, runs in bars], color=COLORS["index"])
    seconds.invert_yaxis()
    seconds.set_xlim(0, 1.2 * max(left, default=1))
    seconds.set_xlabel("seconds, arrays to sample")
    memory.set_xlabel("peak memory, GiB")
    seconds.legend(fontsize=8)
    work = results["workload"]
    title = f"{work['queries']:,} x {work['candidates']:,} x {work['dim']} ({work['name']})"
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)
