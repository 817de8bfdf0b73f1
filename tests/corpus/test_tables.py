"""Sources that are too large for memory: the same as if they were not."""

import random
from pathlib import Path

import polars as pl
import pytest

from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.corpus import ColumnFilter, TestSet, read_source, tables

RANDOM = random.Random(0)
ROWS = [
    {"id": f"r{RANDOM.randrange(900)}", "text": f"text {RANDOM.randrange(300)}", "n": RANDOM.randrange(3)}
    for _ in range(1000)
]


def small(monkeypatch, *, batch: int, spill: int, part: int, run: int = 7) -> None:
    for name, value in {"BATCH": batch, "SPILL_BYTES": spill, "PART_BYTES": part, "_RUN_ROWS": run}.items():
        monkeypatch.setattr(tables, name, value)


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize(
    ("batch", "spill", "part"), [(10, 1, 4000), (64, 20_000, 10_000), (300, 1, 10**6), (3, 50_000, 2000)]
)
def test_what_went_through_files_is_what_stays_in_memory(
    write, tmp_path, monkeypatch, vectors, batch, spill, part
):
    rows = [{**row, "e": [1.0, row["n"] + 0.5] if row["n"] else [1.0]} for row in ROWS]
    paths = [write("a.jsonl", [*rows[:400], b"{"]), write("b.jsonl", rows[400:])]
    tests = TestSet.of("t", pl.DataFrame({"record_id": ["x", "y"], "text": ["text 7", "text 200"]}))
    rules = {
        "template": None,
        "max_chars": 100,
        "vector_field": "e" if vectors else None,
        "wanted": ColumnFilter(drop={"n": (2,)}),
        "test_sets": [tests],
    }
    plain = read_source(paths, **rules)
    assert set(plain.excluded.counts) == {"drop.n", "exclude.t"}
    small(monkeypatch, batch=batch, spill=spill, part=part)
    folder = tmp_path / "spill"
    found = read_source(paths, **rules, spill=folder)
    assert isinstance(plain.table, pl.DataFrame)
    assert isinstance(found.table, pl.LazyFrame)
    assert found.corpus.equals(plain.corpus)
    assert found.corpus.schema == plain.corpus.schema
    assert found.version == plain.version == content_hash(plain.corpus)
    assert found.quarantine.equals(plain.quarantine)
    assert found.excluded.counts == plain.excluded.counts
    assert found.excluded.table().equals(plain.excluded.table())
    assert (found.copies, found.read) == (plain.copies, plain.read) == (plain.corpus["count"].sum(), 1001)
    del found
    assert list(folder.iterdir()) == [], "the files are gone with what reads them"


def test_without_a_folder_everything_stays_in_memory(write, monkeypatch):
    small(monkeypatch, batch=10, spill=1, part=100)
    path = write("a.jsonl", ROWS)
    found = read_source([path], template=None, max_chars=100, vector_field=None)
    assert isinstance(found.table, pl.DataFrame)


def test_long_texts_do_not_wait_for_many_others(write, monkeypatch, tmp_path):
    small(monkeypatch, batch=2**16, spill=1, part=10**6)
    monkeypatch.setattr(tables, "BATCH_CHARS", 1000)
    written: list[int] = []
    write_run = tables.RowTable._write_run

    def noted(self) -> None:
        written.append(self._waiting)
        write_run(self)

    monkeypatch.setattr(tables.RowTable, "_write_run", noted)
    path = write("a.jsonl", [{"text": f"{i}" + "x" * 400} for i in range(10)])
    read_source([path], template=None, max_chars=500, vector_field=None, spill=tmp_path / "spill")
    assert len(written) > 3
    assert max(written) < 4000


def test_a_damaged_file_leaves_nothing_behind(write, tmp_path, monkeypatch):
    from tsds_pipeline.errors import TsdsError

    small(monkeypatch, batch=10, spill=1, part=100)
    path: Path = write("a.jsonl.gz", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TsdsError, match="not a whole gzip file"):
        read_source([path], template=None, max_chars=100, vector_field=None, spill=tmp_path / "spill")
    assert list((tmp_path / "spill").iterdir()) == []
