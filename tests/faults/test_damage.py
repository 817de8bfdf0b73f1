"""Stored results that were damaged: named, set aside and made again, to the same bytes."""

import shutil
from pathlib import Path

import pytest

from tests.commands import tsds
from tests.projects import WITH_REPORTS, bytes_of_results, made, make_project, refreshed
from tsds_pipeline.damage import HASHES, find_damage
from tsds_pipeline.garbage import garbage
from tsds_pipeline.graph import nodes, observe
from tsds_pipeline.project import Project


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("damage") / "project"
    make_project(root)
    made(refreshed(root, models=True))
    return root


@pytest.fixture
def project(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "project")


def flip(path: Path, place: int = -100) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 255
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


DAMAGE = {
    "candidate_corpus|s0": ("candidate_corpus/s0.parquet", flip),
    "candidate_embeddings|s1": ("candidate_embeddings/s1.vectors-*.npy", flip),
    "faiss_index|s0": ("faiss_index/s0.index-*.faiss", cut),
    "kde_densities|s1": ("kde_densities/s1.parquet", lambda path: flip(path, 30)),
    "query_neighbors|s0|t1": ("query_neighbors/s0/t1.parquet", cut),
    "sampled_subset|t0": ("sampled_subset/t0.parquet", lambda path: path.write_bytes(b"")),
    "stg_samples": ("stg_samples.parquet", flip),
}


def test_all_of_it_is_made_again_to_the_same_bytes(project):
    before = bytes_of_results(project)
    for pattern, damage in DAMAGE.values():
        (path,) = (project / "storage").glob(pattern)
        damage(path)
    result = tsds("-p", project, "refresh")
    assert result.exit_code == 0, result.output
    told = [line for line in result.stderr.splitlines() if "set aside and made again" in line]
    assert len(told) == len(DAMAGE)
    for pattern, _ in DAMAGE.values():
        assert any(pattern.partition("*")[0] in line.replace("\\", "/") for line in told), pattern
    assert bytes_of_results(project) == before
    observed = observe(Project.load(project))
    (project / "storage" / HASHES).unlink(missing_ok=True)  # not written while all is too new for it
    assert find_damage(project / "storage", nodes(observed)) == {}
    aside = [one for one in garbage(observed) if one.reason == "it was damaged"]
    assert len(aside) == len(DAMAGE)
    assert "0 made" in tsds("-p", project, "refresh").output


def test_a_refresh_of_one_task_mends_what_it_needs(project):
    (path,) = (project / "storage").glob("faiss_index/s1.index-*.faiss")
    flip(path)
    flip(project / "storage" / "sampled_subset" / "t1.parquet")
    assert "faiss_index|s1" in made(refreshed(project, task="t0"))
    assert made(refreshed(project)) == ["sampled_subset|t1"]


def test_a_record_of_the_history_is_named_and_set_aside(tmp_path, caplog):
    """Nothing could make it again, and nothing is decided by it."""
    root = make_project(tmp_path / "project", sources=1, tasks=1, settings=WITH_REPORTS).root
    refreshed(root, models=True)
    (record,) = (root / "storage" / "selection_history" / "t0").glob("*.parquet")
    raw = bytearray(record.read_bytes())
    raw[4:12] = b"\xff" * 8
    record.write_bytes(raw)
    found = tsds("-p", root, "doctor")
    assert found.exit_code == 1
    assert f"{record} cannot be read: delete it" in found.stdout
    with (root / "tsds.toml").open("a") as file:
        file.write("\n[tasks.t0]\nseed = 7\n")
    result = tsds("-p", root, "refresh")
    assert result.exit_code == 0, result.output
    assert f"{record}: cannot be read, so it was set aside" in caplog.text
    assert not record.exists()
    assert tsds("-p", root, "doctor").exit_code == 0
