"""Properties of reading that hold whatever stands in a file, over files that hypothesis makes up."""

import csv
import io
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz import nasty
from tests.fuzz.fuzzing import fuzz, read
from tsds_pipeline.corpus import SourceRecords
from tsds_pipeline.errors import TsdsError

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", " ", "a", "\0", "\x1b[2J", "\ud800", "\u2028", "../../x", "'\""]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**63, 10**400, -0.0, 1e-320])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["text", "id", "messages", "instruction", "output", "prompt", "content", "a", "A"])
OBJECTS = st.dictionaries(NAMES | TEXTS, JSON, max_size=4)
RECORDS = st.builds(lambda text, others: {"text": text, **others}, TEXTS, OBJECTS)
CHATS = st.builds(lambda turns: {"messages": turns}, st.lists(OBJECTS | JSON, max_size=3))
DUMPED = st.builds(
    lambda value, plain: json.dumps(value, ensure_ascii=plain),
    RECORDS | OBJECTS | CHATS | JSON,
    st.booleans(),
)
NASTY_LINES = [
    line
    for name, file in nasty.FILES.items()
    if name.endswith(".jsonl") and isinstance(file.content, bytes)
    for line in file.content.split(b"\n")[:3]
    if len(line) < 1000
]


def spoiled(line: bytes, at: int, put: bytes, drop: int) -> bytes:
    """``line`` with some of its bytes replaced."""
    at %= len(line) + 1
    return line[:at] + put + line[at + drop :]


SPOILED = st.builds(
    spoiled,
    DUMPED.map(lambda text: text.encode(errors="surrogatepass")),
    st.integers(0, 200),
    st.binary(max_size=3) | st.sampled_from([b"{", b"]", b'"', b"\\", b"\\u", b",", b":", b"NaN", b"1e999"]),
    st.integers(0, 3),
)
# No line feeds inside of a line, and no mark at its beginning that would be one of the file.
LINES = (
    DUMPED.map(lambda text: text.encode(errors="surrogatepass")) | SPOILED | st.sampled_from(NASTY_LINES)
).map(lambda line: line.replace(b"\n", b" ").lstrip(b"\xff\xfe\xef"))
GOOD = [b'{"text": "one"}', b'{"id": 7, "text": "two"}']


@fuzz(25)
@given(lines=st.lists(LINES, max_size=4))
@example(lines=[b'{"text": ["\\ud800"]}', b'{"id": -0, "text": "\\u0085"}'])
def test_each_line_is_judged_on_its_own(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"

    def of(*written):
        path.write_bytes(b"\n".join([*written, b""]))
        return read(path)

    alone = [of(line) for line in lines]
    whole = of(*lines, *GOOD)
    assert whole.read == sum(one.read for one in alone) + len(GOOD)
    bad = [number for number, one in enumerate(alone, 1) if len(one.quarantine)]
    assert whole.quarantine["line"].to_list() == bad
    usable = [line for number, line in enumerate(lines, 1) if number not in bad]
    assert whole.version == of(*GOOD, *reversed(usable)).version


VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ROWS = st.lists(VALUES, min_size=1, max_size=4)
STRAY = st.sampled_from([b'x,"a"b', b"\xff,\xfe", b"one", b"a,b,c,d", b'"a" ,"b"'])


@fuzz(25)
@given(rows=st.lists(ROWS | STRAY, max_size=6))
def test_rows_that_do_not_fit_cost_no_other(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "rows.csv"

    def of(some):
        file = io.StringIO(newline="")
        parts = [b"id,text\n"]
        for row in some:
            file.seek(0)
            file.truncate()
            if isinstance(row, list):
                csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(row)
            parts.append(row + b"\n" if isinstance(row, bytes) else file.getvalue().encode())
        path.write_bytes(b"".join(parts))
        return read(path)

    whole = of(rows)
    fitting = [row for row in rows if isinstance(row, list) and len(row) == 2]
    assert whole.version == of(fitting).version
    blank = [row for row in rows if isinstance(row, list) and len(row) == 1 and not row[0].strip()]
    assert whole.read >= len(rows) - len(blank)


@fuzz(15)
@given(content=st.binary(max_size=60) | st.text('ab,"\n\r \0', max_size=60).map(str.encode))
@pytest.mark.parametrize("format", ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet", "arrow"])
def test_any_bytes(tmp_path_factory, format, content):
    path = tmp_path_factory.getbasetemp() / f"bytes.{format}"
    path.write_bytes(content)
    assert isinstance(read(path), SourceRecords | TsdsError), "and no other error"


PLAIN = {
    pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    pa.large_string(): st.just("x"),
    pa.binary(): st.binary(max_size=2),
    pa.int8(): st.integers(-128, 127),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.null(): st.none(),
    pa.decimal128(20, 3): st.decimals(-(10**15), 10**15, places=3).map(Decimal),
    pa.timestamp("us"): st.integers(-(2**63), 2**63 - 1),
    pa.timestamp("s", "UTC"): st.integers(-(2**40), 2**40),
    pa.timestamp("ns"): st.integers(-(2**63) + 1, 2**63 - 1),
    pa.date32(): st.integers(-(2**31), 2**31 - 1),
    pa.time64("us"): st.integers(0, 86_399_999_999),
    pa.duration("ms"): st.integers(-(2**53), 2**53),
    pa.duration("us"): st.integers(-(2**63), 2**63 - 1),
}


def column_of(depth: int) -> st.SearchStrategy:
    """(type, values) of a column of three rows, with nulls."""

    def of(kind: pa.DataType, values: st.SearchStrategy) -> st.SearchStrategy:
        return st.tuples(st.just(kind), st.lists(st.none() | values, min_size=3, max_size=3))

    plain = st.sampled_from(list(PLAIN)).flatmap(lambda kind: of(kind, PLAIN[kind]))
    if not depth:
        return plain
    inner = column_of(depth - 1)
    nested = inner.map(lambda column: (pa.list_(column[0]), [column[1], None, column[1][:1]]))
    within = inner.map(
        lambda column: (
            pa.struct([("a", column[0])]),
            [None if one is None else {"a": one} for one in column[1]],
        )
    )
    return plain | nested | within


def array_of(kind: pa.DataType, values: list) -> pa.Array:
    """An array of ``kind``, with times as the numbers that they are stored as."""
    if pa.types.is_list(kind):
        parts = [[] if one is None else one for one in values]
        offsets = np.cumsum([0, *map(len, parts)])
        flat = array_of(kind.value_type, [item for part in parts for item in part])
        mask = pa.array([one is None for one in values])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, mask=mask)
    if pa.types.is_struct(kind):
        inner = array_of(kind[0].type, [None if one is None else one["a"] for one in values])
        return pa.StructArray.from_arrays([inner], ["a"], mask=pa.array([one is None for one in values]))
    if pa.types.is_temporal(kind):
        stored = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(values, stored).view(kind)
    return pa.array(values, kind)


# No name has a zero: pyarrow reads an Arrow file's only up to there.
TABLES = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3) | NAMES,
    column_of(2),
    max_size=3,
)


@fuzz(30)
@given(columns=TABLES, texts=st.lists(st.sampled_from(["one", "two", " ", None]), min_size=3, max_size=3))
@example(columns={"d": (pa.list_(pa.date32()), [[2**31 - 1], None, [0]])}, texts=["one", "two", None])
def test_parquet_and_arrow_say_the_same_and_a_bad_row_costs_no_other(tmp_path_factory, columns, texts):
    arrays = {name: array_of(*column) for name, column in columns.items() if name not in ("text", "id")}
    table = pa.table({"text": pa.array(texts, pa.string()), **arrays})
    folder = tmp_path_factory.getbasetemp()
    paths = folder / "t.parquet", folder / "t.arrow"

    def of(rows: pa.Table) -> list:
        pq.write_table(rows, paths[0], store_schema=True)
        paths[1].write_bytes(nasty.arrow(rows))
        return [read(path) for path in paths]

    whole = of(table)
    parquet, arrow = whole
    if isinstance(parquet, TsdsError) or isinstance(arrow, TsdsError):
        return
    assert parquet.read == arrow.read == 3
    assert parquet.version == arrow.version
    assert parquet.quarantine.drop("file").equals(arrow.quarantine.drop("file"))
    usable = [row for row in range(3) if row + 1 not in parquet.quarantine["line"]]
    assert all(
        one.version == parquet.version and one.read == len(usable)
        for one in of(table.take(pa.array(usable, pa.int64())))
    )
