"""Machines that work on one project one after the other, through an object store: what each makes, at what cost."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import s3fs

from tests.commands import tsds
from tests.orchestration.runs import evaluated
from tests.projects import SETTINGS, append_records, clustered, made, make_project, records, refreshed
from tests.servers import Bucket
from tsds_pipeline import object_storage
from tsds_pipeline.definitions import definitions
from tsds_pipeline.graph import observe
from tsds_pipeline.lock import refresh_lock
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.orchestration.refresh import Refresh
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_selection
from tsds_pipeline.status import status

SECRET = "a-secret-that-nobody-tells"


@pytest.fixture
def machine(tmp_path, bucket: Bucket, monkeypatch) -> Callable[[str], Path]:
    """``machine(name)``: a folder with the same sources, tasks and settings, and nothing made yet."""
    monkeypatch.setitem(fsspec.config.conf, "s3", {"secret": SECRET, "key": "testing"})
    settings = f'{SETTINGS}\n[storage]\nurl = "{bucket.address("team/x")}"\n'
    make_project(tmp_path / "inputs", 1, 1, n=20, settings=settings)
    return lambda name: shutil.copytree(tmp_path / "inputs", tmp_path / name)


def refresh(root: Path, **options: bool) -> list[str]:
    """What a refresh makes, as `tsds refresh` does it."""
    with refresh_lock(Project.load(root)):
        return made(refreshed(root, **options))


def states(root: Path) -> Counter:
    return Counter(node.state for node in status(observe(Project.load(root))))


def test_machines_go_on_from_each_others_results(machine, monkeypatch):
    asked, ask = Counter(), s3fs.S3FileSystem._call_s3

    async def counted(self, operation, *arguments, **named):
        asked[operation] += 1
        return await ask(self, operation, *arguments, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    a, b = machine("a"), machine("b")

    # What cannot be uploaded is complete here, and goes there with the next refresh.
    with monkeypatch.context() as broken:
        broken.setattr(s3fs.S3FileSystem, "_put_file", reset)
        done = tsds("-p", a, "refresh")
    assert done.exit_code == 1
    assert "cannot be used (the connection was reset)" in done.output
    assert done.output.strip().endswith("what was made is complete here, and the next refresh uploads it")
    assert refresh(a, models=True) == []
    asked.clear()
    assert refresh(a, models=True) == []
    assert sum(asked.values()) == 9, (
        "the lock is looked for, taken, seen twice and released; all is listed once"
    )

    # Another machine with the same inputs has nothing to do, and the same results.
    seen = tsds("-p", b, "refresh")
    assert seen.exit_code == 0
    assert "0 made, 10 fresh" in seen.output
    assert set(states(b)) == {"fresh"}
    for name in ("exports/t0/epoch-0.jsonl", "exports/t0/manifest.json", "storage/sampled_subset/t0.parquet"):
        assert (b / name).read_bytes() == (a / name).read_bytes()

    # It changes a query set; the first, which gets that too, has nothing to do.
    queries = records("more", clustered(3, 7))
    append_records(b / "tasks" / "t0" / "query.jsonl", queries)
    assert "sampled_subset|t0" in refresh(b)
    append_records(a / "tasks" / "t0" / "query.jsonl", queries)
    assert states(a)["stale"] > 0
    assert load_selection(a, "t0").equals(load_selection(b, "t0")), "a reader gets what there is"
    assert refresh(a) == []

    # What is lost on one machine is there still, and what a person deletes is made again.
    shutil.rmtree(b / "storage")
    assert refresh(b) == []
    (a / "storage" / "sampled_subset" / "t0.parquet").unlink()
    assert refresh(a) == ["sampled_subset|t0"]

    # What is collected on one machine is gone on all.
    (b / "tasks" / "t0").rename(b / "tasks" / "t9")
    assert tsds("-p", b, "gc").exit_code == 0
    object_storage.exchange(Project.load(a))
    assert not (a / "storage" / "sampled_subset" / "t0.parquet").exists()

    told = [path.read_bytes() for root in (a, b) for path in root.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in content for content in [*told, done.output.encode()])


async def reset(*_: object, **__: object) -> None:
    raise ConnectionError("the connection was reset")


def test_a_store_that_is_down(machine, monkeypatch):
    a = machine("a")
    down = {"endpoint_url": "http://127.0.0.1:9", "secret": SECRET, "key": "testing"}
    monkeypatch.setitem(fsspec.config.conf, "s3", down)
    seen = tsds("-p", a, "status")
    assert seen.exit_code == 0
    assert "this is what was last seen of it" in seen.output
    refused = tsds("-p", a, "refresh")
    assert refused.exit_code == 1
    assert "tsds.toml: [storage] url" in refused.output
    assert SECRET not in seen.output + refused.output


def test_a_long_refresh_uploads_meanwhile(machine, monkeypatch):
    monkeypatch.setattr(object_storage, "PUSH_SECONDS", 0.0)
    a, b = machine("a"), machine("b")
    with refresh_lock(Project.load(a)):
        next(step for step in Refresh(Project.load(a)).steps() if step.node == "candidate_corpus|s0")
        assert object_storage.Mirror.of(Project.load(b)).pull().copied > 0
    assert states(b)["fresh"] == 3, "a corpus, its vectors and its index"


def test_nothing_is_asked_for_while_another_machine_is_at_work(machine, monkeypatch):
    a, b = machine("a"), machine("b")
    loaded = Project.load(a)
    with project_instance(loaded) as instance:
        defs, cursors = definitions(str(a)), {}

        def said(name: str) -> str:
            result = evaluated(instance, a, defs, name, cursors)
            assert not result.run_requests
            return result.skip_message

        with refresh_lock(Project.load(b)):
            for name in ("project_inputs", "automation_of_many"):
                assert said(name) == "a refresh is under way"
            said("automation")
        said("project_inputs")
        assert evaluated(instance, a, defs, "automation_of_many", cursors).run_requests
        # Nor while nobody can tell.
        monkeypatch.setitem(
            fsspec.config.conf, "s3", {"endpoint_url": "http://127.0.0.1:9", "key": "testing"}
        )
        for name in ("project_inputs", "automation_of_many"):
            assert "[storage] url" in said(name)
