"""Working copies and their object store: what travels, in which order, what wins; and the lock. S3 on this machine."""

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import s3fs

from tests.servers import Bucket
from tsds_pipeline import object_lock, object_storage
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.lock import refresh_lock
from tsds_pipeline.object_lock import LEASE_SECONDS, Lock
from tsds_pipeline.object_storage import Mirror, exchange, held, is_held_elsewhere
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_selection


@pytest.fixture
def copy(tmp_path, bucket: Bucket) -> Callable[[str], Project]:
    """``copy(name)``: another working copy of one project on object storage."""

    def copy(name: str) -> Project:
        root = tmp_path / name
        (root / "sources").mkdir(parents=True)
        (root / "tsds.toml").write_text(f'[storage]\nurl = "{bucket.address("team/project")}/"\n')
        return Project.load(root)

    return copy


@pytest.fixture
def requests(monkeypatch) -> Counter:
    """How often each operation was asked of S3; an operation in ``requests.failing`` breaks after so many."""
    asked = Counter()
    asked.failing = {}
    ask = s3fs.S3FileSystem._call_s3

    async def counted(self, operation, *arguments, **named):
        asked[operation] += 1
        if asked[operation] > asked.failing.get(operation, float("inf")):
            raise ConnectionError("the connection was reset")
        return await ask(self, operation, *arguments, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    return asked


def write(project: Project, *names: str, text: str = "1") -> None:
    for name in names:
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} {text}")


def files(project: Project) -> dict[str, str]:
    """What of ours is in the working copy, without what is hidden."""
    paths = [path for top in ("storage", "exports", "reports") for path in (project.root / top).rglob("*")]
    named = {path.relative_to(project.root).as_posix(): path for path in paths if path.is_file()}
    return {name: path.read_text() for name, path in named.items() if not path.name.startswith(".")}


def mirror(project: Project) -> Mirror:
    found = Mirror.of(project)
    assert found is not None
    return found


def pushed(copy: Callable[[str], Project]) -> tuple[Project, Project]:
    """Two working copies, of which the first has put its results there."""
    a, b = copy("a"), copy("b")
    write(a, *RESULTS)
    mirror(a).push()
    return a, b


def lock_of(project: Project) -> Lock:
    return Lock(mirror(project).url, project.root)


RESULTS = (
    "storage/pool_summary.parquet",
    "storage/query_neighbors/s0/t0.parquet",
    "storage/query_embeddings/t0.vectors-0123.npy",
    "storage/redraws/t0.json",
    "exports/t0/epoch-0-00000-of-00001.jsonl",
    "exports/t0/weighted.parquet",
    "exports/t0/README.md",
    "exports/t0/manifest.json",
    "reports/t0.comparison.html",
)
OF_ONE_MACHINE = (
    "storage/file-hashes.json",
    "storage/warehouse.duckdb",
    "storage/warehouse.duckdb.wal",
    "storage/remote/0123/4567.jsonl",
    "storage/sampled_subset/t0.attempt.json",
    "storage/embedding_cache/0123/1.damaged",
    "storage/.pool_summary.parquet.1-2.tmp",
    "exports/merged/model.safetensors",
    "exports/t0/notes.txt",
    "reports/.gitignore",
)


def test_results_travel_and_nothing_else(copy):
    a, b = copy("a"), copy("b")
    write(a, *RESULTS, *OF_ONE_MACHINE)
    assert mirror(a).push() == (len(RESULTS), 0)
    assert mirror(b).pull() == (len(RESULTS), 0)
    assert sorted(files(b)) == sorted(RESULTS)
    assert all(files(b)[name] == files(a)[name] for name in RESULTS)


def test_a_table_keeps_the_time_at_which_it_was_put_there(copy, monkeypatch):
    """When a sample was drawn is told by it, also on a machine that came later."""
    _, b = pushed(copy)
    seen = {name: one.changed for name, one in mirror(b)._listed().items()}
    assert all(abs(changed - time.time()) < 300 for changed in seen.values())
    monkeypatch.setattr(object_storage, "_changed_at", lambda info: 1e9)
    mirror(b).pull()
    old = {name for name in RESULTS if (b.root / name).stat().st_mtime == 1e9}
    assert old == {name for name in RESULTS if name.endswith(".parquet")}
    assert mirror(b).push() == (0, 0)


def test_a_table_that_is_replaced_amid_the_look_takes_its_payload_along(copy, monkeypatch):
    a, b = copy("a"), copy("b")
    table, payload, new = (
        f"storage/query_embeddings/t0.{end}" for end in ("parquet", "vectors-0123.npy", "vectors-4567.npy")
    )
    write(a, table, payload)
    mirror(a).push()
    stat = object_storage._stat

    def replacing(path):
        """The names are listed already when the table is looked at."""
        if path == a.root / table:
            monkeypatch.setattr(object_storage, "_stat", stat)
            write(a, new, table, text="2")
            (a.root / payload).unlink()
        return stat(path)

    monkeypatch.setattr(object_storage, "_stat", replacing)
    assert mirror(a).push() == (2, 1)
    mirror(b).pull()
    assert files(b) == files(a)
    assert files(b).keys() == {table, new}


