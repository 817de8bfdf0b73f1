"""Seconds per stage and peak memory of the whole pipeline on a folder of real data.

    python benchmarks/full_run.py DATA PROJECT [--dtype bfloat16]

DATA has sources/*.jsonl.gz and tasks/*/query.jsonl.gz; PROJECT becomes a project on them (one that is there is
brought up to date). Prints a Markdown table: per asset the partitions made and the seconds inside it, and what is
left of the wall time, which is Dagster's. Texts that an earlier run encoded are not encoded again.
"""

import argparse
import os
import platform
import resource
import time
from collections import Counter
from pathlib import Path

import dagster as dg

from tsds_pipeline.graph import CODE_VERSIONS
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.orchestration.refresh import Refresh
from tsds_pipeline.project import Project


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("project", type=Path)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    project = link_data(options.data.resolve(), options.project, options.dtype)
    before = {name: seconds(project, name) for name in CODE_VERSIONS}
    started = time.perf_counter()
    made = Counter(step.node.partition("|")[0] for step in steps(project))
    wall = time.perf_counter() - started
    inside = {name: seconds(project, name) - before[name] for name in CODE_VERSIONS}
    print_table(made, inside, wall)


def link_data(data: Path, root: Path, dtype: str) -> Project:
    """A project in ``root`` whose files are links to those of ``data``."""
    for path in [*data.glob("sources/*.jsonl.gz"), *data.glob("tasks/*/query.jsonl.gz")]:
        link = root / path.relative_to(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path)
    (root / "tsds.toml").write_text(f'[encoder]\ndtype = "{dtype}"\n')
    return Project.load(root)


def steps(project: Project):
    """The steps that made something; a failure ends the benchmark."""
    for step in Refresh(project).steps():
        if step.outcome in ("failed", "waiting"):
            raise SystemExit(f"{step.node}: {step.reasons}")
        if step.outcome == "made":
            print(f"{step.node} {step.seconds:.1f} s", flush=True)
            yield step


def seconds(project: Project, name: str) -> float:
    """Seconds spent inside the asset ``name``, over all materialisations so far."""
    with project_instance(project) as instance:
        found = instance.fetch_materializations(dg.AssetKey(name), limit=10_000).records
        return sum(float(record.asset_materialization.metadata["seconds"].value) for record in found)


def print_table(made: Counter, inside: dict[str, float], wall: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{os.cpu_count()} processors ({platform.machine()}), Python {platform.python_version()}\n")
    print("| stage | partitions made | seconds |\n| --- | ---: | ---: |")
    for name in CODE_VERSIONS:
        print(f"| {name} | {made[name]} | {inside[name]:.1f} |")
    print(f"| Dagster: runs, events, I/O | | {wall - sum(inside.values()):.1f} |")
    print(f"| all | {made.total()} | {wall:.1f} |")
    print(f"\nPeak memory {peak:.2f} GiB.")


if __name__ == "__main__":
    main()
