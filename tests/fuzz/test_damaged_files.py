"""Files that were good once: bytes flipped, lost, repeated or put in anywhere. Packed ones show it, text goes on."""

import gzip
import io

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz import nasty
from tests.fuzz.fuzzing import fuzz, read
from tsds_pipeline.errors import TsdsError

ROWS = 30
TABLE = pl.DataFrame(
    {
        "id": [f"r{i}" for i in range(ROWS)],
        "text": [f"text {i % 7} {i}" for i in range(ROWS)],
        "tags": [["a", None, str(i)] if i % 3 else None for i in range(ROWS)],
        "o": [{"x": i, "y": None if i % 2 else "q"} for i in range(ROWS)],
        "when": pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, ROWS), "1d", eager=True),
        "day": pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 1, ROWS), "1d", eager=True),
        "e": [[float(i), 1.0] for i in range(ROWS)],
    }
)
JSONL = TABLE.select("id", "text", "tags", "o").write_ndjson().encode()
CHECKED = {nasty.zstd.CompressionParameter.checksum_flag: 1}


def _parquet(**options) -> bytes:
    file = io.BytesIO()
    TABLE.write_parquet(file, row_group_size=16, **options)
    return file.getvalue()


def _ipc_file() -> bytes:
    import pyarrow as pa

    file, table = io.BytesIO(), TABLE.to_arrow(compat_level=pl.CompatLevel.oldest())
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=16)
    return file.getvalue()


WHOLE = {
    "a.jsonl": JSONL,
    "a.jsonl.gz": gzip.compress(JSONL, mtime=0),
    "a.jsonl.zst": nasty.zstd.compress(JSONL, options=CHECKED),
    "a.csv": TABLE.select("id", "text").write_csv().encode(),
    "packed.parquet": _parquet(compression="zstd"),
    "plain.parquet": _parquet(compression="uncompressed"),
    "stream.arrow": nasty.arrow(TABLE.to_arrow(compat_level=pl.CompatLevel.oldest())),
    "file.arrow": _ipc_file(),
}
PLACE = st.integers(0, max(map(len, WHOLE.values())))
DAMAGE = st.one_of(
    st.tuples(st.just("flip"), PLACE, st.integers(0, 7)),
    st.tuples(
        st.just("flip"), st.integers(-600, -1), st.integers(0, 7)
    ),  # of Parquet what says where all else is
    st.tuples(st.just("cut"), PLACE, st.just(0)),
    st.tuples(st.just("lose"), PLACE, st.integers(1, 40)),
    st.tuples(st.just("repeat"), PLACE, st.integers(1, 40)),
    st.tuples(st.just("zeros"), PLACE, st.integers(1, 40)),
)


def damaged(data: bytes, kind: str, place: int, size: int) -> bytes:
    """``data`` with one damage."""
    if not data:
        return data
    at = place % len(data)
    match kind:
        case "flip":
            return data[:at] + bytes([data[at] ^ 1 << size]) + data[at + 1 :]
        case "cut":
            return data[:at]
        case "lose":
            return data[:at] + data[at + size :]
        case "repeat":
            return data[: at + size] + data[at:]
    return data[:at] + bytes(size) + data[at + size :]


@fuzz(20)
@given(damages=st.lists(DAMAGE, min_size=1, max_size=3))
@pytest.mark.parametrize("name", WHOLE)
def test_it_is_refused_or_every_record_is_accounted_for(tmp_path_factory, name, damages):
    whole = data = WHOLE[name]
    for damage in damages:
        data = damaged(data, *damage)
    # A file of its own each time: one that is still mapped must not be written to.
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / name
    path.write_bytes(data)
    found = read(path)
    if name == "a.jsonl":
        # What says which lines there are is what stands there, whatever happened to it.
        assert isinstance(found, TsdsError) or found.read == sum(
            1 for line in data.split(b"\n") if line.strip()
        )
    elif name.endswith((".gz", ".zst")) and data != whole:
        intact = read_whole(folder, name, whole)
        # The header of gzip has fields that mean nothing here, and behind the end zeros may follow.
        assert isinstance(found, TsdsError) or found.version == intact.version or data[:100] != whole[:100]
    elif not isinstance(found, TsdsError) and name.endswith((".parquet", ".arrow")):
        assert found.read <= 2 * ROWS


def read_whole(folder, name: str, data: bytes):
    """The records of ``data``, undamaged."""
    path = folder / f"whole-{name}"
    path.write_bytes(data)
    return read(path)


@fuzz(60)
@example(damages=[("flip", 10, 0)])
@given(damages=st.lists(DAMAGE, min_size=1, max_size=2))
def test_vectors_are_refused_or_finite(tmp_path_factory, damages):
    data = nasty.npy(np.eye(3, 40, dtype=np.float32))
    for damage in damages:
        data = damaged(data, *damage)
    folder = tmp_path_factory.mktemp("damaged")
    path, records = folder / "v.npy", folder / "r.jsonl"
    path.write_bytes(data)
    (folder / "v.ids.txt").write_bytes(nasty.IDS)
    records.write_bytes(b"".join(b'{"id": "%s", "text": "t"}\n' % (one,) for one in (b"a", b"b", b"c")))
    found = read(records, vector_field="e", vector_files=[path])
    assert isinstance(found, TsdsError) or np.isfinite(found.corpus["vector"].to_numpy()).all()
