"""Shards: whole or absent, never read wrong, few of them."""

import os
import time

import numpy as np
import pytest
from hash_encoder import HashEncoder, hash_vector, records_of, texts_of

from tsds_pipeline.encoders import cache, embed
from tsds_pipeline.encoders.cache import CacheWriter, VectorCache, as_ids
from tsds_pipeline.encoders.shards import Rows, read_shard, write_shard
from tsds_pipeline.errors import TsdsError


def add(root, start, stop):
    return embed(records_of(texts_of(start, stop)), HashEncoder(), root, "source a")


def shards(root):
    return sorted(root.glob("*/*.npz"))


def everything(ids):
    return np.ones(len(ids), dtype=bool)


def test_the_folder_says_which_encoder_it_is_for(tmp_path):
    embed(records_of(["a"]), HashEncoder('{"model":"m"}'), tmp_path, "source a")
    (folder,) = tmp_path.iterdir()
    assert (folder / "encoder.json").read_text() == '{"model":"m"}\n'
    assert {path.suffix for path in folder.iterdir()} == {".json", ".npz"}


def test_ids_that_end_in_zero_bytes(tmp_path):
    ids = as_ids(["00" * 16, "00" * 15 + "01", "01" + "00" * 15])
    write_shard(tmp_path, Rows(ids, np.eye(3, dtype=np.float32)))
    (path,) = tmp_path.iterdir()
    rows = read_shard(path, everything)
    np.testing.assert_array_equal(rows.ids, ids)
    np.testing.assert_array_equal(read_shard(path, lambda found: found == ids[1]).vectors, np.eye(3)[[1]])


def test_a_truncated_shard_is_named_set_aside_and_encoded_again(tmp_path, caplog):
    add(tmp_path, 0, 50)
    add(tmp_path, 50, 80)
    first, second = shards(tmp_path)
    os.truncate(first, first.stat().st_size // 2)
    result = add(tmp_path, 0, 80)
    assert (result.encoded, result.reused) == (50, 30)
    assert str(first) in caplog.text
    assert "encoded again" in caplog.text
    assert first.with_suffix(".damaged").exists()
    assert second in shards(tmp_path)
    np.testing.assert_array_equal(result.vectors, [hash_vector(text) for text in texts_of(0, 80)])
    assert add(tmp_path, 0, 80).encoded == 0


def test_no_altered_byte_gives_a_wrong_vector(tmp_path):
    rng = np.random.default_rng(0)
    rows = Rows(
        np.sort(as_ids([rng.bytes(16).hex() for _ in range(4)])), rng.random((4, 3), dtype=np.float32)
    )
    write_shard(tmp_path, rows)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1 << rng.integers(8)
        path.write_bytes(altered)
        found = read_shard(path, everything)
        if found is not None:
            np.testing.assert_array_equal(found.ids, rows.ids)
            np.testing.assert_array_equal(found.vectors, rows.vectors)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert read_shard(path, everything) is None


def test_small_shards_are_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MERGE_AT", 5)
    for start in range(0, 50, 10):
        add(tmp_path, start, start + 10)
    assert len(shards(tmp_path)) == 1
    result = add(tmp_path, 0, 50)
    assert result.encoded == 0
    np.testing.assert_array_equal(result.vectors, [hash_vector(text) for text in texts_of(0, 50)])


def test_large_shards_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MERGE_AT", 5)
    monkeypatch.setattr(cache, "SHARD_BYTES", 2000)  # twice a shard of ten rows is above half of it
    for start in range(0, 120, 10):
        add(tmp_path, start, start + 10)
    assert 4 <= len(shards(tmp_path)) <= 10
    assert add(tmp_path, 0, 120).encoded == 0


def test_a_merge_with_a_damaged_shard(tmp_path, monkeypatch):
    for start in range(0, 50, 10):
        add(tmp_path, start, start + 10)
    os.truncate(shards(tmp_path)[2], 10)
    monkeypatch.setattr(cache, "MERGE_AT", 5)
    VectorCache(tmp_path, "hash").merge()
    assert len(shards(tmp_path)) == 1
    assert add(tmp_path, 0, 50).encoded == 10


def test_a_merge_keeps_the_older_of_two_vectors(tmp_path, monkeypatch):
    store, ids = VectorCache(tmp_path, "hash"), as_ids(["01" * 16])
    for value in (1.0, 2.0, 3.0):
        write_shard(store.folder, Rows(ids, np.full((1, 2), value)))
    assert store.find(ids).vectors[0, 0] == 1.0
    monkeypatch.setattr(cache, "MERGE_AT", 2)
    store.merge()
    assert len(shards(tmp_path)) == 1
    assert store.find(ids).vectors[0, 0] == 1.0


def test_a_reader_that_meets_a_merge_lists_again(tmp_path, monkeypatch):
    for start in range(0, 50, 10):
        add(tmp_path, start, start + 10)
    monkeypatch.setattr(cache, "MERGE_AT", 5)
    store = VectorCache(tmp_path, "hash")
    merged = []

    def read_while_merged(path, choose):
        if not merged:
            merged.append(True)
            VectorCache(tmp_path, "hash").merge()
        return read_shard(path, choose)

    monkeypatch.setattr(cache, "read_shard", read_while_merged)
    found = store.find(np.sort(as_ids(records_of(texts_of(0, 50))["content_id"].to_list())))
    assert found.known.all()


def test_vectors_of_one_shard_are_read_only_when_wanted(tmp_path):
    write_shard(tmp_path, Rows(as_ids(["01" * 16]), np.ones((1, 2), np.float32)))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole.replace(np.ones(2, np.float32).tobytes(), np.zeros(2, np.float32).tobytes()))
    assert read_shard(path, lambda ids: ids == b"other") is None
    assert path.exists()
    assert read_shard(path, everything) is None
    assert not path.exists()


def test_half_written_files_are_ignored_and_removed_after_a_day(tmp_path, monkeypatch):
    add(tmp_path, 0, 10)
    (folder,) = tmp_path.iterdir()
    old, young = folder / ".1.npz.ab.tmp", folder / ".2.npz.cd.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * cache.ABANDONED_SECONDS,) * 2)
    assert add(tmp_path, 0, 11).encoded == 1
    assert young.exists()
    assert not old.exists()


def test_a_writer_writes_now_and_then(tmp_path, monkeypatch):
    store, ids = VectorCache(tmp_path, "hash"), as_ids(["01" * 16])
    monkeypatch.setattr(cache, "SHARD_BYTES", 100)
    with CacheWriter(store) as writer:
        for count, expected in ((1, 0), (24, 1), (1, 1)):
            writer.add(np.repeat(ids, count), np.ones((count, 1), np.float32))
            assert len(shards(tmp_path)) == expected
        monkeypatch.setattr(cache, "FLUSH_SECONDS", 0.0)
        writer.add(ids, np.ones((1, 1), np.float32))
        assert len(shards(tmp_path)) == 2
    assert len(shards(tmp_path)) == 2


def test_a_full_disk_leaves_no_shard(tmp_path, monkeypatch):
    def fail(*args, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(TsdsError, match="no space left"):
        write_shard(tmp_path, Rows(as_ids(["01" * 16]), np.ones((1, 2), np.float32)))
    assert not list(tmp_path.iterdir())
