"""Alerts of a real daemon to a real web server, from `tsds dev`."""

import pytest

from tests.dev_server import dev_server
from tests.projects import make_project, refreshed
from tests.servers import Receiver
from tsds_pipeline.alerts import WEBHOOK

pytestmark = pytest.mark.long
PATIENCE = 400
"""Seconds; it looks once a minute, and what is mended has to be made first."""


def test_a_failure_is_told_once_and_its_end(tmp_path, monkeypatch):
    make_project(tmp_path, sources=1, tasks=1, n=30)
    with (tmp_path / "tsds.toml").open("a") as file:
        file.write("[dagster]\ninterval = 5\n")
    refreshed(tmp_path, models=True)
    queries = tmp_path / "tasks" / "t0" / "query.jsonl"
    good = queries.read_text()
    with Receiver() as receiver:
        monkeypatch.setenv(WEBHOOK, receiver.address)
        with dev_server(tmp_path) as server:
            queries.write_text(good + "{broken\n")
            server.wait_for(lambda: receiver.bodies, "the alert", PATIENCE)
            (problem,) = receiver.bodies[0]["problems"]
            assert problem.startswith("query_examples[t0]: 1 of 8 query records cannot be used")
            # Tried again, from the UI: still one problem.
            server.backfill(["t0"])
            before = server.runs()
            server.wait_for(
                lambda: any(run["status"] == "FAILURE" for run in server.made_after(before)), "it", PATIENCE
            )
            queries.write_text(good)
            server.wait_for(lambda: len(receiver.bodies) > 1, "its end", PATIENCE)
        assert [body["over"] for body in receiver.bodies] == [[], [problem]]
        assert receiver.bodies[1]["problems"] == []
        assert "a-secret" not in server.output + server.errors
    holders = [
        path.name for path in tmp_path.rglob("*") if path.is_file() and b"a-secret" in path.read_bytes()
    ]
    assert holders == []
