"""A stored file knows its own hash: any change of any byte is seen, and nothing else is."""

import hashlib
import json
import os
import random

import numpy as np
import polars as pl
import pytest

from tsds_pipeline.damage import HASHES, find_damage
from tsds_pipeline.seals import UNSEALED, sealed_digest
from tsds_pipeline.storage import Draft, Header, artifact_path, damage_of, read_artifact, write_artifact

TABLE = pl.DataFrame({"text": [f'text {n} "seal": "x' for n in range(500)], "n": range(500)})
# Notes of a user's texts, which look like a seal as much as they can.
HEADER = Header("v" * 32, "1", notes={"said": f'"seal": "{UNSEALED}"', "seal ": UNSEALED})


def digest(path):
    with path.open("rb") as file:
        return sealed_digest(file)


@pytest.fixture
def path(tmp_path):
    where = artifact_path(tmp_path, "asset", "a")
    write_artifact(where, Draft(TABLE, HEADER, {"vectors": np.ones((3, 4), np.float32)}))
    return where


def test_the_seal_is_the_hash_of_the_file_without_it(path):
    said = read_artifact(path).header.seal
    assert said != UNSEALED
    raw = path.read_bytes()
    assert raw.count(said.encode()) == 1
    zeros = raw.replace(said.encode(), UNSEALED.encode())
    assert hashlib.blake2b(zeros, digest_size=16).hexdigest() == said == digest(path)
    assert read_artifact(path).frame.equals(TABLE)
    assert damage_of(path, digest) is None


def test_a_table_that_is_written_as_it_is_read_has_one_too(tmp_path):
    lazy = artifact_path(tmp_path, "asset", "lazy")
    write_artifact(lazy, Draft(TABLE.lazy(), HEADER))
    assert damage_of(lazy, digest) is None
    assert read_artifact(lazy).header.seal == digest(lazy) != UNSEALED


def test_any_changed_byte_is_seen(path):
    raw, rng = path.read_bytes(), random.Random(0)
    places = {*rng.sample(range(len(raw)), 300), 0, len(raw) - 1, raw.index(digest(path).encode()) + 7}
    for place in places:
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << rng.randrange(8)]) + raw[place + 1 :])
        assert damage_of(path, digest), place
    for length in (0, 3, 11, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        assert damage_of(path, digest), length
    path.write_bytes(raw)
    assert damage_of(path, digest) is None


def test_payloads_are_looked_at_too(path):
    payload = path.with_name(read_artifact(path).header.payloads["vectors"])
    raw = payload.read_bytes()
    payload.write_bytes(raw[:-1] + b"\1")
    assert damage_of(path, digest) == f"{payload}: its bytes are not those that were written"
    payload.unlink()
    assert damage_of(path, digest) == f"{payload}: is gone"
    payload.write_bytes(raw)
    assert damage_of(path, digest) is None


def test_what_was_written_without_checksums_passes(tmp_path):
    path = artifact_path(tmp_path, "asset", "old")
    path.parent.mkdir()
    TABLE.write_parquet(path, metadata={"tsds": '{"version": "v", "code": "1"}'})
    assert damage_of(path, digest) is None


def test_a_file_that_is_not_there_is_not_damaged(tmp_path):
    assert find_damage(tmp_path, ["asset|nothing"]) == {}


def test_what_looks_untouched_is_read_again_only_on_request(path, tmp_path):
    raw, then = path.read_bytes(), path.stat().st_mtime_ns - 10**10
    os.utime(path, ns=(then, then))
    assert find_damage(tmp_path, ["asset|a"]) == {}
    with path.open("r+b") as file:
        file.seek(20)
        file.write(bytes([raw[20] ^ 255]))
    os.utime(path, ns=(then, then))
    assert find_damage(tmp_path, ["asset|a"]) == {}
    (tmp_path / HASHES).unlink()
    assert find_damage(tmp_path, ["asset|a"]).keys() == {"asset|a"}


def test_a_look_at_one_result_forgets_no_other(path, tmp_path):
    write_artifact(artifact_path(tmp_path, "asset", "b"), Draft(TABLE, HEADER))
    for file in tmp_path.rglob("*.*"):
        os.utime(file, ns=(10**18, 10**18))
    find_damage(tmp_path, ["asset|a", "asset|b"])
    known = json.loads((tmp_path / HASHES).read_text())["files"]
    assert len(known) == 3, "two tables and a payload"
    find_damage(tmp_path, ["asset|b"])
    assert json.loads((tmp_path / HASHES).read_text())["files"] == known
    path.unlink()
    find_damage(tmp_path, ["asset|b"])
    assert json.loads((tmp_path / HASHES).read_text())["files"].keys() == known.keys() - {str(path)}
