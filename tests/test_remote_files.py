"""What a scan finds at remote addresses, what it says when it cannot, and copies; with servers on this machine."""

import gzip
import importlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.servers import Bucket, Hub, WebServer, last_modified
from tsds_pipeline import remote_files as remote
from tsds_pipeline.corpus import read_queries, read_source
from tsds_pipeline.discovery import Scan, scan
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.file_names import FORMAT_RULE
from tsds_pipeline.project import Project

RECORD = b'{"text": "x"}\n'
KEY = "tsds.toml: [sources.a] path"


@pytest.fixture(autouse=True)
def _no_memory_of_failures(monkeypatch):
    monkeypatch.setattr(remote, "_failed_slowly", {})


@pytest.fixture
def look(tmp_path) -> Callable[..., Scan]:
    """``look(*addresses)``: scan a project whose source "a" they are."""

    def look(*addresses: str) -> Scan:
        listed = ", ".join(f'"{address}"' for address in addresses)
        (tmp_path / "tsds.toml").write_text(f"[sources.a]\npath = [{listed}]\n")
        (tmp_path / "sources").mkdir(exist_ok=True)
        return scan(Project.load(tmp_path))

    return look


def names(found: Scan) -> list[str]:
    files = found.sources["a"]
    assert files.problem is None
    return [files.names[path] for path in files.paths]


def problem(found: Scan) -> str:
    files = found.sources["a"]
    assert files.paths == ()
    assert files.problem
    assert "\n" not in files.problem
    assert files.problem.startswith(KEY)
    return files.problem.removeprefix(f"{KEY}: ")


class TestWeb:
    def test_a_scan_asks_and_does_not_download(self, web: WebServer, look):
        web.files["a.jsonl"] = RECORD
        first = look(web.address("a.jsonl"))
        assert names(first) == [web.address("a.jsonl")]
        assert not first.all_problems()
        assert look(web.address("a.jsonl")) == first
        assert set(web.requests) == {"HEAD a.jsonl"}

    def test_each_kind_of_identification_decides_the_version(self, web: WebServer, look):
        address, versions = web.address("a.jsonl"), []
        for headers in (
            {"ETag": '"1"'},
            {"ETag": '"2"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
            {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
            {"Last-Modified": "Mon, 01 Jan 2024 00:00:01 GMT"},
        ):
            web.headers = lambda _, headers=headers: headers
            for body in (RECORD, 2 * RECORD):
                web.files["a.jsonl"] = body
                versions.append(look(address).sources["a"].version)
        assert versions[0] == versions[1] != versions[2] == versions[3]
        assert len(set(versions)) == 6, "without an ETag the size counts too"

    def test_a_server_that_identifies_nothing_is_a_problem(self, web: WebServer, look):
        web.files["a.jsonl"], web.headers = RECORD, lambda _: {}
        assert problem(look(web.address("a.jsonl"))) == (
            f'"{web.address("a.jsonl")}": the server gives no ETag, checksum or time of change, so no change '
            "would be noticed: copy the file to the project folder and name that"
        )

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (HTTPStatus.NOT_FOUND, "there is no such file (status 404): correct the address"),
            (HTTPStatus.FORBIDDEN, "access is refused (status 403): give credentials in the environment"),
            (HTTPStatus.SERVICE_UNAVAILABLE, "the server answers with status 503: try again later"),
        ],
    )
    def test_what_the_server_refuses(self, web: WebServer, look, status, expected):
        web.files["a.jsonl"], web.status = RECORD, status
        assert problem(look(web.address("a.jsonl"))).startswith(f'"{web.address("a.jsonl")}": {expected}')

    def test_a_server_that_is_down_keeps_its_source(self, web: WebServer, look):
        address = web.address("a.jsonl")
        web.__exit__()
        found = look(address)
        assert problem(found).startswith(f'"{address}": cannot be read (Cannot connect to host 127.0.0.1')
        assert found == look(address)

    def test_what_a_web_server_cannot_do_is_not_tried(self, web: WebServer, look):
        assert "a web server lists no files" in problem(look(web.address("*.jsonl")))
        assert "is not .jsonl, .jsonl.gz, .jsonl.zst, .parquet, .arrow or .csv" in problem(
            look(web.address("a.txt"))
        )
        assert web.requests == []