def test_only_changes_travel(copy, requests):
    a, b = pushed(copy)
    mirror(b).pull()
    requests.clear()
    for project in (a, b):
        assert mirror(project).pull() == (0, 0)
        assert mirror(project).push() == (0, 0)
    assert requests == {"list_objects_v2": 2}
    write(b, RESULTS[0], text="2")
    (b.root / RESULTS[1]).unlink()
    assert mirror(b).push() == (1, 1)
    assert mirror(a).pull() == (1, 1)
    assert files(a) == files(b)
    assert mirror(a).push() == (0, 0)


def test_what_was_lost_here_comes_back_and_what_was_deleted_is_deleted_there(copy):
    a = copy("a")
    write(a, *RESULTS)
    mirror(a).push()
    for path in (a.root / "storage").rglob("*"):
        if path.is_file():
            path.unlink()  # the note of what was the same, too: as in a new folder
    assert mirror(a).pull() == (len(RESULTS), 0)
    (a.root / RESULTS[0]).unlink()
    assert mirror(a).pull() == (0, 0)
    assert mirror(a).push() == (0, 1)
    assert RESULTS[0] not in files(a)


def test_what_both_changed_is_as_it_is_there(copy):
    a, b = copy("a"), copy("b")
    write(a, *RESULTS[:3])
    mirror(a).push()
    mirror(b).pull()
    write(a, RESULTS[0], text="of a")
    (a.root / RESULTS[1]).unlink()
    mirror(a).push()
    write(b, RESULTS[0], RESULTS[1], RESULTS[2], text="of b")
    mirror(b).pull()
    assert files(b)[RESULTS[0]].endswith("of a")
    assert files(b)[RESULTS[1]].endswith("of b"), "made again here, only gone there"
    assert mirror(b).push() == (2, 0)
    mirror(a).pull()
    assert files(a) == files(b)


def test_another_machine_that_succeeded_ends_the_note_of_a_failure(copy):
    a, b = copy("a"), copy("b")
    write(b, "storage/sampled_subset/t0.attempt.json", "storage/sampled_subset/t1.attempt.json")
    write(a, "storage/sampled_subset/t0.parquet")
    mirror(a).push()
    mirror(b).pull()
    assert sorted(files(b)) == ["storage/sampled_subset/t0.parquet", "storage/sampled_subset/t1.attempt.json"]


def test_what_is_replaced_while_it_is_uploaded_is_left_to_the_next_time(copy, monkeypatch):
    a, b = copy("a"), copy("b")
    payload, table = "storage/kde_densities/s0.vectors-1.npy", "storage/kde_densities/s0.parquet"
    write(a, payload, table)
    mirror(a).push()
    write(a, table, text="2")
    upload = Mirror._upload

    def replaced(self, names, here):
        write(a, payload.replace("-1", "-3"), table, text="for the third time")
        (a.root / payload).unlink()
        return upload(self, names, here)

    with monkeypatch.context() as late:
        late.setattr(Mirror, "_upload", replaced)
        assert mirror(a).push() == (0, 0)
    mirror(b).pull()
    assert payload in files(b), "the table that is there names it still"
    assert mirror(a).push() == (2, 1)
    mirror(b).pull()
    assert files(b) == files(a)


@pytest.mark.parametrize("uploads", [0, 1, 2, 4, 8])
def test_an_upload_that_breaks_leaves_no_table_without_its_payload(copy, requests, bucket, uploads):
    a, b = copy("a"), copy("b")
    write(a, *RESULTS)
    requests.failing = {"put_object": uploads}
    with pytest.raises(TsdsError, match=r"tsds.toml: \[storage\] url: .*: cannot be used \(.*reset"):
        mirror(a).push()
    mirror(b).pull()
    tables = [name for name in files(b) if name.endswith(".parquet")]
    assert not tables or "storage/query_embeddings/t0.vectors-0123.npy" in files(b)
    assert "exports/t0/manifest.json" not in files(b) or len(files(b)) == len(RESULTS)
    requests.failing = {}
    mirror(a).push()
    mirror(b).pull()
    assert files(b) == files(a)


def test_a_download_that_breaks_goes_on_where_it_stopped(copy, requests):
    a, b = pushed(copy)
    requests.failing = {"get_object": 3}
    with pytest.raises(TsdsError, match="reset"):
        mirror(b).pull()
    assert all(text == files(a)[name] for name, text in files(b).items()), "nothing half-written"
    assert not list(b.root.rglob("*.tmp"))
    requests.failing = {}
    mirror(b).pull()
    assert files(b) == files(a)


