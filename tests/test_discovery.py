import gzip
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsds_pipeline import file_hashes
from tsds_pipeline.corpus import read_source
from tsds_pipeline.corpus.lines import import_zstd
from tsds_pipeline.discovery import Scan, scan
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.file_hashes import FileHashes
from tsds_pipeline.file_names import FORMAT_RULE
from tsds_pipeline.keys import KEY_PATTERN
from tsds_pipeline.places import FORMATS
from tsds_pipeline.project import Project

HOUR_NS = 3_600_000_000_000


class Folder:
    """A project folder under test."""

    def __init__(self, root: Path):
        self.root = root

    def write(self, name: str, text: str = '{"text": "x"}\n', *, age_ns: int = HOUR_NS) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        when = time.time_ns() - age_ns
        os.utime(path, ns=(when, when))
        return path

    def scan(self) -> Scan:
        return scan(Project.load(self.root))

    def source_version(self, key: str) -> str:
        found = self.scan().sources[key]
        assert found.problem is None
        return found.version


@pytest.fixture
def folder(tmp_path) -> Folder:
    root = tmp_path / "project"
    (root / "sources").mkdir(parents=True)
    (root / "tasks").mkdir()
    return Folder(root)


@pytest.fixture
def good(folder) -> Folder:
    """One source and one task, nothing wrong."""
    folder.write("sources/a.jsonl")
    folder.write("tasks/t/query.jsonl")
    return folder


def names(folder: Folder, paths: tuple[Path, ...]) -> list[str]:
    return [path.relative_to(folder.root).as_posix() for path in paths]


class TestConvention:
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_a_file_is_a_source_and_a_query_file_a_task(self, folder, suffix):
        folder.write(f"sources/alpaca{suffix}")
        folder.write(f"tasks/bbh/query{suffix}")
        found = folder.scan()
        assert names(folder, found.sources["alpaca"].paths) == [f"sources/alpaca{suffix}"]
        assert names(folder, found.tasks["bbh"].paths) == [f"tasks/bbh/query{suffix}"]
        assert found.all_problems() == found.hints == ()

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_what_is_found_can_be_read(self, folder, suffix):
        path = folder.write(f"sources/alpaca{suffix}")
        if suffix == ".jsonl.gz":
            path.write_bytes(gzip.compress(b'{"text": "x"}\n'))
        elif suffix == ".csv":
            path.write_text("text\nx\n")
        elif suffix == ".jsonl.zst":
            path.write_bytes(import_zstd(path).compress(b'{"text": "x"}\n'))
        elif suffix == ".arrow":
            pl.DataFrame({"text": ["x"]}).write_ipc_stream(path)
        elif suffix == ".parquet":
            pl.DataFrame({"text": ["x"]}).write_parquet(path)
        paths = folder.scan().sources["alpaca"].require()
        read = read_source(paths, template=None, max_chars=10, vector_field=None)
        assert read.corpus["text"].to_list() == ["x"]

    def test_a_folder_is_one_source_or_query_set(self, folder):
        for name in ("b.csv", "a.jsonl.gz", "c with spaces.parquet"):
            folder.write(f"sources/alpaca/{name}")
            folder.write(f"tasks/bbh/query/{name}")
        found = folder.scan()
        expected = ["a.jsonl.gz", "b.csv", "c with spaces.parquet"]
        assert names(folder, found.sources["alpaca"].paths) == [f"sources/alpaca/{name}" for name in expected]
        assert names(folder, found.tasks["bbh"].paths) == [f"tasks/bbh/query/{name}" for name in expected]
        assert found.all_problems() == ()

    def test_keys_are_sorted(self, folder):
        for key in ("b", "a-b", "a", "9"):
            folder.write(f"sources/{key}.jsonl")
            folder.write(f"tasks/{key}/query.jsonl")
        found = folder.scan()
        assert list(found.sources) == list(found.tasks) == ["9", "a", "a-b", "b"]

    @pytest.mark.parametrize(
        "name",
        [".hidden.jsonl", "a.jsonl~", "b.jsonl.tmp", "b.jsonl.part", "README.md", "notes.md", "LICENSE"],
    )
    def test_hidden_temporary_and_note_files_are_passed_over(self, good, name):
        before = good.scan()
        good.write(f"sources/{name}")
        good.write(f"tasks/{name}")
        good.write(f"tasks/t/{name}")
        assert good.scan() == before

    def test_other_files_of_a_task_are_its_own_business(self, good):
        good.write("tasks/t/test.jsonl.gz")
        good.write("tasks/t/notes.docx")
        assert good.scan().all_problems() == ()

    def test_a_task_may_have_a_test_set(self, good):
        good.write("tasks/u/query.jsonl")
        good.write("tasks/u/test/b.csv")
        good.write("tasks/u/test/a.parquet")
        assert {*good.scan().tests} == {"u"}
        good.write("tasks/t/test.jsonl.gz")
        found = good.scan()
        assert names(good, found.tests["t"].paths) == ["tasks/t/test.jsonl.gz"]
        assert names(good, found.tests["u"].paths) == ["tasks/u/test/a.parquet", "tasks/u/test/b.csv"]
        version = found.tests["t"].version
        good.write("tasks/t/test.jsonl.gz", "other")
        changed = good.scan()
        assert changed.tests["t"].version != version
        assert changed.tasks == found.tasks

    def test_what_is_wrong_with_a_test_set_is_its_own_problem(self, good):
        good.write("tasks/t/test.jsonl")
        good.write("tasks/t/test.csv")
        good.write("tasks/t/test/notes.txt")
        found = good.scan()
        assert found.tasks["t"].problem is None
        assert (
            "has files in more than one place (tasks/t/test.csv, tasks/t/test.jsonl"
            in found.tests["t"].problem
        )
        assert found.problems[0].startswith("tasks/t/test/notes.txt: not .jsonl")

    def test_links_are_followed(self, folder, tmp_path):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "x.jsonl").write_text("1")
        (folder.root / "sources" / "file.jsonl").symlink_to(elsewhere / "x.jsonl")
        (folder.root / "sources" / "folder").symlink_to(elsewhere)
        (folder.root / "tasks" / "t").symlink_to(elsewhere)
        (elsewhere / "query.csv").write_text("1")
        found = folder.scan()
        assert names(folder, found.sources["file"].paths) == ["sources/file.jsonl"]
        assert names(folder, found.sources["folder"].paths) == [
            "sources/folder/query.csv",
            "sources/folder/x.jsonl",
        ]
        assert names(folder, found.tasks["t"].paths) == ["tasks/t/query.csv"]

    def test_nothing_there_is_a_problem_for_sources_and_a_hint_for_tasks(self, folder):
        found = folder.scan()
        assert found.sources == found.tasks == {}
        assert found.problems[0].startswith("sources/: no source yet: put a file (.jsonl,")
        assert found.hints[0].startswith(
            "tasks/: no task yet: put example queries in tasks/my-task/query.jsonl"
        )

    def test_missing_folders_are_empty_ones(self, good):
        shutil.rmtree(good.root / "tasks")
        assert good.scan().tasks == {}


