"""Clocks that are wrong: nothing is made twice, nothing is missed, and nothing waits for a time that is years away."""

import glob
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.definitions.sensor_definition import SensorType
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData
from dagster._daemon.types import DaemonHeartbeat

from tests.commands import typed
from tests.faults.conftest import Undisturbed
from tests.faults.project import changed, from_nothing, settled
from tests.forks import Fork
from tsds_pipeline.definitions import definitions
from tsds_pipeline.lock import dev_lock
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.project import Project

YEAR = 365 * 24 * 3600


@pytest.fixture
def project(undisturbed: Undisturbed, tmp_path) -> Path:
    return Path(shutil.copytree(undisturbed.root, tmp_path / "project"))


def refreshed(root: Path, first: Callable[[], None] | None = None) -> str:
    refresh = Fork(root, "refresh", first=first)
    assert refresh.wait() == 0, refresh.output
    return refresh.output


def test_times_of_files_decide_nothing(undisturbed, project):
    for years in (-30, 1):
        for path in project.rglob("*"):
            os.utime(path, (when := time.time() + years * YEAR, when))
        assert refreshed(project).startswith("0 made, 15 fresh in "), (
            "no group before it in which anything was made"
        )
    queries = project / "tasks" / "t0" / "query.jsonl"
    content = queries.read_bytes()
    fewer = b"".join(content.splitlines(keepends=True)[:-1])
    for changed_to in (fewer, content):
        queries.write_bytes(changed_to)
        os.utime(queries, (0, 0))
        assert "query_files[t0] changed" in refreshed(project)
    assert settled(project) == undisturbed.results


def a_year_ahead() -> None:
    shift_time(YEAR)


def a_year_back() -> None:
    shift_time(-YEAR)


def shift_time(seconds: int) -> None:
    """Let this process see another time than the file system does."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + seconds * 10**9


@pytest.mark.long
def test_the_clock_jumps_there_and_back(undisturbed, tmp_path):
    root = tmp_path / "project"
    from_nothing(root)
    assert "15 made, 0 fresh" in refreshed(root, a_year_ahead)
    assert refreshed(root).startswith("0 made, 15 fresh")
    assert refreshed(root, a_year_back).startswith("0 made, 15 fresh")
    changed(root)
    assert "source_files[s1] changed" in refreshed(root, a_year_back)
    assert refreshed(root, a_year_ahead).startswith("0 made, 15 fresh")
    assert settled(root) == undisturbed.results


@pytest.mark.long
def test_the_whole_process_sees_another_time(undisturbed, tmp_path):
    """Dagster, SQLite and Rust too, as `faketime` makes it."""
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not found:
        pytest.skip("there is no libfaketime (on Debian and Ubuntu: apt install faketime)")
    root = tmp_path / "project"

    def refreshed_at(jump: str) -> str:
        done = typed("-p", root, "refresh", LD_PRELOAD=found[0], FAKETIME=jump, NO_FAKE_STAT="1")
        assert done.returncode == 0, done.stderr
        return done.stdout

    from_nothing(root)
    assert "15 made, 0 fresh" in refreshed_at("+400d")
    changed(root)
    assert "source_files[s1] changed" in refreshed_at("-400d")
    assert refreshed(root).startswith("0 made, 15 fresh")
    assert settled(root) == undisturbed.results


def beat(instance: dg.DagsterInstance, when: float) -> None:
    """Let a daemon have told of itself at that time."""
    instance.add_daemon_heartbeat(DaemonHeartbeat(when, "SENSOR", "a daemon", []))


def started_run(root: Path, instance: dg.DagsterInstance) -> str:
    """A run of a daemon that is under way."""
    return instance.create_run_for_job(
        definitions(str(root)).resolve_implicit_global_asset_job_def(),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "t0"},
        asset_selection=frozenset([dg.AssetKey("query_embeddings")]),
    ).run_id


def test_a_dead_daemon_of_the_future_is_waited_for_by_nobody(project):
    """It told of itself before the clock was set back."""
    with project_instance(Project.load(project)) as instance:
        beat(instance, time.time() + YEAR)
        run = started_run(project, instance)
    assert refreshed(project).startswith("0 made")
    with project_instance(Project.load(project)) as instance:
        assert instance.get_run_by_id(run).status == dg.DagsterRunStatus.FAILURE


def test_a_living_daemon_of_the_past_keeps_its_runs(project):
    """It told of itself before the clock was set forward, and will in half a minute. Its lock says that it lives."""
    loaded = Project.load(project)
    with dev_lock(loaded), project_instance(loaded) as instance:
        beat(instance, time.time() - YEAR)
        run = started_run(project, instance)
        refresh = Fork(project, "refresh")
        until = time.monotonic() + 60
        while "waiting for runs" not in refresh.output and time.monotonic() < until and refresh.is_running():
            time.sleep(0.05)
        assert refresh.output.startswith("waiting for runs of the automation that are under way"), (
            refresh.output
        )
        stored = instance.get_run_by_id(run)
        assert stored.status == dg.DagsterRunStatus.STARTED
        instance.report_run_canceled(stored, "the test is over")
        assert refresh.wait() == 0


def test_sensors_tick_again_where_the_clock_was_set_back(project):
    """Dagster's own would wait until the time of their last tick comes again."""
    location = GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name="tsds")
    origin = RemoteInstigatorOrigin(
        repository_origin=RemoteRepositoryOrigin(code_location_origin=location, repository_name="r"),
        instigator_name="project_inputs",
    )
    future = SensorInstigatorData(
        last_tick_start_timestamp=time.time() + YEAR, cursor="the cursor", sensor_type=SensorType.STANDARD
    )
    with project_instance(Project.load(project)) as instance:
        instance.add_instigator_state(
            InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, future)
        )
    refreshed(project)
    with project_instance(Project.load(project)) as instance:
        (state,) = instance.all_instigator_state()
    assert state.instigator_data.last_tick_start_timestamp <= time.time()
    assert (state.status, state.instigator_data.cursor) == (InstigatorStatus.RUNNING, "the cursor")