@pytest.fixture
def silent_server():
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_silent_server_is_waited_for_once(silent_server, look, monkeypatch):
    monkeypatch.setattr(remote, "READ_S", 0.2)
    monkeypatch.setattr(remote, "SLOW_S", 0.2)
    assert "cannot be read (no answer in time)" in problem(look(f"{silent_server}/a.jsonl"))
    monkeypatch.setattr(remote, "opened", None)
    assert "cannot be read (no answer in time)" in problem(look(f"{silent_server}/b.jsonl"))


def test_a_slow_answer_is_no_reason_not_to_ask_again(web: WebServer, look, monkeypatch):
    monkeypatch.setattr(remote, "SLOW_S", -1)
    assert "no such file" in problem(look(web.address("a.jsonl")))
    web.files["a.jsonl"] = RECORD
    assert names(look(web.address("a.jsonl"))) == [web.address("a.jsonl")]


@pytest.mark.parametrize(
    ("address", "package"), [("gs://bucket/a.jsonl", "gcsfs"), ("s3://bucket/a.jsonl", "s3fs")]
)
def test_a_package_that_is_not_installed(look, monkeypatch, address, package):
    known = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(known, address.partition(":")[0], raising=False)
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    text = problem(look(address))
    assert text.startswith(f'"{address}": needs a package that is not installed (')
    assert text.endswith(f": pip install {package}")


def test_an_unknown_protocol(look):
    assert "Protocol not known: foo" in problem(look("foo://a/b.jsonl"))


def test_queries_can_be_remote_too(web: WebServer, tmp_path):
    web.files["queries.jsonl"] = RECORD
    (tmp_path / "tsds.toml").write_text(
        f'[tasks.t]\npath = "{web.address("queries.jsonl")}"\n[tasks.u]\npath = "{web.address("none.jsonl")}"\n'
    )
    tasks = scan(Project.load(tmp_path)).tasks
    (copy,) = tasks["t"].require()
    assert copy.read_bytes() == RECORD
    with pytest.raises(TsdsError, match=r"^tsds.toml: \[tasks.u\] path: .* no such file"):
        tasks["u"].require()