class TestNamedInSettings:
    def settings(self, folder: Folder, text: str) -> Scan:
        folder.write("tsds.toml", text)
        return folder.scan()

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ('"data/one.jsonl"', ["data/one.jsonl"]),
            ('"data/*.jsonl"', ["data/one.jsonl", "data/two [2].jsonl"]),
            ('"data/two [2].jsonl"', ["data/two [2].jsonl"]),
            ('"./data/../data/one.jsonl"', ["data/one.jsonl"]),
            ('"data"', ["data/one.jsonl", "data/two [2].jsonl"]),
            ('"data/**/*.jsonl"', ["data/deep/er/three.jsonl", "data/one.jsonl", "data/two [2].jsonl"]),
            ('["data/t*.jsonl", "data/one.jsonl", "data/o*"]', ["data/one.jsonl", "data/two [2].jsonl"]),
        ],
    )
    def test_paths(self, good, path, expected):
        good.write("data/one.jsonl")
        good.write("data/two [2].jsonl")
        good.write("data/.hidden.jsonl")
        good.write("data/two.jsonl~")
        good.write("data/deep/er/three.jsonl")
        found = self.settings(good, f"[sources.x]\npath = {path}\n[tasks.y]\npath = {path}\n")
        assert names(good, found.sources["x"].paths) == names(good, found.tasks["y"].paths) == expected
        assert {*found.sources} == {"a", "x"}
        assert {*found.tasks} == {"t", "y"}

    def test_an_absolute_path(self, good, tmp_path):
        (tmp_path / "outside.csv").write_text("text\nx\n")
        found = self.settings(good, f'[sources.x]\npath = "{tmp_path}/out*.csv"\n')
        assert found.sources["x"].paths == (tmp_path / "outside.csv",)
        assert found.all_problems() == ()

    def test_a_project_in_a_folder_with_wildcards_in_its_name(self, tmp_path):
        folder = Folder(tmp_path / "a[1]*")
        folder.write("data/x.jsonl")
        found = self.settings(folder, '[sources.x]\npath = "data/*.jsonl"\n')
        assert names(folder, found.sources["x"].paths) == ["data/x.jsonl"]

    def test_what_is_named_belongs_to_its_table_alone(self, good):
        good.write("sources/My File.jsonl")
        good.write("sources/Old Parts/1.jsonl")
        good.write("sources/Old Parts/2.jsonl")
        good.write("tasks/BBH/query.jsonl")
        found = self.settings(
            good,
            '[sources.mine]\npath = "sources/My File.jsonl"\n'
            '[sources.old]\npath = "sources/Old Parts/*.jsonl"\n'
            '[tasks.bbh]\npath = "tasks/BBH/query.jsonl"\n',
        )
        assert ({*found.sources}, {*found.tasks}) == ({"a", "mine", "old"}, {"bbh", "t"})
        assert found.all_problems() == ()

    def test_a_folder_keeps_what_is_not_named(self, good):
        good.write("sources/parts/1.jsonl")
        good.write("sources/parts/2.jsonl")
        found = self.settings(good, '[sources.one]\npath = "sources/parts/1.jsonl"\n')
        assert names(good, found.sources["parts"].paths) == ["sources/parts/2.jsonl"]

    def test_a_named_task_may_have_a_folder_without_queries(self, good):
        good.write("tasks/y/test.jsonl")
        good.write("data/y.csv")
        assert self.settings(good, '[tasks.y]\npath = "data/y.csv"\n').all_problems() == ()

    def test_a_path_to_nothing_keeps_the_source_and_says_so(self, good):
        good.write("data/x.txt")
        found = self.settings(good, '[sources.x]\npath = ["data/x.txt", "gone/*.jsonl"]\n')
        problem = f'tsds.toml: [sources.x] path: no file ({FORMAT_RULE}) at "data/x.txt"'
        assert found.sources["x"].problem == problem
        assert found.sources["a"].problem is None

    def test_a_table_without_files(self, good):
        found = self.settings(good, "[sources.aa]\nmax_chars = 5\n[tasks.zebra]\nseed = 1\n")
        assert ({*found.sources}, {*found.tasks}) == ({"a"}, {"t"})
        assert found.problems == (
            'tsds.toml: [sources.aa]: there is no such source (did you mean "a"?): '
            "add sources/aa.jsonl, give the table a path, or remove it",
            "tsds.toml: [tasks.zebra]: there is no such task: "
            "add tasks/zebra/query.jsonl, give the table a path, or remove it",
        )

    def test_a_task_that_names_unknown_sources(self, good):
        good.write("sources/flan_cot.jsonl")
        good.write("tasks/u/query.jsonl")
        found = self.settings(good, '[tasks.t]\nsources = ["flan_cto", "a"]\n[tasks.u]\nexclude = ["A B"]\n')
        assert found.problems == (
            'tsds.toml: [tasks.t] sources: "flan_cto" is not a source (did you mean "flan_cot"?); '
            "there are a, flan_cot",
            'tsds.toml: [tasks.u] exclude: "A B" is not a source; there are a, flan_cot',
        )
        assert found.tasks["t"].problem is None


