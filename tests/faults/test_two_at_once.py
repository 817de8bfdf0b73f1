"""Two processes that work on one project: the second is told who is first, and neither harms what the other makes."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.commands import tsds
from tests.faults.conftest import Undisturbed
from tests.faults.project import changed, from_nothing, settled
from tests.forks import Fork
from tsds_pipeline.lock import is_refreshing
from tsds_pipeline.project import Project


def started(root: Path) -> Fork:
    """A refresh that has begun."""
    refresh, until = Fork(root, "refresh"), time.monotonic() + 60
    while not is_refreshing(Project.load(root)) and time.monotonic() < until:
        time.sleep(0.01)
    return refresh


def test_whatever_would_write_is_refused_and_whatever_reads_is_not(undisturbed: Undisturbed, tmp_path):
    root = Path(shutil.copytree(undisturbed.root, tmp_path / "project"))
    shutil.rmtree(root / "storage" / "query_neighbors")
    first = started(root)
    os.kill(first.pid, signal.SIGSTOP)
    for command in (["refresh"], ["redraw", "t0"], ["backfill", "--task", "t0"], ["gc"]):
        second = tsds("-p", root, *command)
        assert second.exit_code == 1
        assert second.stderr == (
            f"error: {root}: another refresh is under way (process {first.pid}): wait until it has ended\n"
        )
    for command in (["status"], ["show", "t0"], ["sql", "SELECT count(*) FROM stg_samples"]):
        assert tsds("-p", root, *command).exit_code == 0
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 0, first.output
    assert settled(root) == undisturbed.results


def test_the_lock_of_a_killed_process_is_none(undisturbed: Undisturbed, tmp_path):
    root = tmp_path / "project"
    from_nothing(root)
    first = started(root)
    first.kill()
    assert (root / "storage" / ".lock").read_text() == str(first.pid), "its name is there still"
    second = Fork(root, "refresh")
    assert second.wait() == 0, second.output
    assert settled(root) == undisturbed.first


@pytest.mark.long
def test_many_that_start_in_one_instant(undisturbed: Undisturbed, tmp_path):
    root = tmp_path / "project"
    for phase in (from_nothing, changed):
        phase(root)
        many = [Fork(root, "refresh") for _ in range(6)]
        refused = [one for one in many if one.wait()]
        assert len(refused) < len(many), "one did it"
        assert all("another refresh is under way" in one.output for one in refused), [
            one.output for one in refused
        ]
    assert settled(root) == undisturbed.results