class TestBucket:
    @pytest.fixture
    def full(self, bucket: Bucket) -> Bucket:
        for key in ("top.csv", "a/1.jsonl", "a/[2].jsonl", "a/notes.md", "a/_x.txt", "a/deep/3.parquet"):
            bucket.put(key, RECORD)
        for key in ("day=1/a.jsonl", "day=2/a.jsonl", "day=2/b.csv", "day=2/x/a.jsonl"):
            bucket.put(f"by/{key}", RECORD)
        bucket.put("a/", b"")
        return bucket

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("top.csv", ["top.csv"]),
            ("a/*.jsonl", ["a/1.jsonl", "a/[2].jsonl"]),
            ("a/[2].jsonl", ["a/[2].jsonl"]),
            ("a/[*", ["a/[2].jsonl"]),
            ("a/?.jsonl", ["a/1.jsonl"]),
            ("a/**/*", ["a/1.jsonl", "a/[2].jsonl", "a/deep/3.parquet"]),
            ("by/day=?/a.jsonl", ["by/day=1/a.jsonl", "by/day=2/a.jsonl"]),
            ("by/*2/**/*.jsonl", ["by/day=2/a.jsonl", "by/day=2/x/a.jsonl"]),
            ("**/a.jsonl", ["by/day=1/a.jsonl", "by/day=2/a.jsonl", "by/day=2/x/a.jsonl"]),
            ("*/*/x/**", ["by/day=2/x/a.jsonl"]),
            ("by/day=2", ["by/day=2/a.jsonl", "by/day=2/b.csv"]),
            ("by/day=2/", ["by/day=2/a.jsonl", "by/day=2/b.csv"]),
        ],
    )
    def test_files_patterns_and_folders(self, full: Bucket, look, pattern, expected):
        assert names(look(full.address(pattern))) == [full.address(key) for key in expected]

    def test_what_lies_in_a_folder_and_is_not_read_is_told(self, full: Bucket, look):
        found = look(full.address("a"))
        assert names(found) == [full.address("a/1.jsonl"), full.address("a/[2].jsonl")]
        folder = full.address("a")
        assert found.problems == (
            f"{folder}/_x.txt: not {FORMAT_RULE}: convert it, or move it elsewhere",
            f"{folder}/deep/: only files right inside {folder}/ are read: move these up, or name them: "
            f'path = "{folder}/**/*.jsonl"',
        )

    def test_several_addresses_and_local_files_are_one_source(self, full: Bucket, look, tmp_path):
        (tmp_path / "own.jsonl").write_bytes(RECORD)
        found = look("own.jsonl", full.address("a/*.jsonl"), full.address("a/1.jsonl"))
        own, *copies = found.sources["a"].require()
        assert own == tmp_path / "own.jsonl"
        assert [found.sources["a"].names[copy] for copy in copies] == [
            full.address("a/1.jsonl"),
            full.address("a/[2].jsonl"),
        ]
        assert [copy.read_bytes() for copy in copies] == [RECORD, RECORD]

    def test_the_version_is_of_what_is_there_now(self, full: Bucket, look):
        versions = [look(full.address("a/*.jsonl")).sources["a"].version for _ in range(2)]
        full.put("a/1.jsonl", 2 * RECORD)
        versions.append(look(full.address("a/*.jsonl")).sources["a"].version)
        full.put("a/4.jsonl", RECORD)
        versions.append(look(full.address("a/*.jsonl")).sources["a"].version)
        assert versions[0] == versions[1]
        assert len(set(versions)) == 3

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("none.jsonl", "there is nothing: correct the address"),
            ("none/*.jsonl", "there is nothing: correct the address"),
            ("a/*.csv", "no file (.jsonl, .jsonl.gz, .jsonl.zst, .parquet, .arrow or .csv) at "),
        ],
    )
    def test_nothing_there(self, full: Bucket, look, path, expected):
        text = problem(look(full.address(path)))
        assert expected in text
        assert f'"{full.address(path)}"' in text

    def test_no_such_bucket(self, bucket: Bucket, look):
        text = problem(look("s3://no-such-bucket/a/*.jsonl"))
        assert "there is nothing (The specified bucket does not exist)" in text

    def test_no_credentials_and_then_some(self, full: Bucket, look, monkeypatch, tmp_path):
        from s3fs import S3FileSystem

        S3FileSystem.clear_instance_cache()  # what has connected with credentials
        given = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        for name in given:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        address = full.address("a/1.jsonl")
        text = problem(look(address))
        assert "access is refused (Unable to locate credentials): give credentials in the environment" in text
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        assert names(look(address)) == [address]

    def test_a_folder_that_cannot_be_listed_does_not_pass_for_empty(self, full: Bucket, look, monkeypatch):
        from s3fs import S3FileSystem

        listed = S3FileSystem._lsdir

        async def refused_below(self, path, *args, **options):
            if path.endswith("day=2"):
                raise PermissionError("Access Denied")
            return await listed(self, path, *args, **options)

        monkeypatch.setattr(S3FileSystem, "_lsdir", refused_below)
        assert "access is refused (Access Denied)" in problem(look(full.address("by/**/*.jsonl")))


