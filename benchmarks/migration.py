"""From the public script's selection to this project's, one difference at a time: what each does to the probabilities.

    python benchmarks/migration.py [--project DIR --task TASK] [--reference CLONE]

prints a table: the total variation between the selection probabilities of each step and of the step before, how many
candidates have mass, and the effective size. Without --project the arrays are generated; --reference, a clone of
ZifanL/TSDS, adds the script itself with its approximate index.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import measured
import workload
from tsds_pipeline.core.compat import CompatConfig, assign, prefetch, select_compat
from tsds_pipeline.core.config import SelectionConfig
from tsds_pipeline.core.density import KernelDensity
from tsds_pipeline.core.row_stack import RowStack
from tsds_pipeline.core.selection import Selection, select
from tsds_pipeline.core.transport import effective_sample_size

OURS = SelectionConfig()


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        queries, candidates = arrays(options, Path(folder))
        print(f"{len(queries):,} queries, {len(candidates):,} candidates, {options.size} drawn\n")
        print("| step | variation | with mass | effective size |\n| --- | ---: | ---: | ---: |")
        before, config = None, CompatConfig(alpha=options.alpha)
        if options.reference:
            before = of_script(options, config, Path(folder))
            print(line("the script itself", before, None))
        for name, p in steps(queries, candidates, options.size, config):
            print(line(name, p, before), flush=True)
            before = p


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--project", type=Path, metavar="DIR", help="take the embeddings that this project has stored")
    add("--task", help="its task (the first)")
    add("--reference", type=Path, metavar="CLONE", help="a clone of the public script")
    add("--alpha", type=float, default=CompatConfig.alpha, help="of the script (0.5)")
    add("--size", type=int, default=50, help="rows to draw (50)")
    options = parser.parse_args()
    if options.project:
        tasks = workload.tasks_of(options.project)
        options.task = options.task or tasks[0]
        if options.task not in tasks:
            parser.error(f"--task {options.task}: the project has {', '.join(tasks)}")
    return options


def arrays(options: argparse.Namespace, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    if options.project:
        workload.load_project(folder, options.project, options.task)
    else:
        workload.generate(folder, 10_000, 50, 64, 0)
    return np.load(folder / "queries.npy"), np.load(folder / "candidates.npy")


def of_script(options: argparse.Namespace, config: CompatConfig, folder: Path) -> np.ndarray:
    settings = {
        "query_embedding_path": str(folder / "queries.npy"),
        "candidate_embedding_path": str(folder / "candidates.npy"),
        "output_folder": str(folder / "output"),
        "sample_size": options.size,
        "alpha": config.alpha,
        "C": config.distance_scale,
        "sigma": config.kernel_radius,
        "max_K": config.max_neighbors,
        "kde_K": config.kde_neighbors,
    }
    spec = {"clone": str(options.reference.resolve()), "plan": str(folder / "p.npz"), "settings": settings}
    done = measured.run("run_reference.py", spec, folder / "script")
    if "failed" in done:
        raise SystemExit(f"the script failed: {done['failed']}")
    plan, n = np.load(folder / "p.npz"), len(np.load(folder / "candidates.npy", mmap_mode="r"))
    return np.bincount(plan["candidate"], weights=plan["mass"], minlength=n)


def steps(
    queries: np.ndarray, candidates: np.ndarray, size: int, config: CompatConfig
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and probabilities: each differs from the one before in one thing."""
    script = select_compat(queries, candidates, size, config, 0)
    yield "its definition, searched exactly: `--compat`", script.probabilities
    queries, candidates = (rows / np.linalg.norm(rows, axis=1)[:, None] for rows in (queries, candidates))
    yield "vectors of length 1", select_compat(queries, candidates, size, config, 0).probabilities
    yield "densities over the whole pool", with_pool_densities(queries, candidates, config)

    def ours(**settings) -> Selection:
        return select(queries, candidates, size, SelectionConfig(with_replacement=True, **settings), 0)

    at_script = {"alpha": config.alpha, "kernel_radius": config.kernel_radius}
    yield (
        f"the optimum among the same {script.neighbors:,} neighbours",
        ours(max_neighbors=script.neighbors, **at_script).probabilities,
    )
    yield "no limit on neighbours", ours(**at_script).probabilities
    narrow = {"alpha": config.alpha, "kernel_radius": OURS.kernel_radius}
    yield f"kernel radius {OURS.kernel_radius:g}", ours(**narrow).probabilities
    last = ours()
    yield f"alpha {last.alpha:.3g}, as the size allows", last.probabilities


def with_pool_densities(queries: np.ndarray, candidates: np.ndarray, config: CompatConfig) -> np.ndarray:
    """As the script, but for the densities."""
    pool, rows = (RowStack.of(array, "vectors", normalize=False) for array in (candidates, queries))
    found = prefetch(rows, pool, config)
    densities = KernelDensity(pool, config.kernel_radius)(pool)
    mass = assign(found.distances, densities[found.indices], config.alpha, config.distance_scale).mass
    return np.bincount(found.indices.ravel(), weights=mass.ravel(), minlength=len(pool))


def line(name: str, p: np.ndarray, before: np.ndarray | None) -> str:
    variation = "" if before is None else f"{np.abs(p - before).sum() / 2:.3f}"
    return f"| {name} | {variation} | {np.count_nonzero(p):,} | {effective_sample_size(p):,.0f} |"


if __name__ == "__main__":
    main()
