"""A refresh whose encoding and search are spread over two Ray nodes, of which one is killed: the same bytes."""

import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.projects import as_jsonl, bytes_of_results, refreshed
from tests.workers.cluster import TwoNodes, two_nodes
from tsds_pipeline.encoders.base import ENCODED_AT_ONCE
from tsds_pipeline.project import Project
from tsds_pipeline.stages import spread_search

pytestmark = pytest.mark.long
SETTINGS = """
[pool]
kernel_radius = 0.4

[selection]
size = 40
report = false
"""
TEXTS = 3 * ENCODED_AT_ONCE + 100
VERBS = ("add", "remove", "sort", "join", "count", "parse", "encode", "merge", "copy", "close", "draw")
THINGS = ("file", "array", "graph", "string", "list", "socket", "tree", "matrix", "table", "date", "image")


def text(number: int) -> str:
    verb, thing = VERBS[number % 11], THINGS[number // 11 % 11]
    return f"{verb} a {thing} of {number} parts" + " and another one" * (number % 4)


def make(root: Path, more: str = "") -> Path:
    """A project with a source of more than one call of the encoder, and a small one."""
    for place, numbers in (("sources/large", range(TEXTS)), ("sources/small", range(5000, 5040))):
        path = root / f"{place}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_jsonl([{"text": text(number)} for number in numbers]), "utf-8")
    queries = root / "tasks" / "graphs" / "query.jsonl"
    queries.parent.mkdir(parents=True)
    queries.write_text(as_jsonl([{"text": f"{verb} the nodes of a graph"} for verb in VERBS]), "utf-8")
    (root / "tsds.toml").write_text(SETTINGS + more)
    return root


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    root = make(tmp_path_factory.mktemp("alone") / "project")
    assert {step.outcome for step in refreshed(root)} == {"made"}
    return bytes_of_results(root)


class Killer(threading.Thread):
    """Kills the second node while it is at a piece whose function has this ``name``."""

    def __init__(self, cluster: TwoNodes, name: str):
        super().__init__(daemon=True)
        self._cluster, self._name, self.killed = cluster, f"ray::{name}", False

    def run(self) -> None:
        raylet = psutil.Process(self._cluster.second_raylet)
        until = time.monotonic() + 300
        while time.monotonic() < until:
            for child in raylet.children(recursive=True):
                try:
                    at_work = child.cmdline()[:1]
                except psutil.Error:
                    continue
                if at_work and at_work[0].startswith(self._name):
                    time.sleep(0.5)  # in the midst of it
                    self._cluster.kill_second()
                    self.killed = True
                    return
            time.sleep(0.005)


def test_the_bytes_are_those_of_one_machine(undisturbed, tmp_path, monkeypatch):
    # A search of this size would be made here.
    monkeypatch.setattr(spread_search, "WORTH", 0)
    monkeypatch.setattr(spread_search, "LEAST_ROWS", 500)
    with two_nodes() as cluster:
        root = make(tmp_path / "project", f'\n[ray]\naddress = "{cluster.address}"\n')
        killer = Killer(cluster, "encode_chunk")
        killer.start()
        assert {step.outcome for step in refreshed(root)} == {"made"}
        killer.join(1)
        assert killer.killed
        assert bytes_of_results(root) == undisturbed
        # A node that comes later takes part: what it finds is merged with what the others find.
        cluster.mend()
        for path in (root / "storage" / "query_neighbors").rglob("*.parquet"):
            path.unlink()
        assert {step.outcome for step in refreshed(root, task="graphs")} == {"made", "fresh"}
        assert bytes_of_results(root) == undisturbed


def test_a_cluster_that_is_down_fails_the_source_and_says_so(tmp_path):
    root = make(tmp_path / "project", '\n[ray]\naddress = "127.0.0.1:9"\n')
    steps = {step.node: step for step in refreshed(root, source="large")}
    failed = steps["candidate_embeddings|large"]
    assert failed.outcome == "failed"
    assert '[ray] address = "127.0.0.1:9": nothing answers there' in failed.reasons[0]
    settings = Project.load(root).root / "tsds.toml"
    os.utime(settings)
    settings.write_text(SETTINGS)
    assert {step.outcome for step in refreshed(root, source="large")} <= {"made", "fresh"}
