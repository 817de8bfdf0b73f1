import itertools
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from tsds_pipeline import content_hashes
from tsds_pipeline.content_hashes import TableHash, content_hash
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.storage import (
    Attempt,
    Draft,
    Header,
    artifact_path,
    begin_attempt,
    find_artifact,
    read_artifact,
    read_attempt,
    record_failure,
    write_artifact,
    write_atomically,
)

TABLE = pl.DataFrame(
    {
        "id": ["a", "b", None],
        "labels": [["x"], [], ["y", "z"]],
        "variants": [[{"id": "1", "n": 2.0}], [], [{"id": "q", "n": 3.0}]],
        "value": [1.0, 2.0, None],
    }
)
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_an_artifact_comes_back_with_its_header_and_payloads(tmp_path):
    import faiss

    index = faiss.IndexFlatL2(4)
    index.add(VECTORS)
    header = Header("v" * 32, "1", {"a|b": "c"}, {"pool_settings": "{}"}, notes={"n": 1})
    path = artifact_path(tmp_path, "asset", "source|task")
    write_artifact(path, Draft(TABLE, header, {"vectors": VECTORS, "index": index}))
    artifact = read_artifact(path)
    assert path == tmp_path / "asset" / "source" / "task.parquet"
    assert artifact.frame.equals(TABLE)
    assert artifact.version == "v" * 32
    assert (artifact.header.inputs, artifact.header.notes) == ({"a|b": "c"}, {"n": 1})
    assert np.array_equal(artifact.vectors, VECTORS)
    assert np.array_equal(artifact.index.search(VECTORS, 1)[1].ravel(), [0, 1, 2])
    assert pl.read_parquet(path).equals(TABLE), "anyone can open it"


def test_a_new_version_replaces_the_payloads_of_the_old(tmp_path):
    path = artifact_path(tmp_path, "asset", "a")
    neighbour = write_artifact(
        artifact_path(tmp_path, "asset", "ab"), Draft(TABLE, Header("1", "1"), {"vectors": VECTORS})
    )
    write_artifact(path, Draft(TABLE, Header("1", "1"), {"vectors": VECTORS}))
    old = read_artifact(path)
    mapped = old.vectors
    write_artifact(path, Draft(TABLE, Header("2", "1"), {"vectors": VECTORS + 1}))
    assert np.array_equal(mapped, VECTORS), "who has it open keeps it"
    assert np.array_equal(read_artifact(path).vectors, VECTORS + 1)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "a.parquet",
        "a.vectors-2.npy",
        "ab.parquet",
        "ab.vectors-1.npy",
    ]
    assert np.array_equal(neighbour.vectors, VECTORS)
    with pytest.raises(TsdsError, match=r"cannot be read.*tsds refresh"):
        _ = read_artifact(path)._open("vectors", lambda _: np.load(tmp_path / "gone.npy"))


@pytest.mark.parametrize("partition", ["../x", "../../x", "a|../../../x", "/etc/x"])
def test_no_partition_leads_outside(tmp_path, partition):
    with pytest.raises(TsdsError, match="outside"):
        artifact_path(tmp_path / "storage", "asset", partition)


def test_damage_is_an_error_and_counts_as_missing(tmp_path):
    path = artifact_path(tmp_path, "asset", "a")
    assert find_artifact(path) is None
    with pytest.raises(FileNotFoundError):
        read_artifact(path)
    write_artifact(path, Draft(TABLE, Header("1", "1"), {"vectors": VECTORS}))
    assert find_artifact(path) is not None
    payload = path.with_name("a.vectors-1.npy")
    payload.rename(tmp_path / "elsewhere")
    assert find_artifact(path) is None
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TsdsError, match=r"a\.parquet: not an artifact.*delete it and run `tsds refresh`"):
        read_artifact(path)
    TABLE.write_parquet(path)
    with pytest.raises(TsdsError, match="not an artifact"):
        read_artifact(path)


def test_nothing_half_written_is_visible(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("before")

    def fails(temporary):
        temporary.write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fails)
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    assert path.read_text() == "before"