def test_what_is_replaced_while_it_is_read_is_looked_at_again(copy, monkeypatch):
    a, b = pushed(copy)
    bring = Mirror._bring

    def late(self, state, there):
        monkeypatch.setattr(Mirror, "_bring", bring)
        (a.root / RESULTS[0]).unlink()
        write(a, RESULTS[1], text="2")
        mirror(a).push()
        return bring(self, state, there)

    monkeypatch.setattr(Mirror, "_bring", late)
    mirror(b).pull()
    assert files(b) == files(a)


def test_names_that_lead_out_of_the_project_are_passed_over(copy, bucket):
    a = copy("a")
    for name in (
        "storage/",
        "storage/kde_densities/",
        "storage/../../x.parquet",
        "storage/a/../../../y.parquet",
        "other/z.parquet",
        ".z",
    ):
        bucket.put(f"team/project/{name}", b"bad")
    mirror(a).pull()
    assert files(a) == {}
    assert not list(a.root.parent.rglob("[xyz].parquet"))


class TestHeld:
    """Around a refresh."""

    def test_what_others_made_is_there_and_what_is_made_goes_there(self, copy, requests):
        a, b = copy("a"), copy("b")
        with refresh_lock(a):
            write(a, *RESULTS)
        with refresh_lock(b):
            assert files(b) == files(a)
        requests.clear()
        with refresh_lock(a):
            pass
        assert sum(requests.values()) == 9, requests

    def test_one_machine_at_a_time(self, copy, bucket):
        a, b = copy("a"), copy("b")
        with held(a):
            with pytest.raises(
                TsdsError,
                match=r"s3://.*/team/project: another refresh is under way \(process \d+ on .*\): wait until it has "
                r"ended; if it was killed, its lock ends at \d\d:\d\d:\d\d$",
            ):
                held(b).__enter__()
            with pytest.raises(TsdsError, match="another refresh is under way"):
                exchange(b)
            assert is_held_elsewhere(b)
            assert not is_held_elsewhere(a)
        assert not is_held_elsewhere(b)
        with held(b):
            pass
        exchange(a)

    def test_of_two_that_ask_in_one_instant_one_has_it(self, copy):
        a, b = lock_of(copy("a")), lock_of(copy("b"))
        a._write("create")
        with pytest.raises(OSError):
            b._write("create")
        assert b._try()["owner"] == a._owner
        assert a._try() is None

    def test_what_a_killed_process_left_ends(self, copy, monkeypatch):
        a, b = copy("a"), copy("b")
        self._killed(lock_of(a))
        self._killed(lock_of(a))  # of this working copy, which has a lock of its own, none can be alive
        then = time.time() + LEASE_SECONDS + 1
        monkeypatch.setattr(time, "time", lambda: then)
        self._killed(lock_of(b))
        with pytest.raises(TsdsError, match="another refresh is under way"):
            lock_of(a).take(wait=False)

    @staticmethod
    def _killed(lock: Lock) -> None:
        """Take ``lock``, and nothing more: it is not renewed and not released."""
        lock.take(wait=False)
        lock._ended.set()
        lock._renewing.join()

    def test_a_copied_folder_is_another_working_copy(self, copy, tmp_path):
        a = copy("a")
        with held(a):
            copied = Project.load(shutil.copytree(a.root, tmp_path / "copied"))
            with pytest.raises(TsdsError, match="another refresh is under way"):
                held(copied).__enter__()

    def test_a_lock_is_renewed(self, copy, monkeypatch):
        monkeypatch.setattr(object_lock, "LEASE_SECONDS", 6.0)
        a, b = copy("a"), copy("b")
        with held(a):
            time.sleep(7.0)
            with pytest.raises(TsdsError, match="another refresh is under way"):
                held(b).__enter__()

    def test_one_who_was_not_heard_of_uploads_nothing(self, copy, monkeypatch):
        a, b = copy("a"), copy("b")

        def away() -> None:
            with held(a):
                write(a, RESULTS[0], text="of a")
                monkeypatch.setattr(object_lock, "LEASE_SECONDS", 0.0)
                (b.root / "storage").mkdir()
                lock_of(b)._write("overwrite")

        with pytest.raises(
            TsdsError, match=r"another machine has taken the place of this one, .*; what was made is complete"
        ):
            away()
        mirror(b).pull()
        assert files(b) == {}

    def test_a_machine_that_slept_goes_on_where_no_other_came(self, copy, monkeypatch):
        a, b = copy("a"), copy("b")
        with held(a):
            write(a, RESULTS[0])
            then = time.time() + LEASE_SECONDS + 1
            monkeypatch.setattr(time, "time", lambda: then)
            lock = object_storage._held[a.root]._lock
            lock.require()
            with pytest.raises(TsdsError, match="another refresh is under way"):
                held(b).__enter__()
        mirror(b).pull()
        assert files(b) == files(a)

    def test_of_two_that_replace_a_lock_that_ended_one_has_it(self, copy, monkeypatch):
        monkeypatch.setattr(object_lock, "SETTLE_SECONDS", 1.0)
        a, b, gone = (lock_of(copy(name)) for name in ("a", "b", "gone"))
        monkeypatch.setattr(object_lock, "LEASE_SECONDS", -1.0)
        gone._write("create")
        monkeypatch.setattr(object_lock, "LEASE_SECONDS", LEASE_SECONDS)
        remove, others = object_lock.remove, []

        def meanwhile(fs, paths) -> None:
            """The other one has replaced it when this one removes what it saw."""
            monkeypatch.setattr(object_lock, "remove", remove)
            other = threading.Thread(target=lambda: others.append(b._try()))
            other.start()
            while not b._is_ours(b._read()):
                time.sleep(0.01)
            threads.append(other)
            remove(fs, paths)

        threads: list[threading.Thread] = []
        monkeypatch.setattr(object_lock, "remove", meanwhile)
        assert a._try() is None
        threads[0].join()
        assert [one["owner"] for one in others] == [a._owner]
        with pytest.raises(TsdsError, match="has lost its lock"):
            b.require()
        a.require()

    def test_what_is_renewed_at_the_end_does_not_stay(self, copy, monkeypatch):
        monkeypatch.setattr(object_lock, "LEASE_SECONDS", 1.0)
        a, b = copy("a"), copy("b")
        write, writing = Lock._write, threading.Event()

        def slowly(lock: Lock, mode: str) -> None:
            writing.set()
            time.sleep(0.5)
            write(lock, mode)

        with held(a):
            monkeypatch.setattr(Lock, "_write", slowly)
            writing.wait(5)
        assert lock_of(b)._read() is None

    def test_a_failure_inside_keeps_what_was_made(self, copy):
        a, b = copy("a"), copy("b")

        def failing() -> None:
            with held(a):
                write(a, RESULTS[0])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            failing()
        mirror(b).pull()
        assert files(b) == files(a)

    def test_a_damaged_lock_is_none(self, copy, bucket):
        bucket.put("team/project/lock.json", b"{}")
        a, b = copy("a"), copy("b")
        with held(a), pytest.raises(TsdsError, match="another refresh is under way"):
            held(b).__enter__()


