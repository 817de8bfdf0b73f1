"""Arrow files and saved Hugging Face datasets; zstd beside gzip."""

import json

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from backports import zstd
from datasets import Dataset, DatasetDict

from tests.projects import SETTINGS, clustered, made, make_project, records, refreshed
from tsds_pipeline.discovery import scan
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.project import Project
from tsds_pipeline.storage import artifact_path

RECORDS = [
    {"id": f"r{i}", "text": f"t{i % 5}", "n": i, "tags": ["a", str(i)], "o": {"x": None, "y": i / 4}}
    for i in range(20)
]


def stream(path, table, rows=7):
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        for batch in table.to_batches(max_chunksize=rows):
            writer.write_batch(batch)
    return path


def file(path, table, rows=7):
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize("save", [stream, file])
@pytest.mark.parametrize("rows_at_a_time", [3, 2**16])
def test_the_same_records_as_json_lines(tmp_path, write, read, monkeypatch, save, rows_at_a_time):
    monkeypatch.setattr("tsds_pipeline.corpus.arrow_files.ROWS_AT_A_TIME", rows_at_a_time)
    path = save(tmp_path / "a.arrow", pa.Table.from_pylist(RECORDS))
    found, expected = read(path), read(write("a.jsonl", RECORDS))
    assert found.corpus.equals(expected.corpus)
    assert found.read == len(RECORDS)


@pytest.mark.parametrize("save", [stream, file])
def test_a_bad_row_is_named_by_its_number(tmp_path, reasons, save):
    path = save(tmp_path / "a.arrow", pa.table({"text": ["a", "b", " ", "c"]}), rows=2)
    assert [line for line, _ in reasons(path)] == [3]


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2), pa.list_(pa.float64())])
def test_vectors_in_lists_of_any_kind(tmp_path, read, kind):
    vectors = [[1.0, 2.0], [3.0, 4.0]]
    table = pa.table({"text": ["a", "b"], "v": pa.array(vectors, kind)})
    for path in (stream(tmp_path / "a.arrow", table), tmp_path / "a.parquet"):
        if path.suffix == ".parquet":
            pl.DataFrame(pl.from_arrow(table)).write_parquet(path)
        corpus = read(path, vector_field="v").corpus.sort("text")
        np.testing.assert_array_equal(corpus["vector"].to_numpy(), np.float32(vectors))


@pytest.mark.parametrize("save", [stream, file])
def test_every_cut_is_noticed(tmp_path, read, save):
    whole = save(tmp_path / "a.arrow", pa.Table.from_pylist(RECORDS)).read_bytes()
    path = tmp_path / "cut.arrow"
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(TsdsError, match=r"cut\.arrow: not a whole Arrow file"):
            read(path)
    path.write_bytes(b"no Arrow at all, but long enough to look at")
    with pytest.raises(TsdsError, match="not a whole Arrow file"):
        read(path)


def test_a_saved_dataset_is_a_source(tmp_path):
    project = make_project(tmp_path, sources=1, tasks=1, n=20, settings=SETTINGS)
    rows = records("h", clustered(20, 77))
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "sources" / "saved"), num_shards=3)
    found = scan(project)
    assert found.all_problems() == ()
    assert len(found.sources["saved"].paths) == 3
    made(refreshed(tmp_path, source="saved"))
    corpus = pl.read_parquet(artifact_path(tmp_path / "storage", "candidate_corpus", "saved"))
    assert set(corpus["text"]) == {row["text"] for row in rows}


def test_of_a_dataset_with_splits_one_is_named(tmp_path):
    make_project(tmp_path, sources=1, tasks=1, n=20)
    splits = {name: Dataset.from_dict({"text": [name]}) for name in ("train", "test")}
    DatasetDict(splits).save_to_disk(str(tmp_path / "sources" / "saved"))
    found = scan(Project.load(tmp_path))
    expected = 'a dataset with the splits test, train: name one of them in tsds.toml, as in path = "sources/saved/test"'
    assert expected in found.sources["saved"].problem
    with (tmp_path / "tsds.toml").open("a") as settings:
        settings.write('\n[sources.saved]\npath = "sources/saved/train"\n')
    found = scan(Project.load(tmp_path))
    assert found.all_problems() == ()
    assert [path.parent.name for path in found.sources["saved"].paths] == ["train"]


def test_zstd_is_read_like_plain(tmp_path, write, read):
    lines = [{"text": f"t{i}"} for i in range(50)]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path = tmp_path / "b.jsonl.zst"
    path.write_bytes(zstd.compress(data[:700]) + zstd.compress(data[700:]))  # two frames are one file
    assert read(path).corpus.equals(read(write("a.jsonl", lines)).corpus)


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_a_damaged_zstd_file_is_an_error_that_names_it(tmp_path, read, damage):
    data = np.random.default_rng(0).integers(97, 123, size=50_000).astype(np.uint8).tobytes()
    packed = zstd.compress(
        b'{"text": "' + data + b'"}\n', options={zstd.CompressionParameter.checksum_flag: 1}
    )
    whole = bytearray(packed)
    if damage == "cut":
        del whole[-9:]
    elif damage == "flipped":
        whole[len(whole) // 2] ^= 0xFF
    else:
        whole = bytearray(b"not compressed at all\n")
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(whole)
    with pytest.raises(TsdsError, match=r"a\.jsonl\.zst: not a whole zstd file"):
        read(path, max_chars=100_000)


def test_a_long_line_of_a_zstd_bomb_is_never_held(tmp_path, reasons):
    path = tmp_path / "a.jsonl.zst"
    with zstd.open(path, "wb") as packed:
        packed.write(b'{"text": "')
        for _ in range(64):
            packed.write(b"x" * 2**20)
        packed.write(b'"}\n{"text": ""}\n')
    found = reasons(path, max_chars=10)
    assert [line for line, _ in found] == [1, 2]
    assert "longer than" in found[0][1]
