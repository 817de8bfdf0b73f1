"""`tsds gc`: what is gone leaves nothing behind, and nothing else is touched."""

import os
import shutil
import time

import dagster as dg

from tests.commands import tsds
from tests.projects import refreshed
from tsds_pipeline.encoders.cache import FOLDER, VectorCache
from tsds_pipeline.graph import observe, stored
from tsds_pipeline.orchestration.instances import nodes_of_run, project_instance
from tsds_pipeline.orchestration.retention import old_runs
from tsds_pipeline.project import Project

PASSING = (".lock", "file-hashes.json")


def kept(root):
    folders = root / "storage", root / "exports"
    return {p: p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file() and p.name not in PASSING}


def test_what_is_gone_is_kept_until_gc(done, tmp_path):
    (done / "sources" / "s1.jsonl").unlink()
    shutil.rmtree(done / "tasks" / "t1")
    refreshed(done, models=True)
    before = kept(done)
    assert [path for path in before if "s1" in path.name], "kept"
    result = tsds("-p", done, "gc", "--dry-run")
    assert result.exit_code == 0
    assert "storage/candidate_corpus: there is no source s1" in result.output
    assert "storage/sampled_subset: there is no task t1" in result.output
    assert kept(done) == before
    assert tsds("-p", done, "gc").exit_code == 0
    after = kept(done)
    assert not [
        path for path in after if "s1" in path.relative_to(done).parts or path.name.startswith(("s1.", "t1."))
    ]
    assert (done / "exports" / "t1" / "manifest.json").exists(), "a trainer may be reading it"
    assert {path: before[path] for path in after} == after
    assert "nothing to delete" in tsds("-p", done, "gc").output
    tsds("-p", done, "gc", "--exports")
    assert not (done / "exports" / "t1").exists()
    assert not [step for step in refreshed(done, models=True) if step.outcome != "fresh"]


def test_a_fresh_project_has_no_garbage(done):
    before = kept(done)
    assert "nothing to delete" in tsds("-p", done, "gc", "--exports", "--embeddings").output
    assert kept(done) == before


def test_what_killed_processes_left(done):
    old, new = (done / "storage" / "faiss_index" / f".s0.parquet.{n}.tmp" for n in (1, 2))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert "its writer was killed" in tsds("-p", done, "gc").output
    assert not old.exists()
    assert new.exists(), "its writer may be alive"


def test_vectors_of_other_encoders(done):
    folder = done / "storage" / FOLDER
    present = VectorCache(folder, observe(Project.load(done)).settings["encoder_settings"]).folder
    other = VectorCache(folder, "another encoder").folder
    (other / "model.onnx").write_bytes(b"converted")
    tsds("-p", done, "gc")
    assert len(list(folder.iterdir())) == 2, "they took long to make"
    assert "vectors of another encoder" in tsds("-p", done, "gc", "--embeddings").output
    assert list(folder.iterdir()) == [present]


def test_records_of_what_is_long_ago(done):
    """And never the last of anything: neither a version of a sample, nor the run that made what is there."""
    settings = (done / "tsds.toml").read_text()
    for alpha in (0.5, 0.4):
        (done / "tsds.toml").write_text(f"{settings}\n[tasks.t0]\nalpha = {alpha}\n")
        refreshed(done, models=True)
    project = Project.load(done)
    month = project.storage / "materializations" / "2020-01.jsonl"
    month.write_text("")
    versions = [project.storage / "selection_history" / "t0" / f"{n:06d}-x.parquet" for n in (1, 2)]
    for path in versions:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    long_ago = time.time() - 40 * 86400
    for path in (month, *versions):
        os.utime(path, (long_ago, long_ago))
    with project_instance(project) as instance:
        runs = instance.get_runs()
        one_by_one = [run.run_id for run in runs if "sampled_subset|t0" in nodes_of_run(run)]
        many_at_once = [run.run_id for run in runs if run.job_name == "refresh"]
    assert "nothing to delete" in tsds("-p", done, "gc").output
    assert "2 files" in tsds("-p", done, "gc", "--older-than", "30", "--dry-run").output
    assert month.exists()
    assert "2 files" in tsds("-p", done, "gc", "--older-than", "30").output
    assert [path.exists() for path in (month, *versions)] == [False, False, True]
    (log,) = month.parent.iterdir()
    os.utime(log, (long_ago, long_ago))
    assert "nothing to delete" in tsds("-p", done, "gc", "--older-than", "30").output, "the last of the log"
    with project_instance(project) as instance:
        assert len(instance.get_runs()) == len(runs), "they are of today"
        found = old_runs(instance, time.time() + 1)
        assert one_by_one[1] in found
        assert not {one_by_one[0], many_at_once[-1]} & set(found)
        for run_id in found:
            instance.delete_run(run_id)
        for node in ("sampled_subset|t0", "candidate_corpus|s0", "query_neighbors|s0|t0"):
            asset, _, partition = node.partition("|")
            wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition])
            (event,) = instance.fetch_materializations(wanted, limit=1).records
            assert (
                event.asset_materialization.tags["dagster/data_version"]
                == stored(project.storage, node).version
            )
    assert not [step for step in refreshed(done, models=True) if step.outcome != "fresh"]


def test_days_are_a_number(done):
    assert tsds("-p", done, "gc", "--older-than", "0").exit_code == 2


def test_sums_that_nothing_needs(done):
    folder = done / "storage" / "kernel_sums"
    (present,) = folder.iterdir()
    kept_ones = sorted(present.iterdir())
    assert len(kept_ones) == 3, "two sources, three pairs"
    (present / f"{'0' * 32}-{kept_ones[0].stem.partition('-')[2]}.npz").write_bytes(b"x")
    (folder / "1-radius-0.7").mkdir()
    output = tsds("-p", done, "gc").output
    assert "sums of embeddings that were replaced" in output
    assert "sums for another kernel_radius" in output
    assert sorted(present.iterdir()) == kept_ones
    assert list(folder.iterdir()) == [present]


def test_a_folder_that_is_not_there_deletes_nothing(done):
    """As where a disk is not mounted."""
    shutil.rmtree(done / "sources")
    before = kept(done)
    result = tsds("-p", done, "gc")
    assert result.exit_code == 1
    assert "there are no sources at all, so nothing is deleted" in result.stderr
    assert kept(done) == before


def test_what_others_put_beside_the_exports_stays(done):
    shutil.rmtree(done / "tasks" / "t1")
    (done / "exports" / "merged").mkdir()
    (done / "exports" / "notes.txt").write_text("mine")
    tsds("-p", done, "gc", "--exports")
    assert sorted(path.name for path in (done / "exports").iterdir()) == ["merged", "notes.txt", "t0"]


def test_a_link_to_a_folder_is_deleted_and_not_what_is_there(done, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "manifest.json").write_text("{}")
    link = done / "exports" / "old"
    link.symlink_to(elsewhere)
    assert tsds("-p", done, "gc", "--exports").exit_code == 0
    assert not link.is_symlink()
    assert (elsewhere / "manifest.json").exists()


def test_a_warm_up_that_may_be_under_way_stays(done):
    old, new = (done / "storage" / "gradient_warmups" / name for name in ("old", "new"))
    for path in (old, new):
        path.mkdir(parents=True)
    os.utime(old, (time.time() - 90_000,) * 2)
    assert "adapters of another warm-up" in tsds("-p", done, "gc", "--embeddings").output
    assert (old.exists(), new.exists()) == (False, True)