class TestProblems:
    """A store that cannot be had."""

    def test_it_is_down(self, copy, monkeypatch):
        # What FSSPEC_S3_ENDPOINT_URL says, which fsspec reads once.
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": "http://127.0.0.1:9"})
        a = copy("a")
        with pytest.raises(
            TsdsError, match=r"tsds.toml: \[storage\] url: \"s3://.*\": cannot be used \(Could not"
        ):
            held(a).__enter__()
        assert files(a) == {}

    def test_there_is_no_such_bucket(self, copy):
        a = copy("a")
        (a.root / "tsds.toml").write_text('[storage]\nurl = "s3://no-such-bucket-here/x"\n')
        with pytest.raises(TsdsError, match="correct the address"):
            held(Project.load(a.root)).__enter__()

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("abfs://container/x", "needs a package that is not installed .*: pip install adlfs"),
            ("nosuch://folder", "cannot be used .*not known"),
        ],
    )
    def test_a_store_that_cannot_be_opened(self, copy, url, problem):
        a = copy("a")
        (a.root / "tsds.toml").write_text(f'[storage]\nurl = "{url}"\n')
        with pytest.raises(TsdsError, match=problem):
            held(Project.load(a.root)).__enter__()
        with pytest.raises(TsdsError, match=problem):
            mirror(Project.load(a.root)).pull()

    def test_results_that_nobody_made(self, copy):
        with pytest.raises(TsdsError, match='task "t0" has no result yet'):
            load_selection(copy("a"), "t0")

    def test_another_address_is_compared_anew(self, copy, bucket):
        a = copy("a")
        write(a, *RESULTS)
        mirror(a).push()
        (a.root / "tsds.toml").write_text(f'[storage]\nurl = "{bucket.address("other")}"\n')
        moved = mirror(Project.load(a.root))
        assert moved.pull() == (0, 0)
        assert moved.push() == (len(RESULTS), 0)

    def test_a_damaged_note_of_what_was_the_same(self, copy):
        a = copy("a")
        write(a, *RESULTS)
        mirror(a).push()
        for damaged in ("", "[]", json.dumps({"url": mirror(a).url, "files": {"x": [1]}})):
            Path(a.root / "storage" / object_storage.STATE_FILE).write_text(damaged)
            assert mirror(a).pull() == (len(RESULTS), 0)
            assert mirror(a).push() == (0, 0)
