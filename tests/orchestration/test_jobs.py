"""The jobs `refresh` and `redraw`, their schedules, and when they run by themselves."""

import gc
import shutil
import threading
import time

import dagster as dg
import pytest
from dagster._core.storage.defs_state.base import _current_storage

from tests.orchestration.changes import of_task, query_set, set_selection
from tests.projects import WITH_REPORTS, make_project, refreshed
from tsds_pipeline.definitions import definitions
from tsds_pipeline.graph import CODE_VERSIONS as ASSETS
from tsds_pipeline.graph import observe
from tsds_pipeline.lock import refresh_lock
from tsds_pipeline.orchestration.inputs import register
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.project import AUTOMATION, Project
from tsds_pipeline.results import load_selection
from tsds_pipeline.status import status


@pytest.fixture(autouse=True)
def forgotten():
    """Dagster keeps the storage of an instance at hand while anything of a failed run in it lives on."""
    gc.collect()
    _current_storage.set(None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished") / "project"
    make_project(root, 2, 2, settings=WITH_REPORTS)
    refreshed(root, models=True)
    return root


@pytest.fixture
def project(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "project")


def run(root, job, **options):
    """Run a job as the daemon would; (the result, the assets that were materialised)."""
    defined = definitions(str(root))
    with project_instance(Project.load(root)) as instance:
        register(instance, observe(Project.load(root)))
        before = instance.event_log_storage.get_maximum_record_id()
        found = defined.resolve_job_def(job)
        result = found.execute_in_process(instance=instance, raise_on_error=False, **options)
        made = [
            record
            for asset in ASSETS
            for record in instance.fetch_materializations(dg.AssetKey(asset), 100).records
            if record.storage_id > (before or 0)
        ]
        return result, sorted(f"{r.asset_key.to_user_string()}|{r.partition_key}" for r in made)


def is_fresh(root):
    return {node.state for node in status(observe(Project.load(root)))} == {"fresh"}


def test_the_refresh_job_does_what_the_command_does(project):
    query_set(project)
    result, made = run(project, "refresh")
    assert result.success
    assert set(made) == of_task("t0", ["s0", "s1"]) | {"query_examples|t0", "query_embeddings|t0"}
    assert is_fresh(project)
    assert run(project, "refresh")[1] == []


def test_the_refresh_job_of_one_task(project):
    (project / "tsds.toml").write_text(WITH_REPORTS.replace("alpha = 0.6", "alpha = 0.3"))
    wanted = {"ops": {"refresh_project": {"config": {"task": "t1"}}}}
    result, made = run(project, "refresh", run_config=wanted)
    assert result.success
    assert set(made) == of_task("t1")


def test_a_refresh_job_in_which_something_fails_fails(project):
    (project / "tasks" / "t0" / "query.jsonl").write_text("{broken\n")
    result, _ = run(project, "refresh")
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    assert "1 results and 0 files are not in order" in str(failure.step_failure_data.error)


@pytest.mark.parametrize("job", ["refresh", "redraw"])
def test_a_job_waits_for_a_refresh_and_sees_what_was_changed_meanwhile(project, job):
    loaded, taken = Project.load(project), threading.Event()

    def hold() -> None:
        with refresh_lock(loaded):
            taken.set()
            time.sleep(2.0)
            set_selection(project, "size = 7")

    other = threading.Thread(target=hold)
    other.start()
    taken.wait()
    result, made = run(project, job, **({"partition_key": "t1"} if job == "redraw" else {}))
    other.join()
    assert result.success
    assert "sampled_subset|t1" in made
    assert len(load_selection(project, "t1")) == 7


def test_the_redraw_job_draws_one_task_again(project):
    before = {task: load_selection(project, task)["id"].to_list() for task in ("t0", "t1")}
    result, made = run(project, "redraw", partition_key="t1")
    assert result.success
    assert set(made) == {"sampled_subset|t1", "selection_report|t1"}
    assert load_selection(project, "t0")["id"].to_list() == before["t0"]
    assert load_selection(project, "t1")["id"].to_list() != before["t1"]
    moved = {node.node for node in status(observe(Project.load(project))) if node.state != "fresh"}
    assert moved <= set(observe(Project.load(project)).models), "which a refresh makes"


def tick(root, name):
    repository = definitions(str(root)).get_repository_def()
    with project_instance(Project.load(root)) as instance:
        register(instance, observe(Project.load(root)))
        # Left to the collector, it would bring back, at its own time, an instance that is gone.
        with dg.build_schedule_context(
            instance,
            repository_def=repository,
            resources={"project": ProjectResource(root=str(root))},
        ) as context:
            return repository.get_schedule_def(name).evaluate_tick(context)


def test_only_tasks_that_want_fresh_samples_get_them(project):
    assert "redraw = true" in tick(project, "fresh_samples").skip_message
    set_selection(project, "redraw = true")
    (request,) = tick(project, "fresh_samples").run_requests
    assert (request.partition_key, request.tags["tsds/task"]) == ("t1", "t1")
    assert is_fresh(project), "whether a schedule draws again decides nothing about the sample"
    (request,) = tick(project, "nightly_refresh").run_requests


def test_times_come_from_the_settings(project, monkeypatch):
    found = {s.name: s for s in definitions(str(project)).schedules}
    assert found["nightly_refresh"].cron_schedule == "0 3 * * *"
    assert {s.default_status for s in found.values()} == {dg.DefaultScheduleStatus.STOPPED}
    with (project / "tsds.toml").open("a") as file:
        file.write('\n[dagster]\nrefresh = "30 1 * * *"\nredraw = "@monthly"\ntimezone = "Europe/Berlin"\n')
        file.write('interval = 7\nowners = ["team:data"]\n')
    monkeypatch.setenv(AUTOMATION, "on")
    defined = definitions(str(project))
    found = {s.name: (s.cron_schedule, s.execution_timezone) for s in defined.schedules}
    assert found == {
        "nightly_refresh": ("30 1 * * *", "Europe/Berlin"),
        "fresh_samples": ("@monthly", "Europe/Berlin"),
    }
    assert {s.default_status for s in defined.schedules} == {dg.DefaultScheduleStatus.RUNNING}
    intervals = {s.name: s.minimum_interval_seconds for s in defined.sensors}
    assert intervals == {"project_inputs": 7, "automation": 7, "automation_of_many": 7, "alerts": 60}
    assert {s.default_status for s in defined.sensors} == {dg.DefaultSensorStatus.RUNNING}
    assert all(spec.owners == ["team:data"] for spec in defined.resolve_all_asset_specs())


def test_the_definitions_can_be_served():
    assert definitions("no/such/project").get_repository_def().job_names
