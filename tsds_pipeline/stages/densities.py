"""Kernel densities of one source's candidates under the whole pool, and the pool in one small table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.stages.index import SourceIndex
from tsds_pipeline.stages.kernel_sums import kernel_sums
from tsds_pipeline.storage import Artifact

POOL_SCHEMA = {
    "source": pl.String,
    "candidates": pl.Int64,
    "copies": pl.Int64,
    "total_weight": pl.Float64,
    "near_duplicates": pl.Int64,
    "densities_version": pl.String,
}


@dataclass(frozen=True)
class Densities:
    """``table`` has content_id, count and density of each candidate of a source, row by row as in its index.

    ``largest_error`` is the largest relative error seen on a sample where not all are exact, otherwise 0.
    """

    table: pl.DataFrame
    largest_error: float


def kernel_densities(
    source: str,
    indexes: Mapping[str, SourceIndex],
    kernel_radius: float,
    kept: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Densities:
    """The densities of the candidates of ``source`` under every source, so that near-duplicates elsewhere count.

    ``kernel_radius`` is a plain L2 distance. ``kept`` is the folder of sums that were computed before (see
    ``kernel_sums``); ``progress`` counts sources. The sums are added in the order of the sources' keys.
    """
    own = indexes[source]
    density, largest_error = np.zeros(len(own.table)), 0.0
    filled = {key: index for key, index in sorted(indexes.items()) if len(index.table)}
    if source not in filled:
        filled = {}
    for done, (key, index) in enumerate(filled.items(), start=1):
        if index.vectors.shape[1] != own.vectors.shape[1]:
            raise TsdsError(
                f"source {source}: its vectors have {own.vectors.shape[1]} dimensions, those of source {key} "
                f"{index.vectors.shape[1]}: all sources need vectors of one encoder"
            )
        sums = kernel_sums(own, index, kernel_radius, kept)
        density[sums.rows] += sums.values
        largest_error = max(largest_error, sums.error)
        if progress:
            progress(done, len(filled))
    return Densities(own.table.select("content_id", "count").with_columns(density=density), largest_error)


def near_duplicates(table: pl.DataFrame) -> pl.DataFrame:
    """The candidates of ``table`` whose density is more than their own copies: another one is within h."""
    return table.filter(pl.col("density") > pl.col("count") * (1 + 1e-9))


def summarize_pool(densities: Mapping[str, Artifact]) -> pl.DataFrame:
    """A row a source: candidates, copies (with their counts) and S, the sum of the weights count / density.

    ``near_duplicates`` counts the candidates whose density is more than their own copies.
    """
    rows = [
        {
            "source": source,
            "candidates": len(table),
            "copies": table["count"].sum(),
            "total_weight": float((table["count"] / table["density"]).sum()) if len(table) else 0.0,
            "near_duplicates": near_duplicates(table).height,
            "densities_version": artifact.version,
        }
        for source, artifact in sorted(densities.items())
        for table in [artifact.frame]
    ]
    return pl.DataFrame(rows, schema=POOL_SCHEMA)
