"""Which Dagster instance a project works in, and what a refresh does about the runs that it finds there.

With PostgreSQL and a code server the same is run in tests/infra.
"""

import json
import os
import shutil
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    RemoteInstigatorOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from tests.commands import tsds
from tests.infra.postgres import free_port
from tests.orchestration.runs import PLACE, a_run
from tests.projects import make_project, refreshed
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.orchestration.instances import end_dead_runs, is_asking, project_instance
from tsds_pipeline.orchestration.launcher import CodeServerRunLauncher, may_be_alive
from tsds_pipeline.project import DAGSTER_YAML, Project

OURS = "{run_launcher: {module: tsds_pipeline.orchestration.launcher, class: CodeServerRunLauncher}}"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A project that is up to date."""
    root = tmp_path_factory.mktemp("instances") / "project"
    make_project(root, sources=1, tasks=2, n=20)
    refreshed(root)
    return root


@pytest.fixture
def home(tmp_path) -> Path:
    """An instance elsewhere."""
    folder = tmp_path / "home"
    folder.mkdir()
    settings = yaml.safe_load(DAGSTER_YAML.format(runs=2)) | yaml.safe_load(OURS)
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return folder


def given(monkeypatch, root, home) -> Project:
    monkeypatch.setenv("TSDS_PROJECT", str(root))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return Project.load(root)


def test_the_environment_names_the_instance_of_its_project(root, home, monkeypatch):
    project = given(monkeypatch, root, home)
    with project_instance(project) as instance:
        assert Path(instance.root_directory) == home
        assert isinstance(instance.run_launcher, CodeServerRunLauncher)
    assert os.environ["DAGSTER_HOME"] == str(home)


def test_elsewhere_it_is_the_project_s_own(root, home, tmp_path, monkeypatch):
    """An instance that projects share would take the tasks of one for those of the other."""
    other = make_project(tmp_path / "other", 1, 1)
    given(monkeypatch, root, home)
    with project_instance(other) as instance:
        assert Path(instance.root_directory) == other.dagster_home
    monkeypatch.delenv("TSDS_PROJECT")
    with project_instance(Project.load(root)) as instance:
        assert Path(instance.root_directory) == root / ".dagster"
    assert os.environ["DAGSTER_HOME"] == str(home)


def test_without_it_the_environment_stays_as_it_was(root):
    with project_instance(Project.load(root)):
        assert os.environ["DAGSTER_HOME"] == str(root / ".dagster")
    assert "DAGSTER_HOME" not in os.environ


def test_an_instance_that_cannot_be_opened(root, home, monkeypatch):
    project = given(monkeypatch, root, home)
    database = "{storage: {postgres: {postgres_db: {hostname: {env: NO_SUCH}, username: a, db_name: b}}}}"
    (home / "dagster.yaml").write_text(database)
    with (
        pytest.raises(
            TsdsError, match=r"home: that instance cannot be opened: .*: mend it, or unset DAGSTER_HOME"
        ),
        project_instance(project),
    ):
        pass
    (home / "dagster.yaml").unlink()
    with (
        pytest.raises(TsdsError, match=r"DAGSTER_HOME=.*home: no dagster.yaml there"),
        project_instance(project),
    ):
        pass


@pytest.mark.parametrize("database", ["history/runs.db", "event_log.db", "schedules/schedules.db"])
def test_a_database_that_is_damaged_is_told_with_the_remedy(root, tmp_path, database):
    copy = shutil.copytree(root, tmp_path / "project")
    (copy / ".dagster" / database).write_bytes(b"no database" * 1000)
    result = tsds("-p", copy, "refresh")
    assert result.exit_code == 1
    assert "a database of Dagster is damaged" in result.stderr
    assert "only the history of runs is lost" in result.stderr
    assert "defect" not in result.stderr
    (copy / ".dagster").rename(tmp_path / "aside")
    assert tsds("-p", copy, "refresh").exit_code == 0


@pytest.mark.parametrize("name", ["My%20Project", "why?"])
def test_a_path_that_dagster_cannot_have(root, tmp_path, name):
    copied = shutil.copytree(root, tmp_path / name)
    for command in ("refresh", "doctor"):
        result = tsds("-p", copied, command)
        assert result.exit_code == 1
        assert 'its path has a "%" or "?" that Dagster reads as part of an address' in result.output


def test_dev_does_not_run_beside_it(root, home, monkeypatch):
    given(monkeypatch, root, home)
    result = tsds("dev", "--port", "0")
    assert result.exit_code == 1
    assert f"DAGSTER_HOME={home} runs {root}" in result.stderr


def test_what_is_queued_is_not_made_a_second_time(root):
    """Without a daemon a refresh takes it over, as far as that is what it makes."""
    queued = dg.DagsterRunStatus.QUEUED
    with project_instance(Project.load(root)) as instance:
        runs = [a_run(instance, root, "sampled_subset", task, queued).run_id for task in ("t0", "t1")]
    assert tsds("-p", root, "refresh", "--task", "t0").exit_code == 0
    with project_instance(Project.load(root)) as instance:
        states = [instance.get_run_by_id(run).status for run in runs]
    assert states == [dg.DagsterRunStatus.CANCELED, queued]


def of_a_code_server(port: int) -> dict[str, str]:
    return {GRPC_INFO_TAG: json.dumps({"host": "127.0.0.1", "port": port})}


def test_a_run_whose_code_server_does_not_answer_may_live(root, home, monkeypatch):
    started = dg.DagsterRunStatus.STARTED
    with project_instance(given(monkeypatch, root, home)) as instance:
        served = a_run(instance, root, "sampled_subset", "t0", started, **of_a_code_server(free_port()))
        unserved = a_run(instance, root, "sampled_subset", "t1", started)
        assert may_be_alive(instance, served)
        assert not may_be_alive(instance, unserved)
        end_dead_runs(instance, all_of_them=True)
        states = [instance.get_run_by_id(run.run_id).status for run in (served, unserved)]
        assert states == [started, dg.DagsterRunStatus.FAILURE]


def test_under_tsds_dev_runs_end_with_the_daemon(root):
    with project_instance(Project.load(root)) as instance:
        run = a_run(
            instance,
            root,
            "sampled_subset",
            "t0",
            dg.DagsterRunStatus.STARTED,
            **of_a_code_server(free_port()),
        )
        end_dead_runs(instance, all_of_them=True)
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize(
    ("age", "status", "counts"),
    [
        (1, TickStatus.STARTED, True),
        (1, TickStatus.SUCCESS, False),
        (3600, TickStatus.STARTED, False),
    ],
)
def test_a_tick_that_is_under_way_may_still_ask(tmp_path, age, status, counts):
    origin = RemoteInstigatorOrigin(PLACE, "automation")
    with project_instance(make_project(tmp_path / "new", 1, 1)) as instance:
        assert not is_asking(instance)
        state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE)
        instance.add_instigator_state(state)
        instance.create_tick(
            TickData(
                instigator_origin_id=state.instigator_origin_id,
                instigator_name="automation",
                instigator_type=InstigatorType.SENSOR,
                status=status,
                timestamp=time.time() - age,
                selector_id=state.selector_id,
                run_ids=[],
            )
        )
        assert is_asking(instance) is counts
