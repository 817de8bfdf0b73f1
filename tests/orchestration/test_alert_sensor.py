"""The sensor "alerts" in a real instance, against a real web server: each problem once, and when it is over."""

import json
import shutil
from http import HTTPStatus

import dagster as dg
import pytest

from tests.commands import tsds
from tests.orchestration.runs import evaluated
from tests.projects import append_records, make_project, refreshed
from tests.servers import Receiver
from tsds_pipeline.alerts import WEBHOOK
from tsds_pipeline.definitions import definitions
from tsds_pipeline.graph import current_versions, input_versions, node_path, observe, stored
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.project import Project
from tsds_pipeline.status import MAX_TRIES
from tsds_pipeline.storage import begin_attempt

BROKEN = "{broken\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished") / "project"
    make_project(root, sources=1, tasks=2, n=30)
    refreshed(root, models=True)
    return root


@pytest.fixture
def project(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "project")


@pytest.fixture
def receiver(monkeypatch):
    with Receiver() as server:
        monkeypatch.setenv(WEBHOOK, server.address)
        yield server


class Looks:
    """The sensors of a project, as the daemon evaluates them."""

    def __init__(self, root, instance):
        self.root, self.instance, self.cursors = root, instance, {}
        self.definitions = definitions(str(root))

    def look(self, name="alerts"):
        return evaluated(self.instance, self.root, self.definitions, name, self.cursors).skip_message


@pytest.fixture
def looks(project):
    with project_instance(Project.load(project)) as instance:
        yield Looks(project, instance)


def test_a_failed_result_is_told_once_and_when_it_is_over(project, looks, receiver):
    assert looks.look() == "0 problems; 0 new, 0 over"
    queries = project / "tasks" / "t0" / "query.jsonl"
    good = queries.read_text()
    queries.write_text(good + BROKEN)
    refreshed(project)
    looks.look()
    (told,) = receiver.bodies
    assert told["project"] == "project"
    assert told["text"].startswith("tsds, project: 1 new problem\n* query_examples[t0]: 1 of 8 query records")
    # Tried again, as it is and with another mistake: one problem still.
    refreshed(project)
    queries.write_text(good + BROKEN * 2)
    looks.look()
    refreshed(project)
    assert looks.look() == "1 problems; 0 new, 0 over"
    # While it is tried, nobody knows.
    queries.write_text(good + good.splitlines()[0].replace("t0-0", "another") + "\n")
    observed = observe(Project.load(project))
    node = "query_examples|t0"
    begin_attempt(
        node_path(project / "storage", node),
        input_versions(node, observed, current_versions([node], observed)),
    )
    looks.look()
    assert len(receiver.bodies) == 1
    refreshed(project)
    looks.look()
    assert receiver.bodies[1]["problems"] == []
    assert receiver.bodies[1]["over"] == told["problems"]
    looks.look()
    assert len(receiver.bodies) == 2


def test_what_did_not_arrive_is_sent_again(project, looks, receiver, capfd):
    (project / "tasks" / "t0" / "query.jsonl").write_text(BROKEN)
    refreshed(project)
    receiver.status = HTTPStatus.BAD_GATEWAY
    assert looks.look() == f"the webhook in {WEBHOOK} did not take an alert: it answers 502"
    receiver.status = HTTPStatus.OK
    looks.look()
    looks.look()
    assert len(receiver.bodies) == 1
    assert "a-secret" not in "".join(capfd.readouterr())


def test_a_check_that_fails_is_told(project, looks, receiver):
    query = json.loads((project / "tasks" / "t0" / "query.jsonl").open().readline())
    append_records(project / "sources" / "s0.jsonl", [{**query, "id": "leak"}])
    with (project / "tsds.toml").open("a") as file:
        file.write("[tasks.t0]\nsize = 31\nalpha = 0.0\n")
    refreshed(project)
    looks.look()
    (told,) = receiver.bodies
    assert any("sampled_subset[t0]: check no_query_text: 1 example" in text for text in told["problems"])
    with (project / "tsds.toml").open("a") as file:
        file.write('leaks = "allow"\n')
    looks.look()
    assert len(receiver.bodies) == 1, "the sample with the leak is still there"
    refreshed(project)
    looks.look()
    assert receiver.bodies[1]["over"] == told["problems"]


def test_what_is_killed_is_told_when_it_is_not_tried_any_more(project, looks, receiver):
    with (project / "tsds.toml").open("a") as file:
        file.write("[tasks.t0]\nseed = 5\n")
    observed, node = observe(Project.load(project)), "sampled_subset|t0"
    versions = input_versions(node, observed, current_versions([node], observed))
    for _ in range(MAX_TRIES):
        looks.look()
        assert receiver.bodies == []
        begin_attempt(node_path(project / "storage", node), versions)
    looks.look()
    assert receiver.bodies[0]["problems"] == ["sampled_subset[t0]: its process was killed each time"]


def test_runs_that_fail_before_they_could_note_it(project, looks, receiver):
    with (project / "tsds.toml").open("a") as file:
        file.write("[tasks.t0]\nseed = 5\n")

    def fail():
        run = looks.instance.create_run_for_job(
            looks.definitions.resolve_implicit_global_asset_job_def(),
            asset_selection=frozenset([dg.AssetKey("sampled_subset")]),
            tags={"dagster/partition": "t0"},
        )
        looks.instance.report_run_failed(run, "no space left on device")

    for _ in range(MAX_TRIES - 1):
        fail()
        looks.look()
    assert receiver.bodies == []
    for _ in range(4):
        fail()
        looks.look()
    (told,) = receiver.bodies
    assert told["problems"][0].startswith(
        "sampled_subset[t0]: its last 3 runs failed: no space left on device (run "
    )
    refreshed(project)
    looks.look()
    assert receiver.bodies[1]["over"] == told["problems"]


