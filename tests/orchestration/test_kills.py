"""Refreshes killed at any moment: nothing half-made is in place, and the next one ends where none was killed."""

import json
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from tests.commands import tsds
from tests.forks import Fork
from tests.projects import append_records, bytes_of_results, clustered, make_project, records
from tsds_pipeline.damage import HASHES, find_damage
from tsds_pipeline.graph import nodes, observe
from tsds_pipeline.project import Project
from tsds_pipeline.stages.export import MANIFEST
from tsds_pipeline.status import status


def from_nothing(root: Path) -> None:
    make_project(root, sources=2, tasks=1, n=20)


def replaced(root: Path) -> None:
    """Change a source and a task, so that there are results to be replaced."""
    append_records(root / "sources" / "s1.jsonl", records("more", clustered(5, 700)))
    append_records(root / "tasks" / "t0" / "query.jsonl", records("more", clustered(5, 701)))


PHASES: tuple[Callable[[Path], None], ...] = (from_nothing, replaced)


class Undisturbed(NamedTuple):
    results: dict[str, bytes]
    changes: list[int]
    """How many each phase makes."""
    seconds: list[float]
    """How long each takes."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Undisturbed:
    root, changes, seconds = tmp_path_factory.mktemp("undisturbed") / "project", [], []
    for change in PHASES:
        change(root)
        started = time.monotonic()
        refresh = Fork(root, "refresh")
        assert refresh.wait() == 0, refresh.output
        changes.append(refresh.changes)
        seconds.append(time.monotonic() - started)
    return Undisturbed(ended(root), changes, seconds)


def assert_nothing_half_made(root: Path) -> None:
    """Whatever has its final name is whole."""
    (root / "storage" / HASHES).unlink(missing_ok=True)
    assert find_damage(root / "storage", nodes(observe(Project.load(root)))) == {}
    for path in [*root.glob("storage/**/*.parquet"), *root.glob("exports/**/*.parquet")]:
        pl.read_parquet(path)
    for path in root.rglob("*.json"):
        json.loads(path.read_text("utf-8"))
    for path in root.glob("exports/*/*.jsonl"):
        assert [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for path in root.glob("exports/*"):
        assert (path / MANIFEST).exists() or not list(
            root.glob(f"storage/sampled_subset/{path.name}.parquet")
        )
    for path in root.glob(".dagster/**/*.db"):
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def ended(root: Path) -> dict[str, bytes]:
    """The bytes of results, all of them fresh, once `tsds gc` took away what the killed left: an hour later it does."""
    assert {node.state for node in status(observe(Project.load(root)))} == {"fresh"}
    assert not list(root.rglob("*.damaged"))
    long_ago = time.time() - 7200
    for path in root.glob("storage/**/*"):
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    assert tsds("-p", root, "gc").exit_code == 0
    return bytes_of_results(root)


def spread(rng: random.Random, kills: int, length: float) -> list[float]:
    """How long each of ``kills`` lets a refresh live, so that all of them lie anywhere in ``length``."""
    points = sorted(rng.uniform(0, length) for _ in range(kills))
    return [after - before for before, after in zip([0, *points], points, strict=False)]


def test_killed_before_any_of_its_changes(undisturbed, tmp_path):
    rng, root, killed = random.Random(1), tmp_path / "project", 0
    for change, changes in zip(PHASES, undisturbed.changes, strict=True):
        change(root)
        for after in spread(rng, 5, changes):
            refresh = Fork(root, "refresh", fatal=int(after) + 1)
            killed += refresh.wait() == -9
            assert_nothing_half_made(root)
        refresh = Fork(root, "refresh")
        assert refresh.wait() == 0, refresh.output
    assert killed == 10
    assert ended(root) == undisturbed.results


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_any_moment(undisturbed, tmp_path, seed):
    """Also in the midst of a write, of a commit of SQLite, of a computation: by the clock, from outside."""
    rng, root, killed = random.Random(seed), tmp_path / "project", 0
    while killed < 12:
        shutil.rmtree(root, ignore_errors=True)
        for change, seconds in zip(PHASES, undisturbed.seconds, strict=True):
            change(root)
            refresh = Fork(root, "refresh")
            for after in spread(rng, 6, seconds):
                time.sleep(after)
                if refresh.is_running():
                    refresh.kill()
                    killed += 1
                assert_nothing_half_made(root)
                refresh = Fork(root, "refresh")
            assert refresh.wait() == 0, refresh.output
        assert ended(root) == undisturbed.results
