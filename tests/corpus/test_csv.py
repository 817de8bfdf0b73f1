"""CSV: quotes and line breaks, rows that do not fit, and what makes a whole file unreadable."""

import csv

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsds_pipeline.corpus.csv_files import read_csv
from tsds_pipeline.errors import TsdsError

LIMIT = 10**6


@pytest.fixture
def rows(tmp_path):
    """The records of a CSV file with these bytes: (line, fields or reason)."""

    def rows(data: bytes, limit: int = LIMIT) -> list:
        path = tmp_path / "a.csv"
        path.write_bytes(data)
        return [(record.line, record.reason or record.fields) for record in read_csv(path, limit)]

    return rows


def test_quotes_commas_and_line_breaks(rows):
    data = b'id,text\r\n1,"a, ""b""\nc"\r\n2,d\r\n\r\n3,""\r\n'
    assert rows(data) == [
        (2, {"id": "1", "text": 'a, "b"\nc'}),
        (4, {"id": "2", "text": "d"}),
        (6, {"id": "3", "text": ""}),
    ]


def test_byte_order_mark_spaces_in_the_header_and_an_unnamed_index(rows):
    assert rows(b"\xef\xbb\xbf, text \n0,a\n") == [(2, {"": "0", "text": "a"})]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"id,text\n", b"id,text"])
def test_no_rows(rows, data):
    assert rows(data) == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"2", "1 values under 2 column names"),
        (b"2,b,c", "3 values under 2 column names"),
        (b"2,\xff", "not UTF-8: byte 0xff"),
        (b"2,\xed\xa0\x80", "not UTF-8: byte 0xed"),
        (b'2,"b" c', "invalid CSV: ',' expected after '\"'"),
        (b"2," + b"x" * 100, "the line is longer than 100 bytes (a limit that grows with max_chars)"),
    ],
)
def test_a_bad_row_is_reported_and_the_others_stay(rows, bad, reason):
    found = rows(b"id,text\n1,a\n" + bad + b"\n3,c\n", limit=100)
    assert found == [(2, {"id": "1", "text": "a"}), (3, reason), (4, {"id": "3", "text": "c"})]


def test_rows_that_a_stray_quote_swallowed_are_all_listed(rows):
    found = rows(b'id,text\n1,"a\n2,b\n3,"c"\n4,d\n')
    reason = "invalid CSV: ',' expected after '\"'"
    assert found == [(2, reason), (3, reason), (4, reason), (5, {"id": "4", "text": "d"})]


@pytest.mark.parametrize("limit", [50, LIMIT])
def test_a_quote_that_is_never_closed_is_an_error(rows, limit):
    with pytest.raises(TsdsError, match=r"a\.csv:3: .* never closed"):
        rows(b'id,text\n1,a\n2,"b\n' + b"3,c\n" * 100, limit=limit)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"id,text,id", '2 columns are named "id"'),
        (b"id,,", '2 columns are named ""'),
        (b"id,te\xffxt", "not UTF-8"),
        (b'id,"text" x', "invalid CSV"),
        (b"x" * 200, "longer than 100 bytes"),
        (b"id;text", 'its columns are separated by ";", expected commas'),
        (b"id\ttext", r'its columns are separated by "\\t", expected commas'),
    ],
)
def test_a_header_that_cannot_be_used(rows, header, reason):
    with pytest.raises(TsdsError, match=rf"a\.csv:2: the header cannot be used: .*{reason}"):
        rows(b"\n" + header + b"\n1,2,3\n", limit=100)


def test_text_is_found_and_a_missing_header_shows(write, read, reasons):
    good = write("a.csv", [b"id,instruction,output", b'7,"say ""hi""",hi', b"8,,"])
    assert read(good).corpus.select("text", "record_ids").rows() == [('say "hi"\n\nhi', ["7"])]
    assert reasons(good) == [(3, "the text is empty (instruction)")]
    headless = write("b.csv", [b"some text,1", b"more,2"])
    assert reasons(headless) == [
        (2, "no field known to hold text (found some text, 1): say which by a text template")
    ]


# What the csv module writes and reads back unchanged: no lone surrogates, no carriage returns of its own.
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r\ufeff"), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(VALUES, VALUES), max_size=8))
def test_what_was_written_is_read(tmp_path, written):
    path = tmp_path / "written.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *written])
    assert [tuple(record.fields.values()) for record in read_csv(path, LIMIT)] == written


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text('ab,"\n\r ', max_size=40), st.sampled_from([10, LIMIT]))
def test_every_line_is_accounted_for_or_the_file_is_refused(tmp_path, body, limit):
    path = tmp_path / "any.csv"
    path.write_bytes(b"a,b\n" + body.encode())
    try:
        records = list(read_csv(path, limit))
    except TsdsError:
        return
    lines = [record.line for record in records]
    assert lines == sorted(set(lines))
    assert all(record.reason or list(record.fields) == ["a", "b"] for record in records)