class TestProblems:
    """What is wrong with one input names it and a way out, and leaves the others alone."""

    def only_problem(self, good: Folder) -> str:
        found = good.scan()
        assert found.sources["a"].problem is None
        assert found.tasks["t"].problem is None
        (problem,) = found.all_problems()
        assert "\n" not in problem
        problem.encode()
        return problem

    @pytest.mark.parametrize(
        ("name", "shown", "suggestion"),
        [
            ("My File.jsonl", '"My File"', "my-file"),
            ("_x.csv", '"_x"', "x"),
            ("a.b.jsonl", '"a.b"', "a-b"),
            ("日本.jsonl", '"日本"', "my-source"),
            (f"{'x' * 64}.jsonl", f'"{"x" * 64}"', "x" * 63),
            ("a\nb.jsonl", r'"a\nb"', "a-nb"),
            (os.fsdecode(b"\xff.jsonl"), r'"\udcff"', "udcff"),
        ],
    )
    def test_a_name_that_is_no_key(self, good, name, shown, suggestion):
        good.write(f"sources/{name}")
        problem = self.only_problem(good)
        assert problem.startswith("sources/")
        assert f"{shown} cannot be a source key (" in problem
        assert (
            f'rename it, for example to "{suggestion}", or name it in tsds.toml: [sources.{suggestion}]'
            in problem
        )

    def test_a_task_name_that_is_no_key(self, good):
        good.write("tasks/BBH/query.jsonl")
        assert 'tasks/BBH/query.jsonl: "BBH" cannot be a task key' in self.only_problem(good)

    def test_an_unknown_format(self, good):
        good.write("sources/b.json")
        assert self.only_problem(good) == (
            f"sources/b.json: not {FORMAT_RULE}: convert it, or move it elsewhere"
        )

    def test_an_unknown_format_in_a_folder_does_not_stop_its_source(self, good):
        good.write("sources/b/1.jsonl")
        good.write("sources/b/_SUCCESS")
        assert self.only_problem(good).startswith("sources/b/_SUCCESS: not .jsonl")
        assert good.scan().sources["b"].problem is None

    def test_a_folder_in_a_folder(self, good):
        good.write("sources/b/1.jsonl")
        good.write("sources/b/deep/2.jsonl")
        problem = self.only_problem(good)
        assert problem.startswith(
            "sources/b/deep/: only files right inside sources/b/ are read: move these up"
        )
        assert problem.endswith('path = "sources/b/**/*"')
        good.write("sources/b/3.csv", "text\nx\n")
        good.write("tsds.toml", '[sources.b]\npath = "sources/b/**/*"\n')
        found = good.scan()
        assert not found.problems
        found = names(good, found.sources["b"].paths)
        assert found == ["sources/b/1.jsonl", "sources/b/3.csv", "sources/b/deep/2.jsonl"]

    def test_two_files_for_one_source(self, good):
        good.write("sources/b.csv")
        good.write("sources/b.jsonl")
        good.write("sources/b/1.parquet")
        assert self.only_problem(good) == (
            '"b" has files in more than one place (sources/b/, sources/b.csv, sources/b.jsonl): '
            "keep one of them"
        )
        assert good.scan().sources["b"].paths == ()

    def test_two_files_for_one_task(self, good):
        good.write("tasks/u/query.csv")
        good.write("tasks/u/query/1.csv")
        assert "(tasks/u/query.csv, tasks/u/query/): keep one of them" in self.only_problem(good)

    def test_a_file_beside_a_named_path(self, good):
        good.write("sources/b.csv")
        good.write("data/b.csv")
        good.write("tsds.toml", '[sources.b]\npath = "data/b.csv"\n')
        assert "(tsds.toml: [sources.b] path, sources/b.csv): keep one of them" in self.only_problem(good)

    def test_an_empty_source_folder(self, good):
        (good.root / "sources" / "b").mkdir()
        assert self.only_problem(good) == (
            f"sources/b/: no file ({FORMAT_RULE}) in it: add one, or remove the folder"
        )

    def test_a_task_without_queries(self, good):
        good.write("tasks/u/queries.jsonl")
        good.write("tasks/u/query.json")
        assert self.only_problem(good) == (
            "tasks/u/: no queries (there is queries.jsonl, query.json): put them in query.jsonl "
            "(.jsonl, .jsonl.gz, .jsonl.zst, .parquet, .arrow or .csv)"
        )

    def test_a_file_where_a_task_folder_belongs(self, good):
        good.write("tasks/u.csv")
        assert self.only_problem(good) == (
            "tasks/u.csv: a task is a folder: move its queries to tasks/u/query.jsonl"
        )

    @pytest.mark.parametrize(
        "name", ["sources/b.jsonl", "sources/b", "sources/b/1.jsonl", "tasks/u", "tasks/u/query.csv"]
    )
    def test_a_broken_link(self, good, name):
        (good.root / name).parent.mkdir(exist_ok=True)
        (good.root / name).symlink_to("/no/such/place")
        assert self.only_problem(good) == (
            f"{name}: a broken link: restore its target /no/such/place, or remove the link"
        )

    def test_a_link_to_itself(self, good):
        (good.root / "sources" / "b.jsonl").symlink_to("b.jsonl")
        assert "sources/b.jsonl: a broken link" in self.only_problem(good)

    def test_a_pipe_is_not_waited_for(self, good):
        os.mkfifo(good.root / "sources" / "b.jsonl")
        assert "sources/b.jsonl: cannot be read: not a regular file" in self.only_problem(good)

    def test_a_file_that_cannot_be_read(self, good, monkeypatch):
        good.write("sources/b.jsonl")
        deny(monkeypatch, "b.jsonl")
        assert self.only_problem(good) == (
            "sources/b.jsonl: cannot be read: Permission denied: make it a readable file, or remove it"
        )

    @pytest.mark.parametrize("name", ["sources/b", "tasks/u", "tasks/u/query"])
    def test_a_folder_that_cannot_be_listed(self, good, monkeypatch, name):
        good.write(f"{name}/1.jsonl")
        deny(monkeypatch, Path(name).name)
        assert self.only_problem(good) == (
            f"{name}/: cannot be listed: Permission denied: make it readable, or remove it"
        )

    @pytest.mark.parametrize("name", ["sources", "tasks"])
    def test_what_cannot_be_seen_is_not_taken_for_removed(self, good, monkeypatch, name):
        deny(monkeypatch, name)
        with pytest.raises(TsdsError, match=rf"{name}: cannot be listed: Permission denied"):
            good.scan()

    def test_nor_is_a_folder_whose_mount_is_gone(self, good):
        shutil.rmtree(good.root / "sources")
        (good.root / "sources").symlink_to("/no/such/place")
        with pytest.raises(TsdsError, match="sources: cannot be listed"):
            good.scan()

    def test_require_gives_the_files_or_raises_the_problem(self, good):
        (good.root / "sources" / "b").mkdir()
        found = good.scan()
        assert found.sources["a"].require() == (good.root / "sources" / "a.jsonl",)
        with pytest.raises(TsdsError, match="sources/b/: no file"):
            found.sources["b"].require()

    def test_a_problem_has_a_steady_version_of_its_own(self, good):
        good.write("sources/b.csv")
        before = good.scan().sources["b"].version
        good.write("sources/b.jsonl")
        broken = [good.scan().sources["b"] for _ in range(2)]
        assert broken[0] == broken[1]
        assert broken[0].version != before
        (good.root / "sources" / "b.jsonl").unlink()
        assert good.scan().sources["b"].version == before


