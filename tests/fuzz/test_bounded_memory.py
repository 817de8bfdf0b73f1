"""What unpacks to much, or is one enormous line: the memory that reading it takes is bounded, and measured.

By the kernel: what ``getrusage`` tells of a new process begins with the memory of the one that started it.
"""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fuzz import nasty

MIB = 2**20
# A process that reads one small file has some 130 MiB; a record of the default max_chars may have 16, and 256 MiB of
# them wait before they go to a file, sorted.
MOST_MIB = 700
READER = """
import json, sys
from pathlib import Path
from tsds_pipeline.corpus import read_source
from tsds_pipeline.errors import TsdsError
try:
    path = Path(sys.argv[1])
    found = read_source([path], template=None, max_chars=10**6, vector_field=None, spill=path.parent / "spill")
    said = [found.copies, len(found.quarantine)]
except TsdsError as error:
    said = str(error)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([said, int(status["VmHWM"].split()[0]) / 1024]))
"""


def _packed(opened, parts):
    def write(path):
        with opened(path, "wb") as file:
            for part in parts():
                file.write(part)

    return write


def _one_line(times: int):
    yield b'{"text": "'
    yield from (b"x" * MIB for _ in range(times))
    yield b'"}\n{"text": "next"}\n'


def _large_list(path):
    items = 50_000_000
    list_ = pa.ListArray.from_arrays(
        pa.array([0, items, items], pa.int32()), pa.array(np.zeros(items, np.int8))
    )
    pq.write_table(pa.table({"text": ["a", "b"], "x": list_}), path)


def _same_text(path):
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array(["x" * 900_000]))
    pq.write_table(pa.table({"text": same}), path)


BOMBS = {
    # name: how it is written, what comes of it
    "line.jsonl": (_packed(open, lambda: _one_line(100)), [1, 1]),
    "line.csv": (_packed(open, lambda: [b"text\n", *(b"x" * MIB for _ in range(100)), b"\nnext\n"]), [1, 1]),
    "line.jsonl.gz": (_packed(gzip.open, lambda: _one_line(300)), [1, 1]),
    "line.jsonl.zst": (_packed(nasty.zstd.open, lambda: _one_line(300)), [1, 1]),
    "blank.jsonl.gz": (_packed(gzip.open, lambda: (b"\n" * MIB for _ in range(3))), [0, 0]),
    "lists.jsonl": (_packed(open, lambda: [b'{"text": "a", "x": [', b"[]," * 5_000_000, b"[]]}\n"]), [1, 0]),
    "quote.csv": (
        _packed(open, lambda: [b'text\n"', b"\n" * 20_000_000]),
        "a quote in this row is never closed",
    ),
    "no-records.jsonl.gz": (
        _packed(gzip.open, lambda: (b"x\n" * 50_000 for _ in range(25))),
        "more than 1,000,000",
    ),
    "large-list.parquet": (_large_list, [1, 1]),
    "same-text.parquet": (_same_text, [300, 0]),
}


QUICK = {"line.jsonl", "line.jsonl.zst"}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in BOMBS]
)
def test_it_takes_no_more_memory_than_a_record_may(tmp_path, name):
    write, expected = BOMBS[name]
    path = tmp_path / name
    write(path)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found, peak = json.loads(done.stdout)
    assert found == expected or (isinstance(expected, str) and expected in found)
    print(f"{name}: {path.stat().st_size:,} bytes, {peak:.0f} MiB")
    assert peak < MOST_MIB
