"""The built-in corpus as files: what is in it, what is kept out of it, and that it is always the same."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tsds_pipeline.corpus import demo, read_queries, read_source
from tsds_pipeline.corpus.demo import DemoContents, write_demo
from tsds_pipeline.corpus.demo_tables import LIBRARIES, TASKS, Library, Task, is_below
from tsds_pipeline.discovery import scan
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.project import Project

WRITE = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from tsds_pipeline.corpus.demo import write_demo
before = set(sys.modules)
contents = write_demo(Path(sys.argv[1]))
imported = sorted(name for name in set(sys.modules) - before if not name.startswith("encodings."))
print(json.dumps({"contents": asdict(contents), "imported": imported}))
"""


@dataclass(frozen=True)
class Written:
    """The whole demo, written by a process of its own."""

    root: Path
    contents: DemoContents
    imported: list[str]

    @property
    def pool(self) -> list[dict[str, str]]:
        return [record for key in LIBRARIES for record in records(self.root / "sources" / f"{key}.jsonl")]

    def queries(self, task: str) -> list[dict[str, str]]:
        return records(self.root / "tasks" / task / "query.jsonl")


def records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Written:
    root = tmp_path_factory.mktemp("demo")
    process = subprocess.run([sys.executable, "-c", WRITE, root], capture_output=True, text=True, check=True)
    result = json.loads(process.stdout)
    return Written(root, DemoContents(**result["contents"]), result["imported"])


@pytest.fixture
def small(monkeypatch):
    """A demo of two small libraries, quick to write."""
    libraries = {"json": Library(("json",), limit=5), "csv": Library(("csv",), limit=50)}
    monkeypatch.setattr(demo, "LIBRARIES", libraries)
    monkeypatch.setattr(demo, "TASKS", {"decoding": Task("decoding", ("json.decoder",), ("csv",))})


def test_the_demo_is_complete_and_not_too_large(written):
    assert written.contents.absent == ()
    assert written.contents.sources == {
        key: len(records(written.root / "sources" / f"{key}.jsonl")) for key in LIBRARIES
    }
    assert written.contents.tasks == {key: len(written.queries(key)) for key in TASKS}
    assert 4000 <= sum(written.contents.sources.values()) <= 6000
    assert all(20 <= count <= 40 for count in written.contents.tasks.values())


def test_the_demo_is_a_project_whose_records_are_all_good(written):
    project = Project.load(written.root)
    inputs = scan(project)
    assert inputs.all_problems() == ()
    assert set(inputs.sources) == set(LIBRARIES)
    assert set(inputs.tasks) == set(TASKS)
    for key in LIBRARIES:
        read = read_source(
            [written.root / "sources" / f"{key}.jsonl"], template=None, max_chars=10_000, vector_field=None
        )
        assert read.read == written.contents.sources[key]
        assert read.quarantine.is_empty()
    for key in TASKS:
        path = written.root / "tasks" / key / "query.jsonl"
        read = read_queries([path], template=None, max_chars=10_000, vector_field=None)
        assert len(read) == written.contents.tasks[key]


def test_nothing_is_imported(written):
    assert written.imported == []


def test_names_and_texts_are_fit_to_be_read(written):
    names = [record["id"] for record in written.pool]
    assert len(set(names)) == len(names)
    assert all(20 <= len(record["text"]) <= 244 and "\n" not in record["text"] for record in written.pool)


def test_copies_are_kept(written):
    texts = [record["text"] for record in written.pool]
    assert len(set(texts)) < 0.95 * len(texts)


def test_modules_that_give_queries_are_kept_out_of_the_pool(written):
    held_back = [module for task in TASKS.values() for module in task.queries]
    assert not [record for record in written.pool if is_below(record["module"], held_back)]
    for key, task in TASKS.items():
        assert all(is_below(query["module"], task.queries) for query in written.queries(key))


