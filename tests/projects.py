"""Small projects with precomputed vectors, for tests that are not about encoding."""

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from tsds_pipeline.graph import is_model, node_path
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.orchestration.refresh import Refresh, Step
from tsds_pipeline.project import Project
from tsds_pipeline.storage import Draft, read_artifact, write_artifact

DIM = 12
SETTINGS = """
[encoder]
kind = "precomputed"

[pool]
kernel_radius = 0.1

[selection]
alpha = 0.6
size = 12
report = false
"""
A_RUN_EACH = "\n[dagster]\none_run_above = 1000\n"
"""Settings with which no partitions share a run, but those that follow each other."""
WITH_REPORTS = SETTINGS.replace("report = false", "report = true")


def clustered(n: int, seed: int, clusters: int = 5) -> np.ndarray:
    """Unit vectors around a few centres that all seeds share, with a copy and a near-duplicate among them."""
    centres = np.random.default_rng(0).normal(size=(clusters, DIM))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(clusters, size=n)] + 0.4 * rng.normal(size=(n, DIM))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    vectors[1] = vectors[0]
    vectors[2] = vectors[0] + 0.005
    return vectors.astype(np.float32)


def records(key: str, vectors: np.ndarray) -> list[dict]:
    """A record for each vector; its id and text name its place."""
    return [
        {"id": f"{key}-{i}", "text": f"text {i} of {key}", "label": f"l{i % 3}", "embedding": row.tolist()}
        for i, row in enumerate(vectors)
    ]


def as_jsonl(rows: Sequence[Mapping]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_records(path: Path, rows: Sequence[Mapping]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_jsonl(rows), "utf-8")


def append_records(path: Path, rows: Sequence[Mapping]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(as_jsonl(rows))


def make_project(
    root: Path, sources: int = 3, tasks: int = 2, n: int = 40, settings: str = SETTINGS
) -> Project:
    """A project with ``sources`` of ``n`` records and ``tasks`` of seven queries each."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "tsds.toml").write_text(settings)
    for s in range(sources):
        write_records(root / "sources" / f"s{s}.jsonl", records(f"s{s}", clustered(n, 10 + s)))
    for t in range(tasks):
        write_records(root / "tasks" / f"t{t}" / "query.jsonl", records(f"t{t}", clustered(7, 100 + t)))
    return Project.load(root)


def refreshed(root: Path, *, models: bool = False, **wanted: str) -> list[Step]:
    """Bring the project in ``root`` up to date, its SQL models only where they count (seconds); its steps."""
    project = Project.load(root)
    if not project.given_dagster_home() and not project.dagster_home.exists():
        shutil.copytree(_new_instance(), project.dagster_home)
    work = Refresh(project, **wanted)
    work.nodes = [node for node in work.nodes if models or not is_model(node)]
    return list(work.steps())


@functools.cache
def _new_instance() -> Path:
    """The files of a Dagster instance in which nothing was done yet, which take half a second to make."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    (Path(folder.name) / "tsds.toml").touch()
    project = Project.load(folder.name)
    with project_instance(project):
        pass
    return project.dagster_home


def made(steps: Sequence[Step]) -> list[str]:
    """The nodes of the pipeline that were made, each as often as it was; nothing may have failed."""
    assert [(step.node, step.reasons) for step in steps if step.outcome in ("failed", "waiting")] == []
    return [step.node for step in steps if step.outcome == "made" and not is_model(step.node)]


def made_models(steps: Sequence[Step]) -> list[str]:
    """The SQL models that were made, each as often as it was."""
    return [step.node for step in steps if step.outcome == "made" and is_model(step.node)]


# What tells when something was made, or how often.
_TIMES = (
    "embedding_cache/",
    "materializations/",
    "selection_history/",
    "asset_costs.parquet",
    "selection_drift.parquet",
    "warehouse.duckdb",
    ".lock",
    "-hashes.json",
    ".attempt.json",
)


def bytes_of_results(root: Path) -> dict[str, bytes]:
    """All files in storage/ and exports/ of the project in ``root`` that are to be the same however they came to be."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder in ("storage", "exports")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and not any(part in path.as_posix() for part in (*_TIMES, ".damaged"))
    }


def tampered(root: Path, node: str, **columns: pl.Expr) -> None:
    """Replace columns of what is stored for ``node``, as no asset would."""
    artifact = read_artifact(node_path(root / "storage", node))
    payloads = {"index": artifact.index} if "index" in artifact.header.payloads else {}
    write_artifact(artifact.path, Draft(artifact.frame.with_columns(**columns), artifact.header, payloads))