class TestVersion:
    def test_it_is_32_hex_characters(self, good):
        assert len(bytes.fromhex(good.source_version("a"))) == 16

    def test_it_follows_the_bytes(self, good):
        before = good.source_version("a")
        good.write("sources/a.jsonl", "other")
        assert good.source_version("a") != before
        good.write("sources/a.jsonl")
        assert good.source_version("a") == before

    def test_it_follows_the_names_and_the_set_of_files(self, folder):
        folder.write("sources/s/1.jsonl", "one")
        folder.write("sources/s/2.jsonl", "two")
        versions = [folder.source_version("s")]
        (folder.root / "sources/s/2.jsonl").rename(folder.root / "sources/s/3.jsonl")
        versions.append(folder.source_version("s"))
        (folder.root / "sources/s/3.jsonl").unlink()
        versions.append(folder.source_version("s"))
        folder.write("sources/s/2.jsonl", "")
        versions.append(folder.source_version("s"))
        assert len(set(versions)) == 4

    def test_it_does_not_follow_the_folder_of_the_project(self, good, tmp_path):
        good.write("tsds.toml", '[sources.b]\npath = "data"\n')
        good.write("data/b.jsonl")
        before = good.scan()
        good.root.rename(tmp_path / "moved")
        after = Folder(tmp_path / "moved").scan()
        assert {key: found.version for key, found in after.sources.items()} == {
            key: found.version for key, found in before.sources.items()
        }

    def test_it_follows_nothing_else(self, good):
        before = good.scan()
        (good.root / "sources/a.jsonl").touch()
        (good.root / "sources/a.jsonl").chmod(0o600)
        good.write("sources/b.jsonl")
        after = good.scan()
        assert after.sources["a"] == before.sources["a"]
        assert after.tasks == before.tasks


