"""Refreshes killed at random moments: nothing half-made is in place, and the next one ends where none was killed."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest

from tests.commands import TYPED, typed
from tests.projects import append_records, bytes_of_results, clustered, make_project, records
from tsds_pipeline.damage import HASHES, find_damage
from tsds_pipeline.graph import nodes, observe
from tsds_pipeline.project import Project

# Of so many partitions a killed refresh makes some more, so that a few kills are spread over all of them.
LONGEST = 2.5


def start_from(root: Path) -> Path:
    make_project(root, sources=2, tasks=2)
    return root


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    root = start_from(tmp_path_factory.mktemp("undisturbed") / "project")
    for change in (lambda _: None, disturb):
        change(root)
        done = typed("-p", root, "refresh")
        assert done.returncode == 0, done.stderr
    return bytes_of_results(root)


def disturb(root: Path) -> None:
    """Change a source and a task, so that there are results to be replaced."""
    append_records(root / "sources" / "s1.jsonl", records("more", clustered(5, 700)))
    append_records(root / "tasks" / "t0" / "query.jsonl", records("more", clustered(5, 701)))


def kill_a_refresh(root: Path, rng: random.Random) -> bool:
    """Start a refresh and kill it some time after its first change of storage/; whether it was still running."""
    before = traces(root)
    process = subprocess.Popen(
        [*TYPED, "-p", str(root), "refresh"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and traces(root) == before:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, LONGEST))
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def traces(root: Path) -> set[tuple[str, int]]:
    found = set()
    for path in (root / "storage").rglob("*"):
        try:
            found.add((path.name, path.stat().st_mtime_ns))
        except FileNotFoundError:
            continue
    return found


def assert_nothing_half_made(root: Path) -> None:
    (root / "storage" / HASHES).unlink(missing_ok=True)
    assert find_damage(root / "storage", nodes(observe(Project.load(root)))) == {}
    for path in [*root.glob("storage/**/*.parquet"), *root.glob("exports/**/*.parquet")]:
        pl.read_parquet(path)


@pytest.mark.parametrize(
    ("seed", "kills"),
    [pytest.param(seed, 10, marks=pytest.mark.long) for seed in (1, 2, 3, 4, 5)],
)
def test_the_next_refresh_ends_where_none_was_killed(undisturbed, tmp_path, seed, kills):
    rng, root, killed, rounds = random.Random(seed), tmp_path / "project", 0, 0
    while killed < kills:
        rounds += 1
        shutil.rmtree(root, ignore_errors=True)
        start_from(root)
        for change in (lambda _: None, disturb):
            change(root)
            while kill_a_refresh(root, rng):
                killed += 1
                assert_nothing_half_made(root)
        assert bytes_of_results(root) == undisturbed
        assert not list(root.rglob("*.damaged"))
    assert rounds < kills, "some were killed"
