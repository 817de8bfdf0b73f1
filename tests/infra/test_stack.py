"""The production topology, without containers: PostgreSQL, code server, daemon and web server as processes.

The tests are one story, in order. They are run by `make test-infra`.
"""

import base64
import json
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections import Counter

import dagster as dg
import pytest

from tests.infra.stack import Stack, proxy, stack
from tests.infra.topology import INFRA, METRICS, OURS, commands_of
from tests.projects import SETTINGS, append_records, clustered, make_project, records
from tsds_pipeline.graph import stored

pytestmark = pytest.mark.infra
# The daemon looks every five seconds; what is not due by a moment waits for its next look.
FASTER = "\n[dagster]\ninterval = 4\n"
WAVE = 480
"""Seconds that a wave may take at most: each of its runs is a process that has to start."""
OF_TASK = [
    "query_examples|t0",
    "query_embeddings|t0",
    "query_neighbors|s0|t0",
    "selection_probabilities|t0",
    "sampled_subset|t0",
]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("infra")
    make_project(folder / "project", sources=1, tasks=1, n=40, settings=SETTINGS + FASTER)
    with stack(folder / "project", folder) as started:
        yield started


def version(running: Stack, node: str) -> str | None:
    """The version of ``node`` that is stored."""
    artifact = stored(running.root / "storage", node)
    return artifact and artifact.version


def sample(running: Stack) -> str | None:
    """The version of the sample that is stored."""
    return version(running, "sampled_subset|t0")


def made(running: Stack, runs: list[dict]) -> Counter:
    """How often each node of the pipeline was made by ``runs``, which succeeded."""
    return Counter(running.web.materialized(runs) if runs else ())


def change_queries(running: Stack, seed: int) -> None:
    append_records(running.root / "tasks" / "t0" / "query.jsonl", records(f"q{seed}", clustered(5, seed)[4:]))


def test_the_first_results_come_by_themselves(running):
    running.web.wait_for(running.web.is_at_rest, "the first results", WAVE)
    assert set(made(running, running.web.runs()).values()) == {1}
    assert (running.root / "exports" / "t0" / "epoch-0.jsonl").exists()
    assert not (running.root / ".dagster").exists()
    assert int(running.postgres.ask("SELECT count(*) FROM runs")[0]) == len(running.web.runs())
    assert all(running.is_healthy(name) for name in OURS)


def test_the_proxy_asks_for_a_login(running, tmp_path):
    running.start(METRICS)
    with proxy(running, tmp_path, "somebody", "a long password") as address:
        authority = tmp_path / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        trusting = ssl.create_default_context(cafile=authority)

        def ask(login: str | None, password: str = "a long password", path: str = "server_info") -> str:
            request = urllib.request.Request(f"{address}/{path}")
            if login is not None:
                given = base64.b64encode(f"{login}:{password}".encode()).decode()
                request.add_header("Authorization", f"Basic {given}")
            with urllib.request.urlopen(request, timeout=30, context=trusting) as answer:
                return answer.read().decode()

        assert json.loads(ask("somebody"))["dagster_version"] == dg.__version__
        figures = ask("somebody", path="metrics")
        assert 'tsds_partitions{asset="sampled_subset",state="fresh"} 1.0' in figures
        for refused in (None, ""), ("somebody", "another"), ("somebody else", "a long password"):
            for path in ("server_info", "metrics"):
                with pytest.raises(urllib.error.HTTPError, match="401"):
                    ask(*refused, path=path)
    running.end(METRICS)


def test_what_the_code_server_logs_is_json(running):
    """The first line is Dagster's, before it loads the project."""
    first, *lines = [json.loads(line) for line in (running.logs / "code.log").read_text().splitlines()]
    assert first["event"].startswith("Starting Dagster code server")
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    made = [line for line in lines if line["message"].startswith("sampled_subset[t0]: made in")]
    assert {(line["task"], line["partition"], line["asset"]) for line in made} == {
        ("t0", "t0", "sampled_subset")
    }
    assert {line["run_id"] for line in made} <= {run["runId"] for run in running.web.runs()}


def test_a_changed_query_set_reaches_its_sample(running):
    before, old = running.web.runs(), sample(running)
    change_queries(running, 500)
    running.web.wait_for(lambda: sample(running) != old and running.web.is_at_rest(), "the sample", WAVE)
    assert made(running, running.web.made_after(before)) == Counter(OF_TASK)


def test_a_refresh_beside_the_daemon_does_nothing_twice(running):
    """It works in the same instance, so each knows of the other's runs."""
    before = running.web.runs()
    for seed in (600, 601):
        change_queries(running, seed)
        done = running.run("tsds refresh")
        assert done.returncode == 0, done.stderr
    running.web.wait_for(running.web.is_at_rest, "rest", WAVE)
    runs = running.web.made_after(before)
    assert made(running, runs) == Counter(OF_TASK * 2)
    assert any("tsds/refresh" in run["tags"] for run in runs)


