"""The kinds of change of DESIGN's table, each with the asset partitions that it makes again.

The project has S sources and T tasks (``tests.projects.make_project``).
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.projects import append_records, clustered, records, write_records

S, T = 3, 3
SOURCES = tuple(f"s{i}" for i in range(S))
TASKS = tuple(f"t{i}" for i in range(T))


@dataclass(frozen=True)
class Change:
    name: str
    make: Callable[[Path], None]
    expected: frozenset[str]
    """What has to be made again."""
    along: frozenset[str] = frozenset()
    """What the automation makes too, in the run of one that comes out unchanged."""
    touched: frozenset[str] | None = None
    """The assets whose results are others than before; by default those of what is expected."""

    @property
    def models(self) -> set[str]:
        """The SQL models that have to be made again."""
        touched = {node.partition("|")[0] for node in self.expected} if self.touched is None else self.touched
        models = {model for asset in touched for model in READ_BY.get(asset, ())}
        return models | ({"asset_costs"} if touched else set())


# The models that read each asset, themselves or through others; what everything costs is beside them.
READ_BY = {
    "candidate_corpus": ("stg_candidates", "near_duplicates", "quarantine_reasons"),
    "candidate_embeddings": ("stg_embeddings",),
    "kde_densities": ("stg_densities", "near_duplicates", "near_duplicate_shares"),
    "pool_summary": ("source_coverage",),
    "query_examples": ("stg_queries",),
    "selection_probabilities": (
        "stg_probabilities", "source_coverage", "near_duplicates", "near_duplicate_shares"
    ),
    "sampled_subset": (
        "stg_samples", "source_coverage", "near_duplicates", "near_duplicate_shares", "task_overlap"
    ),
    "selection_report": ("selection_drift",),
}  # fmt: skip
OF_TASKS = frozenset({"query_examples", "selection_probabilities", "sampled_subset", "selection_report"})
OF_SOURCES = frozenset({"candidate_corpus", "candidate_embeddings", "kde_densities", "pool_summary"})


def of_task(task: str, near: Iterable[str] = ()) -> set[str]:
    """Probabilities, sample and report of ``task``, and its neighbours in the sources ``near``."""
    ends = {f"selection_probabilities|{task}"} | sample(task)
    return ends | {f"query_neighbors|{source}|{task}" for source in near}


def sample(task: str) -> set[str]:
    return {f"sampled_subset|{task}", f"selection_report|{task}"}


def whole_task(task: str, sources: Iterable[str] = SOURCES) -> set[str]:
    return {f"query_examples|{task}", f"query_embeddings|{task}"} | of_task(task, sources)


def of_source(source: str) -> set[str]:
    return {f"{asset}|{source}" for asset in ("candidate_corpus", "candidate_embeddings", "faiss_index")}


def pool(sources: Iterable[str] = SOURCES) -> set[str]:
    return {f"kde_densities|{source}" for source in sources} | {"pool_summary"}


def every_task(near: Iterable[str] = ()) -> set[str]:
    return {node for task in TASKS for node in of_task(task, near)}


def everything() -> set[str]:
    nodes = {node for source in SOURCES for node in of_source(source)} | pool() | {"pool_map"}
    return nodes | {node for task in TASKS for node in whole_task(task)}


def set_selection(root: Path, line: str) -> None:
    with (root / "tsds.toml").open("a") as file:
        file.write(f"\n[tasks.t1]\n{line}\n")


def edit(root: Path, old: str, new: str) -> None:
    path = root / "tsds.toml"
    path.write_text(path.read_text().replace(old, new))


def without_reports(nodes: Iterable[str]) -> set[str]:
    """Those of ``nodes`` that there are in a project whose tasks want no report."""
    return {node for node in nodes if node.partition("|")[0] not in ("selection_report", "pool_map")}


def touch(root: Path) -> None:
    for path in [*(root / "sources").iterdir(), *(root / "tasks").glob("*/*"), root / "tsds.toml"]:
        path.touch()


def white_space(root: Path) -> None:
    path = root / "tasks" / "t0" / "query.jsonl"
    path.write_text(path.read_text().replace("text 3 of t0", "  text 3 of t0  ") + "\n")


def query_set(root: Path) -> None:
    append_records(root / "tasks" / "t0" / "query.jsonl", records("more", clustered(8, 500)[3:5]))


def lone_append(root: Path) -> None:
    lone = np.zeros((1, 12), np.float32)
    lone[0, 0] = 1
    append_records(root / "sources" / "s1.jsonl", records("lone", lone))


def near_append(root: Path) -> None:
    twin = clustered(40, 10)[:1] + np.float32(0.002)
    append_records(root / "sources" / "s1.jsonl", records("twin", twin))


def new_source(root: Path) -> None:
    write_records(root / "sources" / "s9.jsonl", records("s9", np.eye(12, dtype=np.float32)[3:6]))


def lost_source(root: Path) -> None:
    """Source s2 goes, whose records have no near-duplicate in another."""
    (root / "sources" / "s2.jsonl").unlink()


def kernel_radius(root: Path) -> None:
    edit(root, "kernel_radius = 0.1", "kernel_radius = 0.2")


def encoder(root: Path) -> None:
    edit(root, "[encoder]", "[encoder]\nnormalize = false")


def new_task(root: Path) -> None:
    write_records(root / "tasks" / "t9" / "query.jsonl", records("t9", clustered(5, 900)))


def lost_task(root: Path) -> None:
    shutil.rmtree(root / "tasks" / TASKS[-1])


REST = SOURCES[:-1]
CHANGES = [
    Change("nothing", lambda root: None, frozenset()),
    Change("touch", touch, frozenset()),
    Change("white space in a query set", white_space, frozenset({"query_examples|t0"}),
           along=frozenset({"query_embeddings|t0"}), touched=frozenset()),
    Change("query set", query_set, frozenset(whole_task("t0"))),
    Change("alpha of a task", lambda root: set_selection(root, "alpha = 0.3"), frozenset(of_task("t1"))),
    Change("seed of a task", lambda root: set_selection(root, "seed = 5"), frozenset(sample("t1"))),
    Change("size of a task", lambda root: set_selection(root, "size = 5"), frozenset(sample("t1"))),
    Change("append", lone_append, frozenset(of_source("s1") | {"pool_map"} | pool() | every_task(["s1"]))),
    Change("append of a near-duplicate", near_append,
           frozenset(of_source("s1") | {"pool_map"} | pool() | every_task(["s0", "s1"]))),
    Change("new source", new_source,
           frozenset(of_source("s9") | {"pool_map"} | pool([*SOURCES, "s9"]) | every_task(["s9"]))),
    Change("lost source", lost_source, frozenset(pool(REST) | {"pool_map"} | every_task()),
           touched=OF_SOURCES | OF_TASKS - {"query_examples"}),
    Change("kernel radius", kernel_radius, frozenset(pool() | every_task(SOURCES))),
    Change("new task", new_task, frozenset(whole_task("t9"))),
    Change("lost task", lost_task, frozenset(), touched=OF_TASKS),
    # The records and queries themselves are read again by nobody.
    Change("encoder", encoder, frozenset(
        node for node in everything() if not node.startswith(("candidate_corpus", "query_examples")))),
]  # fmt: skip