def test_no_query_is_in_the_pool(written):
    def essence(record: dict[str, str]) -> str:
        return "".join(filter(str.isalnum, record["text"].casefold()))

    pool = set(map(essence, written.pool))
    for key in TASKS:
        queries = [essence(query) for query in written.queries(key)]
        assert len(set(queries)) == len(queries)
        assert not pool & set(queries)


def test_every_task_has_examples_to_find_but_few(written):
    modules = [record["module"] for record in written.pool]
    for key, task in TASKS.items():
        assert written.contents.expected_share[key] == task.expected_share(modules)
        assert 0.008 < task.expected_share(modules) < 0.1
        for module in task.expected:
            assert any(is_below(other, [module]) for other in modules), module


@pytest.mark.long
def test_the_nearest_candidates_are_in_the_expected_modules(written):
    from tsds_pipeline.encoders import make_encoder
    from tsds_pipeline.settings import EncoderSettings

    encoder = make_encoder(EncoderSettings())
    pool = {record["text"]: record["module"] for record in written.pool}
    candidates = encoder.encode(list(pool))
    modules = np.array(list(pool.values()))
    for key, task in TASKS.items():
        queries = encoder.encode([query["text"] for query in written.queries(key)])
        nearest = np.argsort(-queries @ candidates.T, axis=1)[:, :10]
        assert task.expected_share(modules[nearest[:, 0]]) > 0.7, key
        assert task.expected_share(modules[nearest].ravel()) > 0.5, key


def test_the_same_libraries_give_the_same_bytes_and_untouched_files(small, tmp_path):
    def state(root: Path) -> dict[str, tuple[bytes, int]]:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    contents = write_demo(tmp_path / "one")
    before = state(tmp_path / "one")
    assert write_demo(tmp_path / "one") == contents == write_demo(tmp_path / "two")
    assert state(tmp_path / "one") == before
    two = state(tmp_path / "two")
    assert {name: content for name, (content, _) in two.items()} == {
        name: content for name, (content, _) in before.items()
    }
    assert sorted(before) == [
        "sources/csv.jsonl",
        "sources/json.jsonl",
        "tasks/decoding/query.jsonl",
        "tsds.toml",
    ]


def test_a_sample_does_not_depend_on_the_order_and_grows_with_the_limit(small):
    found = demo._read(("json", "csv"))
    few = demo._sample(found, 5, by=lambda docstring: docstring.name)
    assert few == demo._sample(found[::-1], 5, by=lambda docstring: docstring.name)
    assert set(few) < set(demo._sample(found, 8, by=lambda docstring: docstring.name))


def test_a_library_that_is_not_installed_is_left_out_and_named(small, monkeypatch, tmp_path):
    write_demo(tmp_path)
    monkeypatch.setitem(demo.LIBRARIES, "csv", Library(("no_such_library",), limit=50))
    monkeypatch.setitem(demo.TASKS, "lost", Task("lost", ("no_such_library.part",), ("json",)))
    contents = write_demo(tmp_path)
    assert contents.absent == ("csv", "lost")
    assert contents.sources["json"] == 5
    # What stood there while the library was installed is gone too.
    assert [path.name for path in (tmp_path / "sources").iterdir()] == ["json.jsonl"]
    assert not (tmp_path / "tasks" / "lost").exists()


def test_changed_settings_stay(small, tmp_path):
    write_demo(tmp_path)
    settings = tmp_path / "tsds.toml"
    settings.write_text(settings.read_text() + "epochs = 2\n")
    write_demo(tmp_path)
    assert settings.read_text().endswith("epochs = 2\n")


@pytest.mark.parametrize("name", ["tsds.toml", "sources/mine.jsonl", "tasks/mine/query.jsonl"])
def test_another_project_is_left_alone(small, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# mine\n")
    with pytest.raises(TsdsError, match="another project: name another folder"):
        write_demo(tmp_path)
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


def test_a_place_that_cannot_be_written_is_one_clear_line(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TsdsError, match=r"cannot write the demo: .*: name another folder"):
        write_demo(tmp_path / "file")
