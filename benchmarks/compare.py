"""This project against the paper's public script: seconds per stage, peak memory and exactness, in one run.

    python benchmarks/compare.py --reference CLONE

makes the arrays, runs every method on them in processes of their own, in several rounds, compares
their plans with exact values, and writes results.json, table.md and plot.png to --out.

  reference     the script of CLONE (github.com/ZifanL/TSDS), unchanged; without --reference it is left out
  select cold   `select` from arrays to sample, with nothing prepared
  exact cold    the same, every neighbour and density exact
  further task  `select` on a pool that was prepared, and has served another task, before

All at alpha 0.5 and C = 5, drawing with replacement as the script does. Real embeddings come from a project that
`tsds refresh` has filled: --project. A run at 1000 x 1,000,000 x 384 needs 8 GiB of memory, and 2 GB of disk in --out.
"""

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import machine
import measured
import report
import workload
from report import EXACT, FURTHER, REFERENCE, SELECT

ALPHA, SCALE = 0.5, 5.0
# How deep the script looks for neighbours, and for near-duplicates: as its config.yaml has it.
MAX_K, KDE_K = 5000, 1000
# What the exact mode sets beside what all do.
EXACT_SETTINGS = {"exact": True}
SAMPLED_QUERIES = 100


def main() -> None:
    options = parse()
    measure_and_write(options, compare, report.table, report.plot, ("results.json", "table.md", "plot.png"))


def measure_and_write(
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace, Path], dict],
    table: Callable[[dict], str],
    plot: Callable[[dict, Path], None],
    names: tuple[str, str, str],
) -> None:
    """Write what ``measure`` finds, given a folder to work in, to --out as JSON, table and plot of these ``names``."""
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=options.out) as folder:
        results = measure(options, Path(folder))
    as_json, as_table, as_plot = (options.out / name for name in names)
    as_json.write_text(json.dumps(results, indent=1) + "\n")
    text = table(results)
    as_table.write_text(text)
    plot(results, as_plot)
    print(f"\n{text}\nwritten to {options.out}: {', '.join(names)}")