class TestCopies:
    def test_a_copy_is_made_once_and_replaces_the_one_before(self, web: WebServer, look, tmp_path):
        web.files["a.jsonl"] = RECORD
        address = web.address("a.jsonl")
        (copy,) = look(address).sources["a"].require()
        assert look(address).sources["a"].require() == (copy,)
        assert copy.read_bytes() == RECORD
        assert copy.is_relative_to(tmp_path / "storage" / "remote")
        assert web.asked("GET") == ["a.jsonl"]
        web.files["a.jsonl"] = 2 * RECORD
        (after,) = look(address).sources["a"].require()
        assert after.read_bytes() == 2 * RECORD
        assert list(copy.parent.iterdir()) == [after]

    @pytest.mark.parametrize("headers", ["etag", "last_modified"])
    def test_a_file_that_changes_meanwhile_is_noticed(self, web: WebServer, look, headers, tmp_path):
        if headers == "last_modified":
            web.headers = last_modified
        web.files["a.jsonl"] = 1000 * RECORD
        web.halfway = lambda: web.files.update({"a.jsonl": 2000 * RECORD})
        files = look(web.address("a.jsonl")).sources["a"]
        with pytest.raises(TsdsError, match="changed while it was downloaded: run `tsds refresh` again"):
            files.require()
        assert [path for path in (tmp_path / "storage" / "remote").rglob("*") if path.is_file()] == []
        (copy,) = look(web.address("a.jsonl")).sources["a"].require()
        assert copy.read_bytes() == 2000 * RECORD

    def test_a_connection_that_breaks_leaves_no_copy(self, web: WebServer, look, tmp_path):
        def broken():
            raise ConnectionAbortedError

        web.files["a.jsonl"], web.halfway = 1000 * RECORD, broken
        files = look(web.address("a.jsonl")).sources["a"]
        with pytest.raises(TsdsError, match="cannot be read"):
            files.require()
        assert [path for path in (tmp_path / "storage" / "remote").rglob("*") if path.is_file()] == []

    def test_messages_name_the_address(self, web: WebServer, look):
        web.files |= {"bad.jsonl": b"no json\n", "cut.jsonl.gz": gzip.compress(100 * RECORD)[:-10]}
        rules = {"template": None, "max_chars": 10, "vector_field": None}
        files = look(web.address("bad.jsonl")).sources["a"]
        read = read_source(files.require(), names=files.names, **rules)
        assert read.quarantine["file"].to_list() == [web.address("bad.jsonl")]
        with pytest.raises(TsdsError) as caught:
            read_queries(files.require(), names=files.names, **rules)
        assert web.address("bad.jsonl:1: invalid JSON") in str(caught.value)
        files = look(web.address("cut.jsonl.gz")).sources["a"]
        with pytest.raises(TsdsError) as caught:
            read_source(files.require(), names=files.names, **rules)
        assert str(caught.value).startswith(f"{web.address('cut.jsonl.gz')}: not a whole gzip file")


