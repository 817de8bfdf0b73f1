"""Parquet: every type that JSON can hold, rows in batches, and damaged files."""

import datetime
import decimal

import numpy as np
import polars as pl
import pytest

from tsds_pipeline.corpus import parquet_files
from tsds_pipeline.errors import TsdsError


@pytest.fixture
def parquet(tmp_path):
    """A Parquet file with these columns."""

    def parquet(columns: dict, **options):
        path = tmp_path / "a[1].parquet"
        pl.DataFrame(columns).write_parquet(path, **options)
        return path

    return parquet


def test_the_same_records_as_json_lines(parquet, write, read):
    records = [
        {"id": f"r{i}", "text": f"t{i % 5}", "n": i, "tags": ["a", str(i)], "o": {"x": None}}
        for i in range(20)
    ]
    columns = {name: [record[name] for record in records] for name in records[0]}
    assert read(parquet(columns)).corpus.equals(read(write("a.jsonl", records)).corpus)


def test_chats_and_nulls(parquet, read):
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert read(parquet({"messages": [chat, None]})).corpus["text"].to_list() == ["hi\n\nhello"]


def test_dates_and_decimals_become_json(parquet, read):
    columns = {
        "text": ["a"],
        "day": [datetime.date(2024, 2, 29)],
        "time": [datetime.datetime(2024, 2, 29, 12, 30)],
        "price": [decimal.Decimal("1.50")],
        "took": [datetime.timedelta(seconds=90)],
    }
    assert read(parquet(columns)).corpus["variants"][0][0]["record"] == (
        '{"day":"2024-02-29","price":"1.50","text":"a","time":"2024-02-29T12:30:00","took":"0:01:30"}'
    )


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (
            {"text": ["a"], "image": [b"x"]},
            "a field holds binary data, which cannot be exported: drop the column",
        ),
        (
            {"text": ["a"], "x": [float("nan")]},
            "NaN or an infinite number stands in it, which JSON cannot hold",
        ),
        ({"text": [1]}, 'the field "text" holds a number, expected a text'),
        ({"text": [b"x"]}, 'the field "text" holds binary data, expected a text'),
        ({"text": [None]}, "the text is empty (text)"),
    ],
)
def test_bad_rows(parquet, reasons, columns, reason):
    assert reasons(parquet(columns)) == [(1, reason)]


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["short", "x" * 200])])
@pytest.mark.parametrize("form", ["plain", "list", "array", "object", "objects"])
def test_words_from_a_dictionary_count_as_often_as_they_stand(tmp_path, dtype, form):
    words = pl.Series("of", ["short"] * 3 + ["x" * 200], dtype=dtype)
    folded = {
        "plain": words,
        "list": words.reshape((4, 1)).arr.to_list(),
        "array": words.reshape((4, 1)),
        "object": pl.DataFrame({"word": words}).to_struct("of"),
        "objects": pl.DataFrame({"word": words}).to_struct("of").reshape((4, 1)).arr.to_list(),
    }[form]
    path = tmp_path / "a.parquet"
    pl.DataFrame({"text": ["a", "b", "c", "d"], "of": folded}).write_parquet(path)
    found = list(parquet_files.read_parquet(path, 100))
    assert [record.fields.get("text") for record in found] == ["a", "b", "c", None]
    assert "longer than 100 bytes" in found[-1].reason


@pytest.mark.parametrize("batch", [1, 3, 7, 10, 100])
def test_batches_end_where_the_file_ends(parquet, monkeypatch, batch):
    monkeypatch.setattr(parquet_files, "ROWS_AT_A_TIME", batch)
    path = parquet({"text": [str(i) for i in range(10)]}, row_group_size=4)
    records = list(parquet_files.read_parquet(path, 10**6))
    assert [record.line for record in records] == list(range(1, 11))
    assert [record.fields["text"] for record in records] == [str(i) for i in range(10)]


def test_no_rows(parquet, read):
    assert read(parquet({"text": pl.Series([], dtype=pl.String)})).read == 0


@pytest.mark.parametrize("damage", ["empty", "cut", "inside"])
def test_a_damaged_file_is_an_error_that_names_it(parquet, read, damage):
    path = parquet({"text": [str(i) * 9 for i in np.random.default_rng(0).integers(10**9, size=5000)]})
    data = bytearray(path.read_bytes())
    if damage == "inside":
        data[100:300] = b"\x07" * 200
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2]}.get(damage, data))
    with pytest.raises(
        TsdsError, match=r"a\[1\]\.parquet: not a whole Parquet file \(.+\): copy or write it again$"
    ):
        read(path)
