"""`tsds dev` killed with all its processes in the midst of a wave: started again it loses nothing and ends alike."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from dagster._core.scheduler.instigation import SensorInstigatorData

from tests.dev_server import DevServer, dev_server
from tests.faults.conftest import Undisturbed
from tests.faults.project import assert_nothing_half_made, changed, from_nothing, settled
from tests.forks import Fork
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.project import Project

pytestmark = pytest.mark.long
YEAR = 365 * 24 * 3600


@pytest.fixture
def project(tmp_path) -> Path:
    root = tmp_path / "project"
    from_nothing(root)
    with (root / "tsds.toml").open("a") as file:
        file.write("[dagster]\ninterval = 1\n")
    refresh = Fork(root, "refresh")
    assert refresh.wait() == 0, refresh.output
    return root


def kill_all(root: Path) -> None:
    """Kill every process that works on the project in ``root``."""
    while found := [pid for pid in filter(str.isdigit, os.listdir("/proc")) if works_on(root, pid)]:
        for pid in found:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)


def works_on(root: Path, pid: str) -> bool:
    try:
        environment = Path("/proc", pid, "environ").read_bytes().split(b"\0")
        state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return f"TSDS_PROJECT={root}".encode() in environment and state != "Z"


def under_way(server: DevServer) -> list[dict]:
    return [run for run in server.runs() if run["status"] in ("STARTING", "STARTED")]


@pytest.mark.parametrize("one_run_above", [4, 1000], ids=["one run", "a run each"])
@pytest.mark.parametrize("seed", range(2))
def test_a_wave_goes_on_after_a_kill(undisturbed: Undisturbed, project: Path, seed, one_run_above):
    rng = random.Random(seed)
    with (project / "tsds.toml").open("a") as file:
        file.write(f"one_run_above = {one_run_above}\n")
    with dev_server(project) as server:
        changed(project)
        server.wait_for(lambda: under_way(server), "a run")
        # One run may have made all of it three seconds after it was asked for.
        time.sleep(rng.uniform(0, 1.5 if one_run_above == 4 else 6))
        before = server.runs()
        kill_all(project)
        os.kill(server.process, signal.SIGKILL)
    assert_nothing_half_made(project)
    with dev_server(project) as server:
        server.wait_for(server.is_at_rest, "the wave", 300)
        made = server.materialized(server.made_after(before))
    assert settled(project) == undisturbed.results
    assert len(made) == len(set(made)), "nothing was made twice"


def test_sensors_go_on_where_the_clock_was_set_back(undisturbed: Undisturbed, project: Path):
    """As after a start with a clock that was a year ahead."""
    with dev_server(project) as server:
        server.wait_for(server.is_at_rest, "rest")
        time.sleep(5)
    with project_instance(Project.load(project)) as instance:
        states = [
            one
            for one in instance.all_instigator_state()
            if isinstance(one.instigator_data, SensorInstigatorData)
        ]
        assert states
        for state in states:
            ahead = state.instigator_data._replace(last_tick_start_timestamp=time.time() + YEAR)
            instance.update_instigator_state(state.with_data(ahead))
    changed(project)
    with dev_server(project) as server:
        server.wait_for(server.is_at_rest, "the wave", 300)
    assert settled(project) == undisturbed.results


def test_a_refresh_beside_a_daemon_that_makes_the_same(undisturbed: Undisturbed, project: Path):
    with dev_server(project) as server:
        changed(project)
        server.wait_for(lambda: under_way(server), "a run")
        refresh = Fork(project, "refresh")
        assert refresh.wait() == 0, refresh.output
        server.wait_for(server.is_at_rest, "rest", 300)
        made = server.materialized(server.runs())
    assert settled(project) == undisturbed.results
    assert all(made.count(node) <= 2 for node in made), "once at first, and once after the change"
