"""How the time and memory of `select` grow with the candidates, which stay on disk: from 100 thousand to 10 million.

    python benchmarks/scaling.py

One pool of the largest size is written as float16; every size is its beginning, mapped from the file. Writes
scaling.json, scaling.md and scaling.png to --out. 10 million candidates take 7.7 GB of disk there.
"""

import argparse
import statistics
from operator import itemgetter
from pathlib import Path

import machine
import measured
import report
import workload
from compare import common_options, measure_and_write, positive, selection_settings
from report import median

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)


def main() -> None:
    measure_and_write(parse(), grow, table, plot, ("scaling.json", "scaling.md", "scaling.png"))


def parse() -> argparse.Namespace:
    parser = common_options(__doc__, runs=1)
    add = parser.add_argument
    add(
        "--candidates",
        type=positive,
        nargs="+",
        default=SIZES,
        metavar="N",
        help="sizes (100000 to 10000000)",
    )
    add("--radius", type=float, default=0.1, metavar="H", help="kernel radius (0.1)")
    add("--limit-gib", type=float, default=8.0, metavar="GIB", help="say whether memory stays below (8)")
    options = parser.parse_args()
    options.candidates = sorted(set(options.candidates))
    options.out = options.out.resolve()
    return options


def grow(options: argparse.Namespace, folder: Path) -> dict:
    print(f"generating {options.candidates[-1]:,} candidates", flush=True)
    workload.generate(folder, options.candidates[-1], options.queries, options.dim, options.seed, "float16")
    rates, runs = [], []
    for number in range(options.runs):
        for n in options.candidates:
            rates.append(machine.product_rate())
            spec = {
                "queries": str(folder / "queries.npy"),
                "candidates": str(folder / "candidates.npy"),
                "rows": n,
                "mapped": True,
                "earlier_queries": None,
                "plan": str(folder / "plan.npz"),
                "size": options.size,
                "config": selection_settings(options.radius),
            }
            run = {"candidates": n} | measured.run("run_ours.py", spec, folder / f"{number}-{n}")
            runs.append(run)
            print(f"{n:>11,} candidates  {run.get('failed') or report.in_short(run)}", flush=True)
    return {
        "machine": machine.describe() | {"product_rate": statistics.median(rates), "product_rates": rates},
        "queries": options.queries,
        "dim": options.dim,
        "radius": options.radius,
        "limit_gib": options.limit_gib,
        "runs": runs,
    }


def table(results: dict) -> str:
    lines = []
    for n, runs in by_size(results).items():
        memory = [f"{median(runs, itemgetter(key)) / 2**30:.2f}" for key in ("peak", "own_peak")]
        lines.append(
            [f"{n:,}", *report.stage_cells(runs, "stages"), f"{median(runs, report.total):.2f}", *memory]
        )
    failed = [run for run in results["runs"] if "failed" in run]
    limit = results["limit_gib"]
    below = not failed and max(run["peak"] for run in results["runs"]) < limit * 2**30
    text = [
        f"{results['queries']:,} queries, {results['dim']} dimensions, h = {results['radius']:g}; candidates in "
        "float16, mapped from disk. The peak counts what of the file was resident, the last column does not.",
        "",
        *report.rows(["candidates", *report.STAGES, "seconds", "peak GiB", "without the file"], lines),
        "",
        *[f"{run['candidates']:,} candidates failed: {run['failed']}" for run in failed],
        f"Peak memory {'stays' if below else 'does not stay'} below {limit:g} GiB.",
        "",
        f"Machine: {machine.in_words(results['machine'])}.",
    ]
    return "\n".join(text) + "\n"


def plot(results: dict, path: Path) -> None:
    """Seconds per stage, and memory with its limit, over the number of candidates."""
    from matplotlib.figure import Figure

    sizes = by_size(results)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    for stage in report.STAGES:
        if any(stage in run["stages"] for runs in sizes.values() for run in runs):
            values = [median(runs, report.seconds_of(stage)) for runs in sizes.values()]
            seconds.plot(list(sizes), values, "o-", label=stage, color=report.COLORS[stage])
    seconds.plot(list(sizes), [median(runs, report.total) for runs in sizes.values()], "ko-", label="all")
    for key, label, style in (("peak", "peak", "o-"), ("own_peak", "without the file", "o--")):
        values = [median(runs, itemgetter(key)) / 2**30 for runs in sizes.values()]
        memory.plot(list(sizes), values, style, label=label, color=report.COLORS["search"])
    limit = results["limit_gib"]
    memory.axhline(limit, color=report.COLORS["draw"], linewidth=1, label=f"{limit:g} GiB")
    for axes, name in ((seconds, "seconds"), (memory, "memory, GiB")):
        axes.set(xscale="log", yscale="log", xlabel="candidates", ylabel=name)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def by_size(results: dict) -> dict[int, list[dict]]:
    """The runs that did not fail, by the number of candidates."""
    found: dict[int, list[dict]] = {}
    for run in results["runs"]:
        if "failed" not in run:
            found.setdefault(run["candidates"], []).append(run)
    return found


if __name__ == "__main__":
    main()