@pytest.mark.parametrize("by", ["the job", "a refresh"])
def test_a_job_that_fails_is_told_until_all_is_made(project, looks, receiver, by):
    with (project / "tsds.toml").open("a") as file:
        file.write("[tasks.t0]\nseed = 5\n")
    job = looks.definitions.resolve_job_def("refresh")
    wanted = {"ops": {"refresh_project": {"config": {"task": "t7"}}}}
    for _ in range(2):
        assert not job.execute_in_process(wanted, looks.instance, raise_on_error=False).success
        looks.look()
    (told,) = receiver.bodies
    (text,) = told["problems"]
    assert text.startswith('the job refresh failed: there is no task "t7"')
    listed = tsds("-p", project, "alerts")
    assert f"problem: {text.partition(' (run ')[0]} (run " in listed.stderr
    assert listed.stdout.startswith("1 problem; told to ")
    if by == "the job":
        assert job.execute_in_process(instance=looks.instance).success
    refreshed(project, models=True)
    looks.look()
    assert receiver.bodies[1]["over"] == [text]
    assert tsds("-p", project, "alerts").stdout.startswith("no problem; told to ")


def test_a_sample_that_lags_behind_is_told(project, looks, receiver, monkeypatch):
    hour = 0.0
    monkeypatch.setattr("tsds_pipeline.orchestration.automation.now", lambda: 3600 * hour)
    queries = project / "tasks" / "t1" / "query.jsonl"
    good = queries.read_text()
    queries.write_text(good + good.splitlines()[0].replace("t1-0", "new") + "\n")
    for hour in (1.0, 24.0, 25.5, 26.0):
        looks.look("project_inputs")
        looks.look()
        assert len(receiver.bodies) == (hour > 25)
    assert receiver.bodies[0]["problems"] == [
        "task t1: for more than 24 hours its sample is not what its inputs would give"
    ]
    refreshed(project)
    looks.look("project_inputs")
    looks.look()
    assert receiver.bodies[1]["over"] == receiver.bodies[0]["problems"]


def test_a_settings_file_that_is_not_understood_ends_nothing(project, looks, receiver):
    (project / "tasks" / "t0" / "query.jsonl").write_text(BROKEN)
    refreshed(project)
    looks.look()
    good = (project / "tsds.toml").read_text()
    (project / "tsds.toml").write_text(good + "[selectoin]\n")
    looks.look()
    looks.look()
    first, second = receiver.bodies
    assert "[selectoin]: unknown table" in second["problems"][0]
    assert second["over"] == []
    (project / "tsds.toml").write_text(good)
    looks.look()
    assert receiver.bodies[2]["over"] == second["problems"]
    shutil.rmtree(project / "tasks" / "t0")
    looks.look()
    assert receiver.bodies[3]["over"] == first["problems"], "it is gone"


def test_where_it_is_told_may_be_named_later(project, receiver, monkeypatch):
    monkeypatch.delenv(WEBHOOK)
    good, loaded = (project / "tsds.toml").read_text(), Project.load(project)
    (project / "tsds.toml").write_text(good + "[selectoin]\n")
    with project_instance(loaded) as instance:
        looks = Looks(project, instance)  # as a code server that starts with a broken file
        (project / "tsds.toml").write_text(f'{good}[alerts]\nwebhook = "{receiver.address}"\n')
        (project / "tasks" / "t0" / "query.jsonl").write_text(BROKEN)
        refreshed(project)
        looks.look()
    assert "query_examples[t0]" in receiver.bodies[0]["text"]


def test_without_a_place_they_are_in_the_log(project, looks, monkeypatch, caplog, capfd):
    monkeypatch.delenv(WEBHOOK, raising=False)
    (project / "tasks" / "t0" / "query.jsonl").write_text(BROKEN)
    refreshed(project)
    looks.look()
    looks.look()
    said = capfd.readouterr()
    assert (said.out + said.err).count("query_examples[t0]: 1 of 1 query records") == 1


def test_the_secret_is_nowhere_in_the_project(project, receiver):
    with (project / "tsds.toml").open("a") as file:
        file.write(f'[alerts]\nwebhook = "{receiver.address}"\n')
    (project / "tasks" / "t0" / "query.jsonl").write_text(BROKEN)
    with project_instance(Project.load(project)) as instance:
        receiver.status = HTTPStatus.BAD_GATEWAY
        refreshed(project)
        Looks(project, instance).look()
    assert stored(project / "storage", "sampled_subset|t1")
    holders = [
        path.name for path in project.rglob("*") if path.is_file() and b"a-secret" in path.read_bytes()
    ]
    assert holders == ["tsds.toml"]


def test_a_redraw_that_was_interrupted_is_over_with_the_next_sample(project, looks, receiver):
    redrawn = looks.instance.create_run_for_job(
        looks.definitions.resolve_job_def("redraw"), tags={"dagster/partition": "t0"}
    )
    looks.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name="redraw"), redrawn.run_id
    )
    looks.instance.report_run_failed(redrawn, "its process was killed")
    looks.look()
    (told,) = receiver.bodies
    assert told["problems"][0].startswith("the job redraw of task t0 failed: its process was killed")
    with (project / "tsds.toml").open("a") as file:
        file.write("[tasks.t0]\nseed = 5\n")
    refreshed(project)
    looks.look()
    assert receiver.bodies[1]["over"] == told["problems"]
