"""What each kind of change makes again, against the least that could be, and how long `tsds refresh` takes.

    python benchmarks/changes.py DEMO

DEMO is a project that `tsds demo` made; the changes are tried one after another on copies of it. The least is
counted from the numbers of sources and tasks, and from which sources' densities really moved (their tables are
compared). Seconds are those of the whole command, with Python's start and the imports. Prints a Markdown table.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

NEW = "Ravens in the harbour counted seventeen lamps before breakfast."


@dataclass(frozen=True)
class Size:
    """Of the project before the change, and how many sources' densities the change moved, its own apart."""

    sources: int
    tasks: int
    moved: int


@dataclass(frozen=True)
class Change:
    name: str
    make: Callable[[Path], object]
    least: Callable[[Size], int]


def append(root: Path, source: str, text: str) -> None:
    with (root / "sources" / f"{source}.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "text": text, "module": "new", "kind": "function"}) + "\n")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text, (path, old)
    path.write_text(text.replace(old, new, 1), "utf-8")


def queries(root: Path, task: str) -> Path:
    return root / "tasks" / task / "query.jsonl"


def touch(root: Path) -> None:
    for path in [*root.glob("sources/*"), *root.glob("tasks/*/*"), root / "tsds.toml"]:
        path.touch()


def add_query(root: Path) -> None:
    with queries(root, "graphs").open("a") as file:
        file.write(json.dumps({"id": "new", "text": "Shortest paths between all pairs of nodes."}) + "\n")


def add_setting(root: Path, table: str, line: str) -> None:
    """A key of ``table``, which may be there already, in tsds.toml."""
    path = root / "tsds.toml"
    text = path.read_text("utf-8")
    if f"[{table}]" not in text:
        text += f"\n[{table}]\n"
    key = line.split(" = ")[0]
    head, _, tail = text.partition(f"[{table}]\n")
    own, bracket, rest = tail.partition("\n[")
    kept = "\n".join(old for old in own.splitlines() if old.split(" = ")[0].strip() != key)
    path.write_text(f"{head}[{table}]\n{line}\n{kept}{bracket}{rest}", "utf-8")


def copy_of_another(root: Path) -> None:
    """A text of numpy comes into networkx."""
    append(root, "networkx", json.loads((root / "sources" / "numpy.jsonl").open().readline())["text"])


def new_source(root: Path) -> None:
    (root / "sources" / "ravens.jsonl").write_text(json.dumps({"id": "new", "text": NEW}) + "\n", "utf-8")


def new_task(root: Path) -> None:
    (root / "tasks" / "again").mkdir()
    shutil.copy(queries(root, "graphs"), queries(root, "again"))


def one_source(size: Size) -> int:
    """A changed source: its chain, all densities, pool, map, neighbours where densities moved, samples, reports."""
    return 3 + size.sources + 2 + size.tasks * (1 + size.moved + 3)


CHANGES = [
    Change("nothing", lambda root: None, lambda size: 0),
    Change("`touch` of every file", touch, lambda size: 0),
    Change(
        "white space in a query set",
        lambda root: replace(queries(root, "graphs"), '"text": "', '"text": "  '),
        lambda size: 1,
    ),
    Change("one task's query set", add_query, lambda size: 2 + size.sources + 3),
    Change("one task's alpha", lambda root: add_setting(root, "tasks.graphs", "alpha = 0.3"), lambda size: 3),
    Change("one task's seed", lambda root: add_setting(root, "tasks.graphs", "seed = 7"), lambda size: 2),
    Change("append to one source", lambda root: append(root, "networkx", NEW), one_source),
    Change("append of a text that another source has", copy_of_another, one_source),
    Change(
        "a source added", new_source, lambda size: one_source(Size(size.sources + 1, size.tasks, size.moved))
    ),
    Change(
        "a source removed",
        lambda root: (root / "sources" / "websockets.jsonl").unlink(),
        lambda size: size.sources - 1 + 2 + size.tasks * (size.moved + 3),
    ),
    Change(
        "kernel radius",
        lambda root: add_setting(root, "pool", "kernel_radius = 0.2"),
        lambda size: size.sources + 1 + size.tasks * (size.sources + 3),
    ),
    Change("a task added", new_task, lambda size: 2 + size.sources + 3),
    Change("a task removed", lambda root: shutil.rmtree(root / "tasks" / "graphs"), lambda size: 0),
    Change(
        "encoder (max_tokens)",
        lambda root: add_setting(root, "encoder", "max_tokens = 64"),
        lambda size: 3 * size.sources + 2 + size.tasks * (1 + size.sources + 3),
    ),
]


def densities(root: Path) -> dict[str, pl.DataFrame]:
    return {path.stem: pl.read_parquet(path) for path in (root / "storage/kde_densities").glob("*.parquet")}


def refresh(root: Path) -> tuple[int, float]:
    """(partitions made, seconds) of `tsds refresh`."""
    started = time.perf_counter()
    command = [Path(sys.executable).with_name("tsds"), "-p", root, "refresh"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    return int(re.findall(r"^(\d+) made, ", done.stdout, re.MULTILINE)[-1]), seconds


def moved(before: dict[str, pl.DataFrame], after: dict[str, pl.DataFrame], own: set[str]) -> int:
    """The number of sources, without the changed ones, whose densities are not what they were."""
    shared = before.keys() & after.keys() - own
    return sum(not before[source].equals(after[source]) for source in shared)


def changed_sources(one: Path, other: Path) -> set[str]:
    files = {path.name for root in (one, other) for path in (root / "sources").iterdir()}
    texts = {name: [p.read_bytes() if (p := root / "sources" / name).exists() else b"" for root in (one, other)]
             for name in files}  # fmt: skip
    return {name.partition(".")[0] for name, (before, after) in texts.items() if before != after}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("demo", type=Path)
    demo = parser.parse_args().demo.resolve()
    refresh(demo)
    sources, tasks = (len(list((demo / name).iterdir())) for name in ("sources", "tasks"))
    print(
        f"{sources} sources, {tasks} tasks\n\n| change | made | least | seconds |\n| --- | ---: | ---: | ---: |"
    )
    before = densities(demo)
    for change in CHANGES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(shutil.copytree(demo, Path(folder) / "demo"))
            change.make(root)
            made, seconds = refresh(root)
            size = Size(sources, tasks, moved(before, densities(root), changed_sources(demo, root)))
            print(f"| {change.name} | {made} | {change.least(size)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
