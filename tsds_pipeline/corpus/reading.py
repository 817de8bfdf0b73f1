"""The records of one file, whatever its format. What their fields mean is not known here."""

from collections.abc import Iterator
from pathlib import Path

from tsds_pipeline.corpus.arrow_files import read_arrow
from tsds_pipeline.corpus.csv_files import read_csv
from tsds_pipeline.corpus.jsonl_files import read_jsonl
from tsds_pipeline.corpus.parquet_files import read_parquet
from tsds_pipeline.corpus.raw import RawRecord
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.file_names import FORMAT_RULE, check_name

# Twelve bytes are the longest escape of one character (a surrogate pair); the rest is for other fields.
BYTES_PER_CHAR = 12
OTHER_FIELDS_BYTES = 4 * 2**20
MOST_BYTES = 2**30


def read_records(path: Path, max_chars: int) -> Iterator[RawRecord]:
    """The records of ``path``, in one of ``file_names.FORMATS``, a few in memory at a time.

    A record that cannot be read comes with its reason. A file that cannot (missing, cut off, damaged) raises
    :class:`TsdsError`.
    """
    limit = min(BYTES_PER_CHAR * max_chars + OTHER_FIELDS_BYTES, MOST_BYTES)
    check_name(path)
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
        return read_jsonl(path, limit)
    if name.endswith(".csv"):
        return read_csv(path, limit)
    if name.endswith(".parquet"):
        return read_parquet(path, limit)
    if name.endswith(".arrow"):
        return read_arrow(path, limit)
    raise TsdsError(f"{path}: unknown kind of file: use {FORMAT_RULE}")