def deny(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let what is called ``name`` refuse to be opened or listed (the tests may run as root)."""

    def refusing(function: Callable) -> Callable:
        def wrapper(path, *arguments, **options):
            if Path(path).name == name:
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *arguments, **options)

        return wrapper

    monkeypatch.setattr(os, "listdir", refusing(os.listdir))
    monkeypatch.setattr(Path, "open", refusing(Path.open))


class TestFileHashes:
    """Files are read once, and read again whenever they could have changed."""

    @pytest.fixture
    def read(self, monkeypatch) -> list[str]:
        """The names of the input files that are opened, in order."""
        opened: list[str] = []
        original = Path.open

        def recording(path, mode="r", *arguments, **options):
            if mode == "rb" and path.suffix == ".jsonl":
                opened.append(path.name)
            return original(path, mode, *arguments, **options)

        monkeypatch.setattr(Path, "open", recording)
        return opened

    def test_unchanged_files_are_not_read_again(self, good, read):
        first = good.scan()
        assert sorted(read) == ["a.jsonl", "query.jsonl"]
        assert good.scan() == first
        assert len(read) == 2

    def test_a_changed_file_alone_is_read_again(self, good, read):
        before = good.scan()
        good.write("sources/a.jsonl", "longer than it was before\n")
        read.clear()
        after = good.scan()
        assert read == ["a.jsonl"]
        assert after.sources != before.sources
        assert after.tasks == before.tasks

    def test_a_file_that_was_just_written_is_not_trusted(self, good, read):
        good.write("sources/a.jsonl", "aaa", age_ns=1_000_000_000)
        when = (good.root / "sources/a.jsonl").stat().st_mtime_ns
        before = good.source_version("a")
        # Within the coarseness of modification times: same size, same time, other bytes.
        (good.root / "sources/a.jsonl").write_text("bbb")
        os.utime(good.root / "sources/a.jsonl", ns=(when, when))
        assert good.source_version("a") != before

    def test_nor_is_one_from_the_future(self, good, read):
        good.write("sources/a.jsonl", age_ns=-HOUR_NS)
        good.scan()
        good.scan()
        assert read.count("a.jsonl") == 2

    def test_a_replaced_file_of_the_same_size_and_time_is_read_again(self, good):
        path = good.write("sources/a.jsonl", "aaa")
        before = good.source_version("a")
        status = path.stat()
        other = good.write("elsewhere", "bbb")
        os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns))
        other.replace(path)
        assert good.source_version("a") != before

    def test_what_is_gone_is_forgotten(self, good):
        good.write("sources/b.jsonl")
        good.scan()
        (good.root / "sources" / "b.jsonl").unlink()
        good.scan()
        cached = json.loads((good.root / "storage/file-hashes.json").read_text())["files"]
        assert sorted(Path(name).name for name in cached) == ["a.jsonl", "query.jsonl"]

    def test_the_cache_is_written_only_when_it_changes(self, good):
        good.scan()
        cache = good.root / "storage/file-hashes.json"
        before = cache.stat().st_ino
        good.scan()
        assert cache.stat().st_ino == before
        assert [path.name for path in (good.root / "storage").iterdir()] == ["file-hashes.json"]

    @pytest.mark.parametrize(
        "damage",
        [
            b"",
            b"\xff\xfe",
            b"[]",
            b"{}",
            b'{"format": 0, "files": {}}',
            b'{"format": 1, "files": []}',
            b'{"format": 1, "files": {"x": 1}}',
            b'{"format": 1, "files": {"x": [1, 2, 3, "short"]}}',
            b'{"format": 1, "files": {"x": [1, 2, 3, 4]}}',
            b"[" * 100_000,
        ],
    )
    def test_a_damaged_cache_is_made_anew(self, good, damage):
        before = good.scan()
        cache = good.root / "storage/file-hashes.json"
        sound = cache.read_bytes()
        cache.write_bytes(damage)
        assert good.scan() == before
        assert cache.read_bytes() == sound

    def test_a_cache_cut_short_anywhere(self, good):
        before = good.scan()
        cache = good.root / "storage/file-hashes.json"
        sound = cache.read_bytes()
        for length in range(0, len(sound), 37):
            cache.write_bytes(sound[:length])
            assert good.scan() == before

    def test_a_cache_that_cannot_be_written(self, good):
        good.write("storage", "a file where a folder should be")
        assert good.scan().all_problems() == ()

    def test_an_interrupted_scan_keeps_what_it_has_read(self, tmp_path):
        folder = Folder(tmp_path)
        old, new = folder.write("old", "1"), folder.write("new", "2")
        with FileHashes(tmp_path / "cache") as hashes:
            hashes.digest(old)
        with suppress(KeyboardInterrupt), FileHashes(tmp_path / "cache") as hashes:
            hashes.digest(new)
            raise KeyboardInterrupt
        cached = json.loads((tmp_path / "cache").read_text())["files"]
        assert sorted(cached) == sorted([str(old), str(new)])

    def test_a_file_that_changes_while_it_is_read_is_read_again(self, good, monkeypatch):
        path = good.write("sources/a.jsonl", "before")
        changes = iter(["between"])
        during_reading(monkeypatch, lambda: [path.write_text(text) for text in changes])
        found = good.source_version("a")
        monkeypatch.undo()
        assert found == good.source_version("a")

    def test_a_file_that_never_settles_is_a_problem(self, good, monkeypatch):
        path = good.write("sources/a.jsonl", "x")
        during_reading(monkeypatch, lambda: path.write_text(path.read_text() + "x"))
        found = good.scan()
        assert found.sources["a"].problem == (
            "sources/a.jsonl: kept changing while it was read: write it elsewhere and move it here complete"
        )
        assert found.tasks["t"].problem is None

    def test_a_file_that_goes_while_it_is_read_is_a_problem(self, good, monkeypatch):
        path = good.write("sources/a.jsonl", "x")
        during_reading(monkeypatch, lambda: path.unlink(missing_ok=True))
        assert "sources/a.jsonl: cannot be read: No such file" in good.scan().sources["a"].problem

    def test_two_scans_at_once(self, good):
        for number in range(20):
            good.write(f"sources/s{number}.jsonl", str(number))
        found: list[Scan] = []
        threads = [threading.Thread(target=lambda: found.append(good.scan())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [good.scan()] * 4

    def test_an_unchanged_project_is_scanned_without_reading_it(self, folder, monkeypatch):
        for number in range(300):
            folder.write(f"sources/s{number}.jsonl", str(number))
        found = folder.scan()
        monkeypatch.setattr(file_hashes.hashlib, "file_digest", None)
        assert folder.scan() == found


FILE_NAMES = st.one_of(
    st.sampled_from(["a", "b", "query", "queries", "README", ".x", "A", "a b"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12),
)
SUFFIXES = st.sampled_from([*FORMATS, "", ".json", ".tmp", "~", ".md"])
TREES = st.lists(
    st.tuples(st.lists(FILE_NAMES, max_size=2), FILE_NAMES, SUFFIXES, st.sampled_from(["sources", "tasks"])),
    max_size=8,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_any_tree_gives_valid_keys_files_that_exist_and_one_line_problems(tmp_path, tree):
    root = tmp_path / "any"
    shutil.rmtree(root, ignore_errors=True)
    (root / "sources").mkdir(parents=True)
    for folders, name, suffix, top in tree:
        path = root.joinpath(top, *folders, name + suffix)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        except OSError:  # "..", or a file and a folder of one name
            continue
    found = scan(Project.load(root))
    for inputs in (found.sources, found.tasks):
        assert list(inputs) == sorted(inputs)
        for key, files in inputs.items():
            assert KEY_PATTERN.fullmatch(key)
            assert bool(files.paths) != bool(files.problem)
            assert all(path.is_file() for path in files.paths)
    assert all(len(problem.splitlines()) == 1 and problem.isprintable() for problem in found.all_problems())
    assert scan(Project.load(root)) == found


def during_reading(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Run ``change`` after a file was read and before its hash is returned."""
    original = file_hashes.hashlib.file_digest

    def digest(*arguments):
        result = original(*arguments)
        change()
        return result

    monkeypatch.setattr(file_hashes.hashlib, "file_digest", digest)


class TestSavedDatasets:
    """Folders as ``save_to_disk`` of Hugging Face datasets writes them."""

    def save(self, folder: Folder, name: str, shards: int = 2) -> None:
        for number in range(shards):
            path = folder.write(f"{name}/data-{number:05}-of-{shards:05}.arrow")
            pl.DataFrame({"text": [f"{name} {number}"]}).write_ipc_stream(path)
        files = [{"filename": f"data-{n:05}-of-{shards:05}.arrow"} for n in range(shards)]
        folder.write(f"{name}/state.json", json.dumps({"_data_files": files, "_split": None}))
        folder.write(f"{name}/dataset_info.json", "{}")

    def test_its_data_files_are_the_source_and_nothing_else_that_lies_there(self, folder):
        self.save(folder, "sources/x", 3)
        self.save(folder, "sources/x", 2)
        folder.write("sources/x/cache-1.arrow")
        folder.write("tasks/t/query.jsonl")
        found = folder.scan()
        assert names(folder, found.sources["x"].paths) == [
            f"sources/x/data-0000{n}-of-00002.arrow" for n in (0, 1)
        ]
        assert found.all_problems() == ()

    def test_of_splits_one_is_named(self, good):
        for split in ("train", "test"):
            self.save(good, f"sources/x/{split}", 1)
        good.write("sources/x/dataset_dict.json", '{"splits": ["train", "test"]}')
        assert good.scan().all_problems() == (
            "sources/x/: a dataset with the splits train, test: name the one that counts, as in "
            'path = "sources/x/train"',
        )
        good.write("tsds.toml", '[sources.x]\npath = "sources/x/train"\n')
        found = good.scan()
        assert found.all_problems() == ()
        assert names(good, found.sources["x"].paths) == ["sources/x/train/data-00000-of-00001.arrow"]
        good.write("tsds.toml", '[sources.y]\npath = "sources/x"\n')
        assert "the splits train, test" in good.scan().sources["y"].problem

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"_data_files": []}', '{"_data_files": [{"filename": 1}]}']
    )
    def test_a_damaged_description_is_a_problem(self, good, text):
        good.write("sources/x/state.json", text)
        assert good.scan().all_problems() == (
            "sources/x/state.json: does not describe a dataset of Hugging Face: save or copy it again",
        )

    @pytest.mark.parametrize("name", ["data-00001-of-00002.arrow", "../a.jsonl"])
    def test_a_missing_file_is_a_problem(self, good, name):
        self.save(good, "sources/x", 1)
        good.write("sources/x/state.json", json.dumps({"_data_files": [{"filename": name}]}))
        assert good.scan().all_problems() == (
            f"sources/x/: the dataset's {name} is missing: save or copy it again",
        )


