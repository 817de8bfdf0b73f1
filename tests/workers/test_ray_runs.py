"""Runs that the daemon of Dagster hands to a Ray cluster, of which a node is killed: the same bytes in the end."""

import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from tests.dev_server import DevServer, dev_server
from tests.projects import A_RUN_EACH, SETTINGS, bytes_of_results, make_project, refreshed
from tests.workers.cluster import MEMORY, REPOSITORY, TwoNodes, two_nodes
from tsds_pipeline.project import DAGSTER_YAML

pytestmark = pytest.mark.long
WAVE = 900
"""Seconds that all of it may take: each run is a process that has to start."""


def documented() -> dict:
    """The section of dagster.yaml in docs/many-machines.md."""
    page = (REPOSITORY / "docs" / "many-machines.md").read_text("utf-8")
    [section] = re.findall(r"^```yaml\n(run_launcher:\n.*?)^```$", page, re.M | re.S)
    return yaml.safe_load(section)


def with_ray(root: Path, cluster: TwoNodes) -> None:
    """Have the project's own instance hand its runs to ``cluster``, as the page says, one a node."""
    section = documented()
    section["run_launcher"]["config"]["ray"] |= {"address": cluster.jobs, "memory": int(MEMORY * 0.6)}
    (root / ".dagster").mkdir()
    own = yaml.safe_load(DAGSTER_YAML.format(runs=2))
    own["run_monitoring"]["poll_interval_seconds"] = 5
    (root / ".dagster" / "dagster.yaml").write_text(yaml.safe_dump(own | section))


def jobs_of(cluster: TwoNodes) -> list:
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(cluster.jobs).list_jobs()


def kill_a_run(server: DevServer, cluster: TwoNodes) -> str:
    """Kill the second node while it has a run; the id of that run."""
    under_way = [
        job for job in jobs_of(cluster) if job.driver_node_id == cluster.second and job.status == "RUNNING"
    ]
    started = {run["runId"] for run in server.runs() if run["status"] == "STARTED"}
    for job in under_way:
        if job.metadata["dagster/run-id"] in started:
            cluster.kill_second()
            return job.metadata["dagster/run-id"]
    return ""


def test_runs_on_two_nodes_and_one_that_is_lost(tmp_path):
    alone = make_project(tmp_path / "alone", sources=3, tasks=1, n=40, settings=SETTINGS + A_RUN_EACH)
    refreshed(alone.root, models=True)
    project = make_project(tmp_path / "project", sources=3, tasks=1, n=40, settings=SETTINGS + A_RUN_EACH)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with two_nodes(dashboard=True, PATH=path) as cluster:
        with_ray(project.root, cluster)
        with dev_server(project.root) as server:
            lost = server.wait_for(lambda: kill_a_run(server, cluster), "a run on the second node", WAVE)
            server.wait_for(server.is_at_rest, "everything", WAVE)
            runs = server.runs()
        assert {run["runId"] for run in runs if run["status"] != "SUCCESS"} == {lost}
        given = {job.metadata["dagster/run-id"] for job in jobs_of(cluster)}
        assert given == {run["runId"] for run in runs}
    assert bytes_of_results(project.root) == bytes_of_results(alone.root)