def test_a_killed_writer_leaves_the_old_artifact(tmp_path):
    path = artifact_path(tmp_path, "asset", "a")
    write_artifact(path, Draft(TABLE, Header("1", "1"), {"vectors": VECTORS}))
    code = f"""
import os, numpy as np, polars as pl
from pathlib import Path
from tsds_pipeline import storage
real = storage.os.replace
def replace(source, target):
    if str(target).endswith(".parquet"):
        os.kill(os.getpid(), 9)
    real(source, target)
storage.os.replace = replace
frame = pl.DataFrame({{"id": ["new"]}})
draft = storage.Draft(frame, storage.Header("2", "1"), {{"vectors": np.ones((1, 2), "f4")}})
storage.write_artifact(Path({str(path)!r}), draft)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    artifact = find_artifact(path)
    assert artifact is not None
    assert artifact.frame.equals(TABLE)
    assert np.array_equal(artifact.vectors, VECTORS)


def test_an_attempt_is_noted_until_a_sound_artifact_is_made(tmp_path):
    path = artifact_path(tmp_path, "asset", "a")
    assert read_attempt(path) is None
    begin_attempt(path, {"x": "1"})
    assert read_attempt(path) == Attempt({"x": "1"})
    begin_attempt(path, {"x": "1"})
    assert read_attempt(path) == Attempt({"x": "1"}, tries=2)
    record_failure(path, TsdsError("file x: mend it"))
    assert read_attempt(path) == Attempt({"x": "1"}, 2, ended=True, problem="file x: mend it")
    begin_attempt(path, {"x": "2"})
    assert read_attempt(path) == Attempt({"x": "2"})
    record_failure(path, KeyError("k"))
    assert read_attempt(path).problem == "KeyError: 'k'"
    assert "KeyError" in read_attempt(path).traceback
    write_artifact(path, Draft(TABLE, Header("1", "1", problem="a stand-in")))
    assert read_attempt(path) == Attempt({"x": "2"}, ended=True)
    write_artifact(path, Draft(TABLE, Header("1", "1")))
    assert read_attempt(path) is None


@pytest.mark.parametrize(
    "other",
    [
        TABLE.with_columns(id=pl.Series(["a", "b", ""])),
        TABLE.with_columns(id=pl.Series(["ab", "", None])),
        TABLE.with_columns(labels=pl.Series([["x"], ["y"], ["z"]])),
        TABLE.with_columns(value=pl.col("value") * (1 + 1e-6)),
        TABLE.with_columns(value=pl.Series([1.0, 2.0, 0.0])),
        TABLE.rename({"id": "key"}),
        TABLE.reverse(),
        TABLE.head(2),
    ],
)
def test_the_hash_sees_every_difference(other):
    assert content_hash(other) != content_hash(TABLE)


def test_the_hash_overlooks_rounding_and_chunks():
    assert content_hash(TABLE.with_columns(pl.col("value") * (1 + 1e-13))) == content_hash(TABLE)
    assert content_hash(pl.concat([TABLE.head(1), TABLE.tail(2)], rechunk=False)) == content_hash(TABLE)
    assert content_hash(VECTORS) == content_hash(VECTORS + np.float32(1e-7))
    assert content_hash(VECTORS) != content_hash(VECTORS + np.float32(1e-4))
    assert content_hash(VECTORS) != content_hash(VECTORS.reshape(4, 3))
    assert content_hash(np.float32([[-0.0]])) == content_hash(np.float32([[0.0]]))
    assert content_hash("a", "b") != content_hash("ab")


@pytest.mark.parametrize("cuts", [[], [0], [1], [1, 1], [1, 2], [3]])
@pytest.mark.parametrize("block", [8, 20, 2**24])
def test_the_hash_of_a_table_in_parts_is_that_of_the_whole(tmp_path, monkeypatch, cuts, block):
    monkeypatch.setattr(content_hashes, "_BLOCK_BYTES", block)
    table = TABLE.with_columns(
        vector=pl.Series(VECTORS, dtype=pl.Array(pl.Float32, VECTORS.shape[1])),
        nested=pl.Series([[{"a": "x", "b": "é"}], [], [{"a": "", "b": "y"}, {"a": None, "b": "z"}]]),
        n=pl.Series([1, 2, 3]),
    )
    bounds = [0, *cuts, len(table)]
    hashed = TableHash(tmp_path)
    for start, stop in itertools.pairwise(bounds):
        hashed.add(table[start:stop])
    assert hashed.hexdigest() == content_hash(table)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_is_not_in_memory_is_written_like_one_that_is(tmp_path):
    for number, rows in enumerate(TABLE.iter_slices(1)):
        rows.write_parquet(tmp_path / f"{number}.part")
    parts = pl.scan_parquet(sorted(tmp_path.glob("*.part")))
    draft = Draft(parts, Header("1", "1"), {"vectors": VECTORS})
    artifact = write_artifact(artifact_path(tmp_path, "asset", "a"), draft)
    assert read_artifact(artifact.path) == artifact
    assert artifact.frame.equals(TABLE)
    assert artifact.rows == draft.rows == len(TABLE)


def test_the_hash_is_the_same_in_every_process():
    code = (
        "from tests.test_storage import TABLE, VECTORS, content_hash\n"
        "print(content_hash('x', TABLE, VECTORS, {'a': 1}))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
        ).stdout
        for env in ({**os.environ, "PYTHONHASHSEED": "1"}, {**os.environ, "PYTHONHASHSEED": "2"})
    ]
    assert runs[0] == runs[1] == content_hash("x", TABLE, VECTORS, {"a": 1}) + "\n"
