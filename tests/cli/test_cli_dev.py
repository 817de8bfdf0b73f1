"""`tsds dev`: the Dagster UI for real, and what is refused before it starts."""

import os
import re
import signal
import socket

import dagster as dg
import pytest

from tests.commands import tsds
from tests.dev_server import dev_server
from tsds_pipeline.cli.dev import is_loopback, without_noise
from tsds_pipeline.definitions import definitions
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.project import Project


def test_the_ui_starts_knows_the_project_and_ends(done):
    left = leave_a_run(done)
    with dev_server(done, "--no-automation") as server:
        assert state_of(done, left) == (dg.DagsterRunStatus.FAILURE, 0), "what a killed daemon left is ended"
        nodes = server.ask("{assetNodes {assetKey {path} partitionKeys}}")["assetNodes"]
        assert set(automation(server).values()) == {"STOPPED"}
        second = tsds("-p", done, "dev", "--port", "0")
    partitions = {node["assetKey"]["path"][0]: node["partitionKeys"] for node in nodes}
    assert partitions["candidate_corpus"] == ["s0", "s1"]
    assert partitions["sampled_subset"] == ["t0", "t1"]
    assert sorted(partitions["query_neighbors"]) == ["s0|t0", "s0|t1", "s1|t0", "s1|t1"]
    assert second.exit_code == 1
    assert "another `tsds dev` is running (process " in second.stderr
    assert server.exit_status == 0
    assert server.output == "ending ...\n"
    assert "Traceback" not in server.errors
    assert not children(str(done))


def automation(server):
    """The state of each sensor and schedule."""
    found = server.ask(
        "{repositoriesOrError {... on RepositoryConnection {nodes {"
        "sensors {name sensorState {status}} schedules {name scheduleState {status}}}}}}"
    )
    (repository,) = found["repositoriesOrError"]["nodes"]
    states = {s["name"]: s["sensorState"]["status"] for s in repository["sensors"]}
    states |= {s["name"]: s["scheduleState"]["status"] for s in repository["schedules"]}
    assert states.keys() == {
        "alerts",
        "automation",
        "automation_of_many",
        "project_inputs",
        "fresh_samples",
        "nightly_refresh",
    }
    return states


def children(project: str) -> list[str]:
    """Processes that have ``project`` in their environment, other than this one."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if f"TSDS_PROJECT={project}".encode() in file.read():
                    found.append(pid)
        except OSError:
            continue
    return found


def test_a_port_that_is_taken(done_once):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = tsds("-p", done_once, "dev", "--port", port)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}: Address already in use")


def test_a_host_that_others_reach_is_warned_of(done_once, monkeypatch):
    started = []

    class Ended:
        pid = 2**22 + 1
        returncode = 3
        stderr = ()

        def __init__(self, command, **_):
            started.append(command)

        def poll(self):
            return 3

        def wait(self, *_):
            return 3

        def send_signal(self, _):
            pass

    monkeypatch.setattr("tsds_pipeline.cli.dev.subprocess.Popen", Ended)
    result = tsds("-p", done_once, "dev", "--host", "0.0.0.0", "--port", "0")
    assert result.exit_code == 1
    assert "warning: the UI has no login: whoever reaches 0.0.0.0:" in result.stderr
    assert "error: Dagster ended by itself (exit status 3)" in result.stderr
    assert started[0][started[0].index("--host") + 1] == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_loopback(host, alone):
    assert is_loopback(host) is alone


def leave_a_run(root, **tags):
    """A run of a daemon that was killed: it holds its partition, and the encoder's slot."""
    with project_instance(Project.load(root)) as instance:
        instance.event_log_storage.initialize_concurrency_limit_to_default("encoder")
        run = instance.create_run_for_job(
            definitions(str(root)).resolve_implicit_global_asset_job_def(),
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": "t0", **tags},
            asset_selection=frozenset([dg.AssetKey("query_embeddings")]),
        )
        claim = instance.event_log_storage.claim_concurrency_slot("encoder", run.run_id, "query_embeddings")
        assert claim.is_claimed
        return run.run_id


def state_of(root, run_id):
    with project_instance(Project.load(root)) as instance:
        info = instance.event_log_storage.get_concurrency_info("encoder")
        return instance.get_run_by_id(run_id).status, info.active_slot_count


def test_what_a_killed_daemon_left_does_not_stop_a_refresh(done):
    run_id = leave_a_run(done)
    with (done / "tasks" / "t0" / "query.jsonl").open("a") as file:
        file.write((done / "tasks" / "t1" / "query.jsonl").open().readline())
    assert tsds("-p", done, "refresh").exit_code == 0
    assert state_of(done, run_id) == (dg.DagsterRunStatus.FAILURE, 0)


def test_an_error_about_input_is_said_once_and_without_its_stack():
    said = "tsds_pipeline.errors.TsdsError: tasks/t0/query.jsonl:8: invalid JSON: repair or remove it\n"
    wrapped = (
        'dagster._core.errors.DagsterExecutionStepExecutionError: Error occurred while executing op "x":\n'
    )
    stack = ["\n", "Stack Trace:\n", '  File "x.py", line 1, in x\n', "    raise\n", "\n"]
    step = "2026-01-01 00:00:00 +0000 - dagster - ERROR - job - x - STEP_FAILURE - Execution failed.\n"
    run = step.replace("STEP_", "RUN_")
    cause = "The above exception was caused by the following exception:\n"
    after = "2026-01-01 00:00:01 +0000 - dagster - INFO - automation - 1 requested\n"
    lines = [step, "\n", wrapped, "\n", said, *stack, run, wrapped, *stack, cause, said, *stack, after]
    assert list(without_noise(lines + lines)) == [step, said, run, after] * 2
    # Of a defect all is told, but for how Dagster came to it.
    defect = "ZeroDivisionError: division by zero\n"
    told = [line for line in stack if line.strip()]
    assert list(without_noise([step, wrapped, *stack, cause, defect, *stack])) == [step, defect, *told]


@pytest.mark.long
def test_the_terminal_stays_quiet(done):
    with dev_server(done) as server:
        assert set(automation(server).values()) == {"RUNNING"}
        with (done / "tsds.toml").open("a") as file:
            file.write("[dagster]\ninterval = 1\n[tasks.t0]\nseed = 3\n")
        server.wait_for(server.runs, "the run")
        server.wait_for(server.is_at_rest, "the wave")
    assert "DEBUG" not in server.errors
    assert len(server.errors.splitlines()) < 12, server.errors


@pytest.mark.long
def test_one_that_was_killed_leaves_dagster_named_in_the_way(done):
    """Its children live on; a second daemon beside them would do everything twice."""
    with dev_server(done, "--no-automation") as server:
        os.kill(server.process, signal.SIGKILL)
        result = tsds("-p", done, "dev", "--port", "0")
        assert result.exit_code == 1
        left = int(re.search(r"is running \(process (\d+)\)", result.stderr)[1])
        os.kill(left, signal.SIGINT)
        server.wait_for(lambda: not children(str(done)), "its end", 60)
    with dev_server(done, "--no-automation"):
        pass
