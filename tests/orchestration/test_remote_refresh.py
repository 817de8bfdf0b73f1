"""Sources and queries at remote addresses: what a refresh downloads and makes again, and what a dead server costs."""

from http import HTTPStatus
from pathlib import Path

import pytest

from tests.commands import tsds
from tests.projects import SETTINGS, clustered, made, make_project, records, refreshed
from tests.servers import Bucket, WebServer, as_jsonl, etag
from tsds_pipeline.graph import observe
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_selection
from tsds_pipeline.status import next_nodes, status

CLOUD = [records("c", clustered(20, seed)) for seed in (1, 2)]


@pytest.fixture
def project(tmp_path, web: WebServer, bucket: Bucket) -> Path:
    """A source of the web, one of a bucket, and a task whose queries are in the bucket."""
    web.files["web.jsonl"] = as_jsonl(records("w", clustered(40, 20))).encode()
    for number, rows in enumerate(CLOUD):
        bucket.put(f"cloud/{number}.jsonl", rows)
    bucket.put("queries.jsonl", records("t", clustered(7, 100)))
    settings = f"""{SETTINGS}
[sources.web]
path = "{web.address("web.jsonl")}"
[sources.cloud]
path = "{bucket.address("cloud/*.jsonl")}"
[tasks.t]
path = "{bucket.address("queries.jsonl")}"
"""
    return make_project(tmp_path / "project", sources=0, tasks=0, settings=settings).root


def copies(root: Path) -> set[tuple[Path, int]]:
    """The local copies, each as it was written."""
    return {(p, p.stat().st_mtime_ns) for p in (root / "storage" / "remote").rglob("*") if p.is_file()}


def test_remote_files_are_inputs_like_any_other(project: Path, web: WebServer, bucket: Bucket):
    assert "sampled_subset|t" in made(refreshed(project))
    first = copies(project)
    assert len(first) == 4
    assert web.asked("GET") == ["web.jsonl"]

    # Nothing changed: nothing is made, nothing downloaded.
    assert made(refreshed(project)) == []
    assert tsds("status", TSDS_PROJECT=str(project)).exit_code == 0
    assert web.asked("GET") == ["web.jsonl"]
    assert copies(project) == first

    # One object changed: what depends on it, and no other file is downloaded again.
    bucket.put("cloud/1.jsonl", CLOUD[1][:-1])
    changed = made(refreshed(project))
    assert [node for node in changed if node.startswith(("candidate", "faiss", "query_e"))] == [
        "candidate_corpus|cloud",
        "candidate_embeddings|cloud",
        "faiss_index|cloud",
    ]
    assert "sampled_subset|t" in changed
    assert web.asked("GET") == ["web.jsonl"]
    assert len(copies(project)) == 4
    assert len(copies(project) & first) == 3

    # Only what identifies it changed: that goes no further than to the records, which come out the same.
    web.headers = lambda body: {"ETag": etag(body)["ETag"].upper()}
    assert made(refreshed(project)) == ["candidate_corpus|web"]
    assert web.asked("GET") == ["web.jsonl"] * 2

    # The server is down: its source stays what it was and says so, and nothing else hears of it.
    drawn, address = load_selection(project, "t"), web.address("web.jsonl")
    web.__exit__()
    steps = [step for step in refreshed(project) if step.outcome != "fresh"]
    assert [(step.node, step.outcome) for step in steps] == [("candidate_corpus|web", "failed")]
    (told,) = steps[0].reasons
    assert told.startswith(f'tsds.toml: [sources.web] path: "{address}": cannot be read (')
    assert told.endswith("(its last good content, 40 records, stays in use)")
    assert list(observe(Project.load(project)).sources) == ["cloud", "web"]
    assert load_selection(project, "t").equals(drawn)
    assert address in tsds("status", TSDS_PROJECT=str(project)).output

    # And up again: what was downloaded before still serves.
    with web:
        assert made(refreshed(project)) == ["candidate_corpus|web"]
        assert web.asked("GET") == ["web.jsonl"] * 2


def test_an_outage_is_tried_once_however_it_is_worded(project: Path, web: WebServer):
    made(refreshed(project))
    web.status = HTTPStatus.SERVICE_UNAVAILABLE
    steps = [step.node for step in refreshed(project) if step.outcome == "failed"]
    assert steps == ["candidate_corpus|web"]
    assert not {n for n in next_nodes(observe(Project.load(project))) if "|" in n}
    for web.status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT):
        assert not {n for n in next_nodes(observe(Project.load(project))) if "|" in n}
    web.status = HTTPStatus.NOT_FOUND
    assert "candidate_corpus|web" in next_nodes(observe(Project.load(project))), "that is no outage"
    web.status = HTTPStatus.OK
    refreshed(project)
    assert {one.state for one in status(observe(Project.load(project))) if "|" in one.node} == {"fresh"}
