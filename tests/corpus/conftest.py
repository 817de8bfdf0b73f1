"""Writing small files and reading them back."""

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tsds_pipeline.corpus import SourceRecords, read_source
from tsds_pipeline.corpus.lines import import_zstd


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write(name, lines)``: objects become JSON, bytes stay as they are; gzip or zstd where the name says so."""

    def write(name: str, lines: Iterable[object]) -> Path:
        data = b"".join(
            (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
        )
        path = tmp_path / name
        packed = {".gz": gzip.compress, ".zst": import_zstd(path).compress}.get(path.suffix)
        path.write_bytes(packed(data) if packed else data)
        return path

    return write


@pytest.fixture
def read() -> Callable[..., SourceRecords]:
    """``read_source`` with defaults."""

    def read(*paths: Path, template=None, max_chars=1000, vector_field=None) -> SourceRecords:
        return read_source(paths, template=template, max_chars=max_chars, vector_field=vector_field)

    return read


@pytest.fixture
def reasons(read) -> Callable[..., list[tuple[int, str]]]:
    """The line and the reason of each record that cannot be used."""

    def reasons(*paths: Path, **options) -> list[tuple[int, str]]:
        return read(*paths, **options).quarantine.select("line", "reason").rows()

    return reasons
