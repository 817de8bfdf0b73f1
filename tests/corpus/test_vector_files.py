"""Vectors in files beside the records: found by id whatever the file, and what does not fit is said."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tsds_pipeline.corpus import ColumnFilter, arrow_files, parquet_files, read_queries, read_source
from tsds_pipeline.errors import TsdsError

IDS = [f"r{i}" for i in range(9)]
VECTORS = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
RECORDS = [{"id": name, "text": f"text {name}", "n": i} for i, name in enumerate(IDS)]


def save(folder: Path, form: str, ids: list = IDS, vectors: np.ndarray = VECTORS, name: str = "v") -> Path:
    """A file of vectors: "npy", "parquet" or "arrow", with lists of any ("list") or of fixed size ("array")."""
    form, _, kind = form.partition("-")
    path = folder / f"{name}.{form}"
    if form == "npy":
        np.save(path, vectors)
        (folder / f"{name}.ids.txt").write_text("".join(f"{one}\n" for one in ids), "utf-8")
        return path
    column = pl.Series("e", vectors.tolist(), dtype=pl.List(pl.Float32))
    table = pl.DataFrame(
        {"id": ids, "e": column.list.to_array(vectors.shape[1]) if kind == "array" else column}
    )
    (table.write_parquet if form == "parquet" else table.write_ipc_stream)(path)
    return path


def look(*paths: Path, vectors: list[Path], **more):
    rules = {"template": None, "max_chars": 100, "vector_field": "e", **more}
    return read_source(paths, vector_files=vectors, **rules)


@pytest.fixture
def records(write) -> Path:
    return write("a.jsonl", RECORDS)


@pytest.mark.parametrize("form", ["npy", "parquet-list", "parquet-array", "arrow-list", "arrow-array"])
def test_the_same_as_vectors_in_the_records(write, records, tmp_path, monkeypatch, form):
    monkeypatch.setattr(arrow_files, "ROWS_AT_A_TIME", 2)
    monkeypatch.setattr(parquet_files, "ROWS_AT_A_TIME", 2)
    order = np.random.default_rng(1).permutation(9)
    path = save(tmp_path, form, [IDS[i] for i in order], VECTORS[order])
    inside = write("b.jsonl", [{**row, "e": v.tolist()} for row, v in zip(RECORDS, VECTORS, strict=True)])
    found = look(records, vectors=[path], spill=tmp_path / "spill")
    assert found.quarantine.is_empty()
    assert found.corpus.equals(look(inside, vectors=[]).corpus)
    del found
    assert list((tmp_path / "spill").iterdir()) == []


def test_the_vector_of_a_record_that_nobody_wants_is_not_without_a_record(records, tmp_path):
    unwanted = ColumnFilter(drop={"n": (0, 3)})
    found = look(records, vectors=[save(tmp_path, "npy")], wanted=unwanted)
    assert found.quarantine.is_empty()
    assert (len(found.corpus), len(found.excluded), found.read) == (7, 2, 9)


def test_several_files_and_ids_that_are_numbers(write, tmp_path):
    paths = [
        save(tmp_path, "npy", [3, 1], VECTORS[:2], "x"),
        save(tmp_path, "parquet", [2], VECTORS[2:3], "y"),
    ]
    found = look(write("a.jsonl", [{"id": i, "text": f"t{i}"} for i in (1, 2, 3)]), vectors=paths)
    assert found.quarantine.is_empty()
    by_text = dict(zip(found.corpus["text"], found.corpus["vector"].to_list(), strict=True))
    assert [by_text[f"t{i}"] for i in (3, 1, 2)] == VECTORS[:3].tolist()


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_any_type_of_number(records, tmp_path, dtype):
    vectors = (10 * VECTORS).astype(dtype)
    found = look(records, vectors=[save(tmp_path, "npy", vectors=vectors)])
    by_id = dict(zip(found.corpus["record_ids"].list.first(), found.corpus["vector"].to_list(), strict=True))
    assert [by_id[name] for name in IDS] == vectors.astype(np.float32).tolist()


def test_what_does_not_fit_together_is_in_the_quarantine(write, tmp_path):
    vectors = VECTORS.copy()
    vectors[2, 1] = np.nan
    path = save(tmp_path, "npy", vectors=vectors)
    rows = [*RECORDS[:4], {"id": "lost", "text": "x"}, {"text": "no id"}, *RECORDS[6:]]
    found = look(write("a.jsonl", rows), vectors=[path])
    assert len(found.corpus) == 6
    told = [(Path(file).name, line, reason) for file, line, reason, _ in found.quarantine.rows()]
    assert told == [
        ("a.jsonl", 3, 'the vector of "r2" in v.npy holds a number that is not finite in float32'),
        ("a.jsonl", 5, 'there is no vector for its id "lost" in v.npy'),
        ("a.jsonl", 6, "it has no id (id, _id, uuid) by which its vector could be found in v.npy"),
        ("v.npy", 5, 'a vector without a record: no record has the id "r4"'),
        ("v.npy", 6, 'a vector without a record: no record has the id "r5"'),
    ]
    assert found.read == 8 + 1 + 2


def test_files_have_the_names_that_they_are_given(write, tmp_path):
    path, short = save(tmp_path, "npy"), write("a.jsonl", RECORDS[:8])
    names = {short: "sources/a.jsonl", path: "vectors/v.npy"}
    assert look(short, vectors=[path], names=names).quarantine["file"].to_list() == ["vectors/v.npy"]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TsdsError, match=r"^vectors/v\.npy: not a whole npy file"):
        look(short, vectors=[path], names=names)


def test_a_record_that_is_bad_for_another_reason_has_its_vector(write, tmp_path):
    path = save(tmp_path, "npy")
    found = look(write("a.jsonl", [{"id": "r0", "text": ""}, *RECORDS[1:]]), vectors=[path])
    assert found.quarantine["reason"].to_list() == ["the text is empty (text)"]


def test_of_a_query_set_all_must_fit(write, tmp_path):
    path = save(tmp_path, "npy")
    rules = {"template": None, "max_chars": 100, "vector_field": "e", "vector_files": [path]}
    assert len(read_queries([write("a.jsonl", RECORDS)], **rules)) == 9
    with pytest.raises(
        TsdsError, match=r'1 of 9 query .*v\.npy:9: a vector without a record: .* the id "r8"'
    ):
        read_queries([write("a.jsonl", RECORDS[:8])], **rules)


@pytest.mark.parametrize(
    ("form", "ids", "vectors", "problem"),
    [
        ("npy", IDS[:8], VECTORS, r"v\.ids\.txt: 8 ids for the 9 vectors in v\.npy: give each"),
        ("npy", [*IDS[:8], "r2"], VECTORS, r'v\.npy: row 9: the id "r2" stands twice: keep one'),
        ("parquet", [*IDS[:8], "r2"], VECTORS, r'v\.parquet: row 9: the id "r2" stands twice: keep one'),
        ("npy", [*IDS[:8], " "], VECTORS, r"v\.ids\.txt:9: a blank line"),
        ("npy", IDS, VECTORS[0], r"v\.npy: not a table of numbers"),
        ("npy", IDS, np.array([["a"]] * 9), r"v\.npy: not a table of numbers"),
        ("parquet", [*IDS[:8], None], VECTORS, r"v\.parquet: row 9: no id"),
        ("arrow", [float(i) for i in range(9)], VECTORS, r"v\.arrow: no column of ids \(id, _id, uuid\)"),
    ],
)
def test_files_that_cannot_be_used(records, tmp_path, form, ids, vectors, problem):
    with pytest.raises(TsdsError, match=problem):
        look(records, vectors=[save(tmp_path, form, ids, vectors)])


def test_vectors_have_one_length(records, tmp_path):
    paths = [
        save(tmp_path, "npy", IDS[:5], VECTORS[:5], "x"),
        save(tmp_path, "npy", IDS[5:], VECTORS[5:, :3], "y"),
    ]
    with pytest.raises(TsdsError, match=r"y\.npy: vectors of 3 numbers, in .*x\.npy they have 4: give all"):
        look(records, vectors=paths)
    odd = pl.DataFrame({"id": IDS[:3], "e": [[1.0, 2.0], [1.0], [1.0, 2.0]]})
    odd.write_parquet(tmp_path / "z.parquet")
    with pytest.raises(TsdsError, match=r'z\.parquet: row 2: "e" is no list of 2 numbers'):
        look(records, vectors=[tmp_path / "z.parquet"])


@pytest.mark.parametrize("column", [[[1.0, None]] * 9, [None] * 9, ["x"] * 9])
def test_a_column_that_holds_no_vectors(records, tmp_path, column):
    pl.DataFrame({"id": IDS, "e": column}).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(
        TsdsError, match=r'v\.parquet: (row 1: "e" is no list|no column "e" of lists of numbers)'
    ):
        look(records, vectors=[tmp_path / "v.parquet"])


def test_a_cut_npy_file_is_an_error_that_names_it(records, tmp_path):
    path = save(tmp_path, "npy")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TsdsError, match=r"v\.npy: not a whole npy file"):
        look(records, vectors=[path])


@pytest.mark.parametrize("form", ["npy", "parquet-list", "arrow-list"])
def test_a_file_without_vectors_is_none(records, tmp_path, form):
    paths = [
        save(tmp_path, form, ids, vectors, name)
        for name, ids, vectors in (
            ("x", [], np.empty((0, 7), np.float32)),
            ("y", IDS[:5], VECTORS[:5]),
            ("z", [], VECTORS[:0]),
            ("zz", IDS[5:], VECTORS[5:]),
        )
    ]
    found = look(records, vectors=paths)
    assert found.quarantine.is_empty()
    assert len(found.corpus) == 9


def test_no_vectors_for_no_records(write, tmp_path):
    path = save(tmp_path, "npy", [], VECTORS[:0])
    assert look(write("a.jsonl", []), vectors=[path]).read == 0