class TestHub:
    """Datasets by name."""

    ADDRESS = "hf://datasets/owner/name"

    def test_a_name_means_its_shards_wherever_they_are(self, hub: Hub, look):
        shards = [f"data/train-0000{n}-of-00002.jsonl" for n in (0, 1)]
        hub.files = {
            f"owner/name/{name}": RECORD for name in (*shards, "README.md", ".gitattributes", "x.py")
        }
        found = look(self.ADDRESS)
        assert names(found) == [f"{self.ADDRESS}/{name}" for name in shards]
        assert not found.all_problems()
        assert not [request for request in hub.requests if "resolve" in request], "a scan downloads nothing"
        assert look(self.ADDRESS) == found
        hub.files[f"owner/name/{shards[0]}"] = 2 * RECORD
        assert look(self.ADDRESS).sources["a"].version != found.sources["a"].version
        copies = look(self.ADDRESS).sources["a"].require()
        assert [copy.read_bytes() for copy in copies] == [2 * RECORD, RECORD]

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/a.jsonl", ["/a.jsonl"]),
            ("@main/a.jsonl", ["@main/a.jsonl"]),
            ("/data", ["/data/test-0000.csv", "/data/train-0000.csv"]),
            ("@main/data/train-*.csv", ["@main/data/train-0000.csv"]),
            ("/**/*.jsonl", ["/a.jsonl", "/data/deep/b.jsonl"]),
        ],
    )
    def test_files_folders_and_patterns(self, hub: Hub, look, path, expected):
        inside = ("a.jsonl", "data/train-0000.csv", "data/test-0000.csv", "data/deep/b.jsonl")
        hub.files = {f"owner/name/{name}": RECORD for name in inside}
        assert names(look(self.ADDRESS + path)) == [self.ADDRESS + name for name in expected]

    def test_of_several_sets_one_is_named(self, hub: Hub, look):
        inside = (
            "main/train-00000-of-00002.parquet",
            "main/train-00001-of-00002.parquet",
            "main/test.parquet",
        )
        hub.files = {f"owner/name/{name}": RECORD for name in inside}
        assert problem(look(self.ADDRESS)) == (
            f'"{self.ADDRESS}" holds several sets of files (main/test.parquet, main/train-*.parquet): name those '
            f'that count, as in path = "{self.ADDRESS}/main/test.parquet"'
        )
        assert len(names(look(f"{self.ADDRESS}/main/train-*.parquet"))) == 2

    def test_a_saved_dataset_is_its_data_files(self, hub: Hub, look):
        state = b'{"_data_files": [{"filename": "data-0.arrow"}]}'
        hub.files = {
            "owner/name/x/state.json": state,
            "owner/name/x/data-0.arrow": b"",
            "owner/name/x/c.arrow": b"",
        }
        assert names(look(f"{self.ADDRESS}/x")) == [f"{self.ADDRESS}/x/data-0.arrow"]
        hub.files = {"owner/name/x/dataset_dict.json": b'{"splits": ["train"]}'}
        assert (
            "a dataset with the splits train: name the one" in look(f"{self.ADDRESS}/x").sources["a"].problem
        )

    def test_what_is_not_there(self, hub: Hub, look):
        remedy = ": correct the address, or give HF_TOKEN in the environment"
        assert problem(look(self.ADDRESS)) == (
            f'"{self.ADDRESS}": there is nothing (datasets/owner/name (repository not found)){remedy}'
        )
        hub.files = {"owner/name/a.jsonl": RECORD}
        assert problem(look(f"{self.ADDRESS}/b.jsonl")).endswith(
            f"there is nothing (datasets/owner/name/b.jsonl){remedy}"
        )
        assert "revision not found" in problem(look(f"{self.ADDRESS}@v2/a.jsonl"))

    def test_a_token_comes_from_the_environment_and_is_told_nobody(
        self, hub: Hub, look, monkeypatch, tmp_path
    ):
        hub.files, hub.token = {"owner/name/a.jsonl": RECORD}, "hf_secret"
        assert "HF_TOKEN in the environment" in problem(look(self.ADDRESS))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        files = look(self.ADDRESS).sources["a"]
        assert files.require()[0].read_bytes() == RECORD
        assert not [
            path for path in tmp_path.rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()
        ]
        hub.status = HTTPStatus.FORBIDDEN
        found = look(self.ADDRESS)
        assert "access is refused (status 403)" in problem(found)
        assert "hf_secret" not in str(found)

    def test_a_hub_that_is_down_is_a_problem(self, hub: Hub, look, capfd):
        hub.__exit__()
        found = look(self.ADDRESS)
        assert problem(found).startswith(f'"{self.ADDRESS}": cannot be read (')
        hub.__enter__()
        assert capfd.readouterr().err == ""


def test_a_local_project_imports_no_fsspec(tmp_path):
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "a.jsonl").write_bytes(RECORD)
    code = (
        "import sys\nfrom tsds_pipeline.discovery import scan\nfrom tsds_pipeline.project import Project\n"
        f"assert not scan(Project.load({str(tmp_path)!r})).problems\nassert 'fsspec' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path.cwd())
