"""What the fuzzing tests share: how many examples they try, and what must hold whatever is read.

TSDS_FUZZ multiplies the number of examples (`make test-long` sets it). Beyond 1 they are others at each run, and
hypothesis says how to try one again.
"""

import io
import os
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis

from tsds_pipeline.corpus import SourceRecords, read_source
from tsds_pipeline.corpus.vector_files import ids_file
from tsds_pipeline.errors import TsdsError

FACTOR = float(os.environ.get("TSDS_FUZZ") or 1)
READ = {"template": None, "max_chars": 1000, "vector_field": None}


def fuzz(examples: int) -> hypothesis.settings:
    """So many examples, times TSDS_FUZZ."""
    return hypothesis.settings(
        max_examples=round(examples * FACTOR),
        derandomize=FACTOR <= 1,
        print_blob=FACTOR > 1,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def read(*paths: Path, **options: Any) -> SourceRecords | TsdsError:
    """What ``paths`` hold, or why they cannot be read; in either case all that must hold is checked."""
    vectors = options.get("vector_files", ())
    beside = [*vectors, *(ids for path in vectors if (ids := ids_file(path)))]
    with nothing_on_stderr():
        try:
            records = read_source(paths, **{**READ, **options})
        except TsdsError as error:
            check_message(str(error), [*paths, *beside])
            return error
    check_records(records)
    return records


def check_message(message: str, paths: Sequence[Path]) -> None:
    """One printable line of a reasonable length that names a file."""
    assert message.isprintable(), message
    assert len(message) < 2000
    assert any(ascii(path.name)[1:-1] in ascii(message) for path in paths), message


def check_records(records: SourceRecords) -> None:
    """Everything that was read is somewhere, once, and can be stored."""
    corpus, bad = records.corpus, records.quarantine
    assert records.read == records.copies + len(bad) + len(records.excluded)
    assert corpus["count"].sum() == records.copies
    assert corpus["content_id"].is_unique().all()
    assert all(len(ids) <= count for ids, count in corpus.select("record_ids", "count").iter_rows())
    assert bad.sort("file", "line").equals(bad)
    assert all(0 < len(reason) <= 500 and reason.isprintable() for reason in bad["reason"])
    corpus.write_parquet(io.BytesIO())
    bad.write_parquet(io.BytesIO())


@contextmanager
def nothing_on_stderr():
    """Neither this process nor the libraries in it may write to standard error, whoever captures what Python writes."""
    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        said.seek(0)
        assert said.read() == b""
