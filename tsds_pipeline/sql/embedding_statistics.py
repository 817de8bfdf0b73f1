"""What a source's vectors are like, in one row: they are no table, so SQL cannot tell.

Computed when a model asks, and kept in storage/embedding_statistics/<source>.parquet for as long as the vectors
stay the same.
"""

from pathlib import Path

import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import row_blocks, row_lengths
from tsds_pipeline.storage import Artifact, write_atomically

FOLDER = "embedding_statistics"


def keep_statistics(storage: Path, source: str, embeddings: Artifact) -> None:
    """Make the statistics of the vectors of ``source`` what they are now."""
    path = storage / FOLDER / f"{source}.parquet"
    try:
        known = pl.read_parquet(path, columns=["version"], glob=False)["version"].to_list()
    except (OSError, pl.exceptions.PolarsError):
        known = []
    if known != [embeddings.version]:
        found = {**statistics(embeddings.vectors), "version": embeddings.version}
        # Those of a source without vectors are null, and numbers all the same to whoever reads them with others.
        numbers = dict.fromkeys(("mean_length", "concentration"), pl.Float64)
        write_atomically(path, pl.DataFrame([found], schema_overrides=numbers).write_parquet)


def statistics(vectors: np.ndarray) -> dict[str, float | int | None]:
    """Of ``vectors`` (n, dim), read block by block.

    ``concentration`` is the length of the mean vector over the mean length: 1 where all point the same way, near 0
    where they point everywhere.
    """
    n, dimensions = vectors.shape
    total, lengths = np.zeros(dimensions), 0.0
    for start, stop in row_blocks(n, 8 * max(dimensions, 1)):
        block = vectors[start:stop]
        total += block.sum(axis=0, dtype=np.float64)
        lengths += float(row_lengths(block).sum(dtype=np.float64))
    known = {"vectors": n, "dimensions": dimensions}
    if not n or not lengths:
        return {**known, "mean_length": None, "concentration": None}
    return {**known, "mean_length": lengths / n, "concentration": float(np.linalg.norm(total)) / lengths}
