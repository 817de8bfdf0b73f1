"""Files that somebody will put into a project one day, written by code.

``FILES`` has them by name: a file of the name ``NAME``, whose content is bytes or made by a function of its path, and
what is to become of it: ``REFUSED`` as a whole, or so many records and so many bad ones.
"""

import gzip
import io
import json
import pickle  # noqa: TID251 - to see that nothing unpickles it
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tsds_pipeline.corpus.lines import import_zstd

REFUSED = None
zstd = import_zstd(Path("a.zst"))


class Nasty(NamedTuple):
    """What is in a file, and what comes of it."""

    content: bytes | Callable[[Path], object]
    records: int | None
    """How many can be used; REFUSED where the file cannot be read as a whole."""
    bad: int = 0

    def write(self, path: Path) -> Path:
        """Write it to ``path``."""
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)
        return path


def parquet(columns: dict, **options) -> bytes:
    """A Parquet file of pyarrow with these columns."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def arrow(columns: dict | pa.Table) -> bytes:
    """An Arrow stream with these columns."""
    file, table = io.BytesIO(), pa.table(columns)
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def _invalid_utf8() -> pa.Array:
    offsets = pa.py_buffer(np.array([0, 1, 2], np.int32))
    return pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xffa")])


def _offsets_that_lead_out() -> bytes:
    offsets, others = (np.array([0, 1, last], np.int32).tobytes() for last in (2, 2**30))
    return arrow(TWO).replace(offsets, others)


def _no_groups(path: Path) -> None:
    pq.ParquetWriter(path, pa.schema([("text", pa.string())])).close()


def _groups_without_rows(path: Path) -> None:
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for rows in ([], ["a"], []):
            writer.write_table(pa.table({"text": pa.array(rows, pa.string())}))


def _duplicate_columns(kind: str) -> bytes:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    if kind == "arrow":
        return arrow(table)
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


class Executed(Exception):
    """Raised where something of a pickle was called."""


class Bomb:
    """Unpickling one raises :class:`Executed`."""

    def __reduce__(self):
        return _raise_executed, ()


def _raise_executed() -> None:
    raise Executed


GOOD = b'{"text": "good"}\n'
DEEP = b'{"text": "a", "x": ' + b'{"a":[' * 50_000 + b"]}" * 50_000 + b"}\n"
DAMAGED_GZIP = gzip.compress(GOOD * 100)[:-9]
TWO = {"text": ["a", "b"]}
ENOUGH = parquet({"text": [f"text {i}" for i in range(1000)], "n": list(range(1000))})

FILES: dict[str, Nasty] = {
    # Text
    "empty.jsonl": Nasty(b"", 0),
    "white-space.jsonl": Nasty(b" \n\t\r\n\x0b\x0c\n", 0),
    "mark-alone.jsonl": Nasty(b"\xef\xbb\xbf", 0),
    "two-marks.jsonl": Nasty(b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD, 0, 1),
    "utf-16.jsonl": Nasty('{"text": "a"}\n'.encode("utf-16"), REFUSED),
    "utf-16-big.jsonl": Nasty(b"\xfe\xff" + '{"text": "a"}\n'.encode("utf-16-be"), REFUSED),
    "utf-16-without-mark.jsonl": Nasty('{"text": "a"}'.encode("utf-16-le"), 0, 1),
    "utf-32.jsonl": Nasty('{"text": "a"}\n'.encode("utf-32"), REFUSED),
    "latin-1.jsonl": Nasty(GOOD + '{"text": "café"}\n'.encode("latin-1"), 1, 1),
    "overlong.jsonl": Nasty(GOOD + b'{"text": "\xc0\xaf"}\n', 1, 1),
    "surrogates-as-bytes.jsonl": Nasty(GOOD + b'{"text": "\xed\xa0\x80"}\n', 1, 1),
    "half-a-pair.jsonl": Nasty(GOOD + b'{"text": "\\ud800"}\n{"id": "\\udfff", "text": "a"}\n', 1, 2),
    "nul.jsonl": Nasty(GOOD + b"\0\0\0\n" + b'{"text": "a\\u0000b"}\n{"text": "\0"}\n', 2, 2),
    "carriage-returns.jsonl": Nasty(b'{"text": "a"}\r{"text": "b"}\r', 0, 1),
    "separators.jsonl": Nasty('{"text": "a"}\u2028{"text": "b"}\n'.encode(), 0, 1),
    "deep.jsonl": Nasty(GOOD + DEEP + GOOD, 2, 1),
    "deep-lists.jsonl": Nasty(GOOD + b"[" * 10**6 + b"\n", 1, 1),
    "numbers.jsonl": Nasty(
        b'{"text": "a", "n": NaN}\n{"text": "b", "n": -Infinity}\n{"text": "c", "n": 1e999}\n'
        b'{"text": "d", "n": %s}\n{"text": "e", "n": 1e-999}\n{"text": "f", "n": %s}\n{"text": "g", "n": -0.0}\n'
        % (b"9" * 5000, b"9" * 4000),
        3,
        4,
    ),
    "types.jsonl": Nasty(
        b'[]\n1\n"x"\nnull\ntrue\n{}\n{"text": 1}\n{"text": []}\n{"text": {"text": "a"}}\n{"text": null}\n',
        0,
        10,
    ),
    "twice.jsonl": Nasty(b'{"id": "a", "text": "x"}\n' * 2 + b'{"id": "a", "text": "y"}\n', 3),
    "key-twice.jsonl": Nasty(b'{"text": "a", "text": "b"}\n', 0, 1),
    "ids.jsonl": Nasty(
        b'{"id": "../../x", "text": "a"}\n{"id": "CON", "text": "b"}\n{"id": "\'; DROP TABLE x; --", "text": "c"}\n'
        b'{"id": {}, "text": "d"}\n{"id": "", "text": "e"}\n{"id": 1e3, "text": "f"}\n{"id": "%s", "text": "g"}\n'
        % (b"i" * 10_000),
        7,
    ),
    "escapes.jsonl": Nasty(
        b'{"text": "\\u001b[31mred\\u001b]0;title\\u0007", "id": "\\u001b[2J"}\n{"\\u001b[2J\\u009b1m\\u202e": 1}\n',
        1,
        1,
    ),
    "long-name.jsonl": Nasty(json.dumps({"text": "a", "k" * 10_000: 1}).encode(), 1),
    "no-text.jsonl": Nasty(b'{"a": 1}\n' * 100, 0, 100),
    # Packed
    "empty.jsonl.gz": Nasty(b"", 0),
    "plain.jsonl.gz": Nasty(GOOD, REFUSED),
    "cut.jsonl.gz": Nasty(DAMAGED_GZIP, REFUSED),
    "trailing.jsonl.gz": Nasty(gzip.compress(GOOD) + b"garbage", REFUSED),
    "zeros-behind.jsonl.gz": Nasty(gzip.compress(GOOD) + bytes(100), 1),
    "plain.jsonl.zst": Nasty(GOOD, REFUSED),
    "cut.jsonl.zst": Nasty(zstd.compress(GOOD * 100)[:-3], REFUSED),
    # CSV
    "empty.csv": Nasty(b"", 0),
    "white-space.csv": Nasty(b" \n\t\n", 0),
    "header-alone.csv": Nasty(b"id,text\n", 0),
    "no-header.csv": Nasty(b"a,b\nc,d\n", 0, 1),
    "ragged.csv": Nasty(b"id,text\n1\n2,a\n3,b,c\n,\n", 1, 3),
    "quotes.csv": Nasty(b'id,text\n1,"a ""b"", c\n\nd"\n2,"x"y\n3,z\n', 2, 1),
    "open-quote.csv": Nasty(b'id,text\n1,a\n2,"b\n3,c\n', REFUSED),
    "names-twice.csv": Nasty(b"text,text\na,b\n", REFUSED),
    "escapes-in-header.csv": Nasty(b"text,\x1b[2J,\x1b[2J\na,b,c\n", REFUSED),
    "utf-16.csv": Nasty("text\na\n".encode("utf-16"), REFUSED),
    "latin-1.csv": Nasty("text\ncafé\nx\n".encode("latin-1"), 1, 1),
    "nul.csv": Nasty(b"text\na\0b\n\0\n", 1, 1),
    "carriage-returns.csv": Nasty(b"text\ra\rb\r", REFUSED),
    # Parquet
    "empty.parquet": Nasty(b"", REFUSED),
    "text.parquet": Nasty(GOOD, REFUSED),
    "cut.parquet": Nasty(ENOUGH[: len(ENOUGH) // 2], REFUSED),
    "end-alone.parquet": Nasty(b"PAR1" + ENOUGH[-8:], REFUSED),
    "length-of-a-lie.parquet": Nasty(ENOUGH[:-8] + b"\xff\xff\xff\x7fPAR1", REFUSED),
    "no-groups.parquet": Nasty(_no_groups, 0),
    "groups-without-rows.parquet": Nasty(_groups_without_rows, 1),
    "duplicate-columns.parquet": Nasty(_duplicate_columns("parquet"), REFUSED),
    "binary.parquet": Nasty(parquet({"text": [b"\xff", b"a"]}), 0, 2),
    "invalid-utf-8.parquet": Nasty(parquet({"text": _invalid_utf8()}), REFUSED),
    "numbers.parquet": Nasty(
        parquet({"text": ["a", "b", "c"], "n": [float("nan"), float("inf"), 1.0]}), 1, 2
    ),
    "decimals.parquet": Nasty(
        parquet({**TWO, "n": pa.array([Decimal("1e-9"), None], pa.decimal128(38, 9))}), 2
    ),
    "nested-nulls.parquet": Nasty(
        parquet(
            {
                "text": ["a", "b", "c"],
                "x": pa.array(
                    [[None, [None, {"a": None}]], None, []],
                    pa.list_(pa.list_(pa.struct([("a", pa.list_(pa.int8()))]))),
                ),
                "m": pa.array([[("k", None)], None, []], pa.map_(pa.string(), pa.int8())),
                "nothing": pa.nulls(3),
            }
        ),
        3,
    ),
    "times.parquet": Nasty(
        parquet(
            {
                "text": ["a", "b", "c", "d"],
                "t": pa.array([0, 2**62, -(2**62), None], pa.timestamp("us", "Europe/Berlin")),
            }
        ),
        2,
        2,
    ),
    "dates.parquet": Nasty(
        parquet(
            {"text": ["a", "b", "c"], "d": pa.array([0, 2**31 - 1, -(2**31)], pa.int32()).cast(pa.date32())}
        ),
        1,
        2,
    ),
    "dates-in-lists.parquet": Nasty(
        parquet(
            {
                "text": ["a", "b"],
                "d": pa.array([[0], [2**31 - 1]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
            }
        ),
        1,
        1,
    ),
    "durations.parquet": Nasty(parquet({**TWO, "d": pa.array([1, 2**62], pa.duration("ms"))}), 1, 1),
    "no-such-zone.parquet": Nasty(
        parquet({**TWO, "t": pa.array([0, 1], pa.timestamp("us", "No/Where"))}), REFUSED
    ),
    "wrong-types.parquet": Nasty(parquet({"text": [1, 2]}), 0, 2),
    "large-row.parquet": Nasty(parquet({"text": ["a", "b"], "x": [bytes(10).decode(), "x" * 10**7]}), 1, 1),
    # Arrow
    "empty.arrow": Nasty(b"", REFUSED),
    "text.arrow": Nasty(GOOD, REFUSED),
    "cut.arrow": Nasty(arrow(TWO)[:-20], REFUSED),
    "no-end.arrow": Nasty(arrow(TWO)[:-8], REFUSED),
    "invalid-utf-8.arrow": Nasty(arrow({"text": _invalid_utf8()}), REFUSED),
    "leads-out.arrow": Nasty(lambda path: path.write_bytes(_offsets_that_lead_out()), REFUSED),
    "name-not-utf-8.arrow": Nasty(arrow({**TWO, "name": [1, 2]}).replace(b"name", b"\xffame"), REFUSED),
    "duplicate-columns.arrow": Nasty(_duplicate_columns("arrow"), REFUSED),
    "dates.arrow": Nasty(arrow({**TWO, "d": pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32())}), 1, 1),
    "no-such-zone.arrow": Nasty(
        arrow({**TWO, "t": pa.array([0, 1], pa.timestamp("us", "No/Where"))}), REFUSED
    ),
    "unknown-type.arrow": Nasty(
        arrow({**TWO, "x": pa.array([(1, 2, 3), None], pa.month_day_nano_interval())}), REFUSED
    ),
    "union.arrow": Nasty(
        arrow(
            {
                **TWO,
                "x": pa.UnionArray.from_dense(
                    pa.array([0, 1], pa.int8()),
                    pa.array([0, 0], pa.int32()),
                    [pa.array([1]), pa.array(["x"])],
                ),
            }
        ),
        REFUSED,
    ),
    # What only looks like a file of its format
    "folder.jsonl": Nasty(Path.mkdir, REFUSED),
    "folder.csv": Nasty(Path.mkdir, REFUSED),
    "folder.parquet": Nasty(Path.mkdir, REFUSED),
    "folder.arrow": Nasty(Path.mkdir, REFUSED),
    "link-to-nothing.jsonl": Nasty(lambda path: path.symlink_to("nowhere"), REFUSED),
    "link-to-itself.parquet": Nasty(lambda path: path.symlink_to(path.name), REFUSED),
    "pickle.jsonl": Nasty(pickle.dumps(Bomb()), 0, 1),
    "pickle.parquet": Nasty(pickle.dumps(Bomb()), REFUSED),
    "pickle.arrow": Nasty(pickle.dumps(Bomb()), REFUSED),
}

VECTORS = np.eye(3, 4, dtype=np.float32)


def npy(array: np.ndarray, **options) -> bytes:
    """An npy file."""
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def _header(shape: str, descr: str = "'<f4'", more: str = "") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}{more}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + VECTORS.tobytes()


IDS = b"a\nb\nc\n"
VECTOR_FILES: dict[str, tuple[bytes, bytes, int | None]] = {
    # npy, ids, how many of the records a, b and c can be used
    "good": (npy(VECTORS), IDS, 3),
    "float16": (npy(VECTORS.astype(np.float16)), IDS, 3),
    "big-endian": (npy(VECTORS.astype(">f8")), IDS, 3),
    "by-columns": (npy(np.asfortranarray(VECTORS)), IDS, 3),
    "whole-numbers": (npy(VECTORS.astype(np.uint64)), IDS, 3),
    "nan": (npy(np.where(VECTORS > 0, np.nan, VECTORS)), IDS, 0),
    "infinite": (npy(np.array([[1, 2], [np.inf, 1], [3, 4.0]])), IDS, 2),
    "too-large-for-float32": (npy(np.array([[1e300, 2], [1, 1], [3, 4.0]])), IDS, 2),
    "one-dimension": (npy(VECTORS[0]), IDS, REFUSED),
    "three-dimensions": (npy(VECTORS[None]), IDS, REFUSED),
    "no-rows": (npy(VECTORS[:0]), b"", 0),
    "no-numbers": (npy(VECTORS[:, :0]), IDS, REFUSED),
    "truth": (npy(VECTORS > 0), IDS, REFUSED),
    "complex": (npy(VECTORS.astype(complex)), IDS, REFUSED),
    "texts": (npy(VECTORS.astype("S4")), IDS, REFUSED),
    "structured": (npy(np.zeros((3, 2), [("a", "f4")])), IDS, REFUSED),
    "objects": (npy(np.array([[Bomb()]] * 3), allow_pickle=True), IDS, REFUSED),
    "pickle": (pickle.dumps(Bomb()), IDS, REFUSED),
    "zip": (b"PK\x03\x04" + bytes(100), IDS, REFUSED),
    "empty": (b"", IDS, REFUSED),
    "cut": (npy(VECTORS)[:-4], IDS, REFUSED),
    "cut-in-the-header": (npy(VECTORS)[:40], IDS, REFUSED),
    "code-in-the-header": (_header("__import__('os').getcwd()"), IDS, REFUSED),
    "negative-shape": (_header("(-1, 4)"), IDS, REFUSED),
    "enormous-shape": (_header("(2305843009213693952, 4)"), IDS, REFUSED),
    "shape-beyond-64-bits": (_header("(99999999999999999999999, 4)"), IDS, REFUSED),
    "no-such-type": (_header("(3, 4)", "'<f3'"), IDS, REFUSED),
    "too-few-ids": (npy(VECTORS), b"a\nb\n", REFUSED),
    "an-id-twice": (npy(VECTORS), b"a\nb\nb\n", REFUSED),
    "a-blank-id": (npy(VECTORS), b"a\n\nc\n", REFUSED),
    "ids-not-utf-8": (npy(VECTORS), b"a\n\xff\nc\n", REFUSED),
    "ids-that-nobody-has": (npy(VECTORS), b"a\n\x1b[2J\n../../x\n", 1),
    "ids-with-carriage-returns": (npy(VECTORS), b"a\r\nb\r\nc\r\n", 3),
}