def test_what_is_lost_with_the_code_server_is_made_again(running):
    before, old = running.web.runs(), {node: version(running, node) for node in OF_TASK}
    change_queries(running, 700)

    def under_way():
        return {run["runId"] for run in running.web.made_after(before) if run["status"] == "STARTED"}

    def stopped_amid_runs():
        """The runs under way, all stopped: a run of half a second could end before it is killed."""
        if not under_way():
            return None
        running.send("code", signal.SIGSTOP)
        if not (stopped := under_way()):
            running.send("code", signal.SIGCONT)
        return stopped

    def changed():
        return [node for node in OF_TASK if version(running, node) != old[node]]

    lost = running.web.wait_for(stopped_amid_runs, "a run", WAVE, pause=0.05)
    running.end("code", signal.SIGKILL)
    killed, kept = time.time(), changed()
    running.start("code")
    running.web.wait_for(lambda: changed() == OF_TASK and running.web.is_at_rest(), "the sample", WAVE)
    runs = running.web.made_after(before)
    assert {run["status"] for run in runs if run["runId"] in lost} == {"FAILURE"}
    # What was asked of the code server while it was not there fails before it starts.
    again = made(running, [run for run in runs if (run["startTime"] or 0) > killed])
    assert Counter(kept) + again == Counter(OF_TASK), "what the lost runs had made already is not made again"


def test_a_refresh_without_a_daemon_leaves_nothing_to_it(running):
    running.end("daemon")
    before = running.web.runs()
    change_queries(running, 800)
    done = running.run("tsds refresh")
    assert done.returncode == 0, done.stderr
    running.start("daemon")
    running.web.wait_for(running.web.is_at_rest, "rest", WAVE)
    assert made(running, running.web.made_after(before)) == Counter(OF_TASK)


def test_the_page_for_whoever_is_on_call(running, tmp_path):
    """Its commands, as they stand, in one shell; those of docker are in test_files.py."""
    page = (INFRA / "README.md").read_text("utf-8")
    commands = commands_of(page, "sh")
    assert {"tsds doctor", "tsds refresh", "infra/backup.sh", "dagster-daemon liveness-check"} <= set(
        commands
    )
    script = "\n".join(["set -eux", *commands])
    done = running.run(script, TSDS_BACKUPS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "tsds_rehearsal" not in running.postgres.ask("SELECT datname FROM pg_database")
    assert all(path.name.startswith("2") for path in tmp_path.iterdir()), "the rehearsal is gone"


def test_a_backup_brings_back_results_and_history(running, tmp_path):
    new = {"PGDATABASE": "tsds_restored", "TSDS_PROJECT": str(tmp_path / "project")}
    running.web.wait_for(running.web.is_at_rest, "rest", WAVE)
    before = running.web.runs()
    done = running.run(f"infra/backup.sh {tmp_path}")
    assert done.returncode == 0, done.stderr
    backup = done.stdout.strip()
    done = running.run(f"infra/restore.sh {backup}", **new)
    assert done.returncode == 0, done.stderr
    ids = running.postgres.ask("SELECT run_id FROM runs ORDER BY id", "tsds_restored")
    assert ids == [run["runId"] for run in before]
    # Its daemon told of itself just before the backup: a refresh would wait two minutes to see whether it lives.
    running.postgres.ask("DELETE FROM daemon_heartbeats", "tsds_restored")
    # Commands on what came back work in the instance that came back, and find everything made.
    assert running.run("tsds refresh", **new).returncode == 0
    assert running.postgres.ask("SELECT count(*) FROM runs", "tsds_restored") == [str(len(before))]
    # Nothing is ever overwritten.
    assert "has tables" in running.run(f"infra/restore.sh {backup}", **new).stderr
    again = running.run(f"infra/restore.sh {backup} project", **new)
    assert "is not empty" in again.stderr
    (tmp_path / backup / "database.dump").write_bytes(b"cut")
    broken = running.run(
        f"infra/restore.sh {backup}", PGDATABASE="other", TSDS_PROJECT=str(tmp_path / "other")
    )
    assert "not as backup.sh left it" in broken.stderr
    assert "other" not in running.postgres.ask("SELECT datname FROM pg_database")


def test_what_is_under_way_waits_for_a_backup(running):
    """backup.sh holds the lock that a refresh holds."""
    lock = running.root / "storage" / ".lock"
    done = running.run(f"flock {lock} tsds refresh")
    assert done.returncode == 1
    assert "another refresh is under way" in done.stderr


def test_dev_is_refused_beside_it(running):
    done = running.run("tsds dev --port 0")
    assert done.returncode == 1
    assert "would do everything a second time" in done.stderr