def common_options(description: str, runs: int) -> argparse.ArgumentParser:
    """A parser with what every benchmark on generated arrays takes; ``runs`` is the default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--queries", type=positive, default=1000, metavar="M", help="generated queries (1000)")
    add("--dim", type=positive, default=384, help="of the generated vectors (384)")
    add("--seed", type=int, default=0, help="another seed generates other arrays (0)")
    add("--size", type=positive, default=1000, help="rows to draw (1000)")
    add("--runs", type=positive, default=runs, help=f"rounds; figures are medians ({runs})")
    add("--out", type=Path, default=measured.HERE / "results", metavar="DIR", help="(benchmarks/results)")
    return parser


def parse() -> argparse.Namespace:
    parser = common_options(__doc__, runs=3)
    add = parser.add_argument
    add("--reference", type=Path, metavar="CLONE", help="a clone of the public script: a folder with tsds.py")
    add("--project", type=Path, metavar="DIR", help="take the embeddings that this project has stored")
    add("--task", help="its task (the first)")
    add("--candidates", type=positive, default=1_000_000, metavar="N", help="generated candidates (1000000)")
    add(
        "--radius",
        type=float,
        action="append",
        metavar="H",
        help="kernel radius; may be repeated (0.1 and 0.5)",
    )
    options = parser.parse_args()
    if options.reference:
        for name in ("tsds.py", "faiss_helper.py"):
            if not (options.reference / name).is_file():
                parser.error(
                    f"--reference {options.reference}: no {name} in there: name a clone of ZifanL/TSDS"
                )
        options.reference = options.reference.resolve()
    if options.project:
        tasks = workload.tasks_of(options.project)
        options.task = options.task or tasks[0]
        if options.task not in tasks:
            parser.error(f"--task {options.task}: the project has {', '.join(tasks)}")
    elif options.task:
        parser.error("--task names a task of a --project")
    options.radius = sorted(set(options.radius or [0.1, 0.5]))
    if min(options.radius) <= 0:
        parser.error("--radius must be above 0")
    options.out = options.out.resolve()
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def compare(options: argparse.Namespace, folder: Path) -> dict:
    about = make_arrays(options, folder)
    print(
        f"{about['name']}: {about['queries']:,} queries x {about['candidates']:,} candidates x {about['dim']}"
    )
    rates, runs = [], []
    for number in range(options.runs):
        rates.append(machine.product_rate())
        order = list(tasks(options, folder))
        random.Random(number).shuffle(order)  # so that none always follows the same other
        for method, radius, script, spec in order:
            found = measured.run(script, spec, folder / f"{number}-{method}-{radius}".replace(" ", "-"))
            runs.append({"method": method, "radius": radius, "round": number} | found)
            print(f"round {number + 1} of {options.runs}  {in_a_line(runs[-1])}", flush=True)
    return {
        "machine": machine.describe() | {"product_rate": statistics.median(rates), "product_rates": rates},
        "workload": about,
        "settings": {"alpha": ALPHA, "C": SCALE, "size": options.size, "max_K": MAX_K, "kde_K": KDE_K},
        "runs": runs,
        **judge(options, folder, runs),
    }


def make_arrays(options: argparse.Namespace, folder: Path) -> dict:
    """Write the arrays; what they are."""
    if options.project:
        name = f"{options.project.resolve().name}, task {options.task}"
        workload.load_project(folder, options.project, options.task)
    else:
        print("generating the arrays", flush=True)
        name = f"generated, seed {options.seed}"
        workload.generate(folder, options.candidates, options.queries, options.dim, options.seed)
    shapes = [np.load(folder / f"{part}.npy", mmap_mode="r").shape for part in ("queries", "candidates")]
    return {"name": name, "queries": shapes[0][0], "candidates": shapes[1][0], "dim": shapes[1][1]}


def tasks(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, float, str, dict]]:
    """(method, radius, script, what the script is told) of one round."""
    arrays = {name: str(folder / f"{name}.npy") for name in ("queries", "candidates", "earlier_queries")}
    for radius in options.radius:
        settings = selection_settings(radius)
        ours = arrays | {"size": options.size, "config": settings, "rows": None, "mapped": False}
        cold = ours | {"earlier_queries": None}
        if options.reference:
            yield REFERENCE, radius, "run_reference.py", {
                "clone": str(options.reference),
                "plan": plan(folder, REFERENCE, radius),
                "settings": {
                    "query_embedding_path": arrays["queries"],
                    "candidate_embedding_path": arrays["candidates"],
                    "output_folder": str(folder / "output"),
                    "sample_size": options.size,
                    "alpha": ALPHA,
                    "C": SCALE,
                    "sigma": radius,
                    "max_K": MAX_K,
                    "kde_K": KDE_K,
                },
            }  # fmt: skip
        for method, spec in (
            (SELECT, cold),
            (EXACT, cold | {"config": settings | EXACT_SETTINGS}),
            (FURTHER, ours),
        ):
            yield method, radius, "run_ours.py", spec | {"plan": plan(folder, method, radius)}


def selection_settings(radius: float) -> dict:
    """What ours is told: as the script has it, which draws with replacement."""
    return {"alpha": ALPHA, "distance_scale": SCALE, "kernel_radius": radius, "with_replacement": True}


def plan(folder: Path, method: str, radius: float) -> str:
    """Where a method leaves its plan; each round writes it again."""
    return str(folder / f"{method} {radius}.npz")


def judge(options: argparse.Namespace, folder: Path, runs: list[dict]) -> dict:
    """The quality of the plans, at the radii where the exact one is there."""
    done = sorted({(run["method"], run["radius"]) for run in runs if "failed" not in run})
    judged = [
        {"method": method, "radius": radius, "plan": plan(folder, method, radius)}
        for method, radius in done
        if (EXACT, radius) in done
    ]
    if not judged:
        return {"quality": []}
    print("comparing the plans with exact values by brute force", flush=True)
    spec = {
        "queries": str(folder / "queries.npy"),
        "candidates": str(folder / "candidates.npy"),
        "judged": judged,
        "exact": EXACT,
        "alpha": ALPHA,
        "scale": SCALE,
        "sampled_queries": SAMPLED_QUERIES,
    }
    found = measured.run("quality.py", spec, folder / "quality", show=True)
    if "failed" in found:
        raise SystemExit(f"the comparison with exact values failed: {found['failed']}")
    return {name: found[name] for name in ("quality", "sampled_queries", "points")}


def in_a_line(run: dict) -> str:
    outcome = f"failed: {run['failed']}" if "failed" in run else report.in_short(run)
    return f"h = {run['radius']:<5g} {run['method']:13} {outcome}"


if __name__ == "__main__":
    main()
