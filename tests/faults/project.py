"""A small project that is made and then changed, and what holds whatever goes wrong with it meanwhile."""

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl

from tests.commands import tsds
from tests.projects import append_records, bytes_of_results, clustered, make_project, records
from tsds_pipeline.damage import HASHES, find_damage
from tsds_pipeline.graph import nodes, observe
from tsds_pipeline.project import Project
from tsds_pipeline.stages.export import MANIFEST
from tsds_pipeline.status import status


def from_nothing(root: Path) -> None:
    """Make the project."""
    make_project(root, sources=2, tasks=1, n=20)


def changed(root: Path) -> None:
    """Change a source and a task, so that there are results to be replaced."""
    append_records(root / "sources" / "s1.jsonl", records("more", clustered(5, 700)))
    append_records(root / "tasks" / "t0" / "query.jsonl", records("more", clustered(5, 701)))


PHASES: tuple[Callable[[Path], None], ...] = (from_nothing, changed)


def assert_nothing_half_made(root: Path) -> None:
    """Whatever has its final name is whole, Dagster's databases too."""
    (root / "storage" / HASHES).unlink(missing_ok=True)
    assert find_damage(root / "storage", nodes(observe(Project.load(root)))) == {}
    for path in [*root.glob("storage/**/*.parquet"), *root.glob("exports/**/*.parquet")]:
        pl.read_parquet(path)
    for path in root.rglob("*.json"):
        json.loads(path.read_text("utf-8"))
    for path in root.glob("exports/*/*.jsonl"):
        assert [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for path in root.glob("storage/sampled_subset/*.parquet"):
        assert (root / "exports" / path.stem / MANIFEST).exists()
    for path in root.glob(".dagster/**/*.db"):
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def settled(root: Path) -> dict[str, bytes]:
    """The bytes of results, all of them fresh, without what is half-written: `tsds gc` deletes that an hour later."""
    assert {node.state for node in status(observe(Project.load(root)))} == {"fresh"}
    assert not list(root.rglob("*.damaged"))
    long_ago = time.time() - 7200
    for path in root.glob("storage/**/*"):
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    assert tsds("-p", root, "gc").exit_code == 0
    return bytes_of_results(root)
