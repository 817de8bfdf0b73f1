"""What is known about stored vectors without reading them."""

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from tsds_pipeline.sql.embedding_statistics import FOLDER, keep_statistics
from tsds_pipeline.storage import Artifact, Draft, Header, write_artifact


def embedded(folder: Path, name: str, vectors: np.ndarray) -> Artifact:
    table = pl.DataFrame(
        {"content_id": [str(i) for i in range(len(vectors))]}, schema={"content_id": pl.String}
    )
    return write_artifact(folder / f"{name}.parquet", Draft(table, Header(name, "1"), {"vectors": vectors}))


def test_a_source_without_records_can_be_read_with_the_others(tmp_path):
    for name, n in (("empty", 0), ("full", 3)):
        keep_statistics(tmp_path, name, embedded(tmp_path, name, np.ones((n, 4 if n else 0), np.float32)))
    both = f"read_parquet('{tmp_path / FOLDER}/*.parquet')"
    rows = duckdb.sql(f"SELECT vectors, mean_length, concentration FROM {both} ORDER BY vectors").fetchall()
    assert rows == [(0, None, None), (3, pytest.approx(2.0), pytest.approx(1.0))]
