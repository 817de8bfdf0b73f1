"""Arrow files and streams: the same records as Parquet, vectors of fixed size, and damaged files."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tsds_pipeline.corpus import arrow_files, read_source
from tsds_pipeline.errors import TsdsError

ROWS = [
    {"id": f"r{i}", "text": f"t{i % 5}", "n": i, "tags": ["a", str(i)], "o": {"x": None}} for i in range(20)
]


@pytest.fixture
def arrow(tmp_path):
    """An Arrow stream or file of these rows, in batches of seven."""

    def arrow(rows: list[dict] | pa.Table, kind: str = "stream"):
        path = tmp_path / f"{kind}.arrow"
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
        new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
        return path

    return arrow


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_the_same_records_as_json_lines(arrow, write, read, kind, monkeypatch):
    monkeypatch.setattr(arrow_files, "ROWS_AT_A_TIME", 3)
    records = read(arrow(ROWS, kind))
    assert records.corpus.equals(read(write("a.jsonl", ROWS)).corpus)


def test_rows_are_counted_over_all_batches(arrow, reasons):
    rows = [{"text": "good" if i != 16 else ""} for i in range(20)]
    assert reasons(arrow(rows)) == [(17, "the text is empty (text)")]


def test_words_from_a_dictionary(arrow, read):
    table = pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()})
    assert read(arrow(table)).corpus["count"].to_list() == [2, 1]


@pytest.mark.parametrize("kind", ["list", "fixed"])
@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_vectors_in_a_column(arrow, read, write, tmp_path, kind, form, dtype):
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(dtype)
    values = pa.array(vectors.ravel())
    column = (
        pa.FixedSizeListArray.from_arrays(values, 4)
        if kind == "fixed"
        else pa.ListArray.from_arrays(pa.array(range(0, 37, 4), pa.int32()), values)
    )
    table = pa.table({"text": [f"t{i}" for i in range(9)], "e": column})
    path = arrow(table)
    if form == "parquet":
        import pyarrow.parquet

        path = tmp_path / "a.parquet"
        pyarrow.parquet.write_table(table, path)
    rows = [{"text": f"t{i}", "e": row.astype(np.float64).tolist()} for i, row in enumerate(vectors)]
    found = read(path, vector_field="e")
    assert found.quarantine.is_empty()
    assert found.corpus.equals(read(write("a.jsonl", rows), vector_field="e").corpus)


def test_a_vector_with_a_hole_is_bad(arrow, reasons):
    table = pa.table({"text": ["a"], "e": pa.array([[1.0, None]], pa.list_(pa.float32(), 2))})
    assert reasons(arrow(table), vector_field="e") == [
        (1, 'the vector field "e" is not a list of numbers'),
    ]


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_a_file_that_is_cut_anywhere_is_an_error_that_names_it(arrow, read, kind):
    path = arrow(ROWS, kind)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), *range(len(whole) - 20, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(TsdsError, match=rf"{path.name}: not a whole Arrow file \(.*\): copy or write it"):
            read(path)


def test_another_kind_of_file_is_an_error_that_names_it(tmp_path, read):
    pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "a.arrow")
    with pytest.raises(TsdsError, match=r"a\.arrow: not a whole Arrow file"):
        read(tmp_path / "a.arrow")


def test_what_hugging_face_datasets_saved(tmp_path, write, read):
    import datasets

    rows = [{"id": f"r{i}", "text": f"t{i}", "label": i % 2, "e": [float(i), 1.0]} for i in range(10)]
    features = datasets.Features(
        id=datasets.Value("string"),
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["no", "yes"]),
        e=datasets.List(datasets.Value("float32"), length=2),
    )
    saved = datasets.Dataset.from_list(rows, features=features)
    saved.save_to_disk(tmp_path / "saved", num_shards=3)
    paths = sorted((tmp_path / "saved").glob("*.arrow"))
    assert len(paths) == 3
    found = read_source(paths, template=None, max_chars=10, vector_field="e")
    assert found.corpus.equals(read(write("a.jsonl", rows), vector_field="e").corpus)