class TestVectors:
    """Files of vectors beside the records."""

    PRECOMPUTED = '[encoder]\nkind = "precomputed"\n'

    def named(
        self, good: Folder, vectors: str, *, kind: str = "sources", settings: str = PRECOMPUTED
    ) -> Scan:
        key = "a" if kind == "sources" else "t"
        good.write("tsds.toml", f"{settings}[{kind}.{key}]\nvectors = {vectors}\n")
        return good.scan()

    @pytest.mark.parametrize("kind", ["sources", "tasks"])
    def test_they_and_their_ids_count_for_the_version(self, good, kind):
        plain = good.scan()
        for name in ("v/b.npy", "v/b.ids.txt", "v/a.parquet"):
            good.write(name)
        found = self.named(good, '["v/*.npy", "v/a.parquet"]', kind=kind)
        assert found.all_problems() == ()
        files = found.sources["a"] if kind == "sources" else found.tasks["t"]
        assert names(good, files.vectors) == ["v/a.parquet", "v/b.npy"]
        seen = {(plain.sources["a"] if kind == "sources" else plain.tasks["t"]).version, files.version}
        assert len(seen) == 2
        for name in ("v/b.npy", "v/b.ids.txt", "v/a.parquet"):
            good.write(name, f"other {name}")
            found = good.scan()
            seen.add((found.sources["a"] if kind == "sources" else found.tasks["t"]).version)
        assert len(seen) == 5

    @pytest.mark.parametrize(
        ("vectors", "problem"),
        [
            ('"v/gone.npy"', 'no file (.npy (with .ids.txt beside it), .parquet or .arrow) at "v/gone.npy"'),
            (
                '"a.txt"',
                '"a.txt" is not .npy (with .ids.txt beside it), .parquet or .arrow: name such a file',
            ),
            ('"s3://b/v.npy"', '"s3://b/v.npy": vectors are read from this machine: copy them here'),
        ],
    )
    def test_what_cannot_be_used_is_a_problem(self, good, vectors, problem):
        good.write("a.txt")
        found = self.named(good, vectors)
        assert found.all_problems() == (f"tsds.toml: [sources.a] vectors: {problem}",)

    def test_ids_that_are_missing_are_a_problem(self, good):
        good.write("v/b.npy")
        assert self.named(good, '"v/b.npy"').all_problems() == (
            "v/b.ids.txt: is not there: write the id of each vector in b.npy there, one a line",
        )

    def test_where_texts_are_encoded_they_are_a_problem(self, good):
        good.write("v/a.parquet")
        assert self.named(good, '"v/a.parquet"', settings="").all_problems() == (
            'tsds.toml: [sources.a] vectors: needs [encoder] kind = "precomputed": nothing else reads them',
        )
