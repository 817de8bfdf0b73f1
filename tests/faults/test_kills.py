"""Refreshes killed at any moment: nothing half-made is in place, and the next one ends where none was killed."""

import random
import shutil
import time

import pytest

from tests.faults.project import PHASES, assert_nothing_half_made, settled
from tests.forks import Fork


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
    assert settled(root) == undisturbed.results


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
        assert settled(root) == undisturbed.results


@pytest.mark.long
def test_the_demo_killed_at_any_moment(tmp_path):
    """With a real encoder and reports, from the writing of its corpus on."""
    first, root = tmp_path / "undisturbed" / "demo", tmp_path / "killed" / "demo"
    started = time.monotonic()
    demo = Fork(first, "demo", str(first))
    assert demo.wait(1200) == 0, demo.output
    seconds = time.monotonic() - started
    killed = 0
    for after in spread(random.Random(6), 10, seconds):
        demo = Fork(root, "demo", str(root))
        # Each starts with the import of the encoder, which is over at other times.
        time.sleep(after + 4)
        if demo.is_running():
            demo.kill()
            killed += 1
        if (root / "tsds.toml").exists():
            assert_nothing_half_made(root)
    demo = Fork(root, "demo", str(root))
    assert demo.wait(1200) == 0, demo.output
    assert killed >= 5
    assert settled(root) == settled(first)
