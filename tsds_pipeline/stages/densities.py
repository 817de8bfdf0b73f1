"""Kernel densities of one source's candidates under the whole pool, and the pool in one small table."""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from tsds_pipeline.core.density import KernelDensity
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.stages.index import SourceIndex
from tsds_pipeline.storage import Artifact

POOL_SCHEMA = {
    "source": pl.String,
    "candidates": pl.Int64,
    "copies": pl.Int64,
    "total_weight": pl.Float64,
    "near_duplicates": pl.Int64,
    "densities_version": pl.String,
}


def kernel_densities(
    source: str,
    indexes: Mapping[str, SourceIndex],
    kernel_radius: float,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """content_id, count and density of each candidate of ``source``, row by row as in its index.

    The pool is every source, so that a near-duplicate in another source counts. ``kernel_radius`` is a
    plain L2 distance.
    """
    own = indexes[source]
    if own.table.is_empty():
        return own.table.select("content_id", "count").with_columns(density=pl.lit(0.0))
    filled = {key: index for key, index in sorted(indexes.items()) if len(index.table)}
    for key, index in filled.items():
        if index.vectors.shape[1] != own.vectors.shape[1]:
            raise TsdsError(
                f"source {source}: its vectors have {own.vectors.shape[1]} dimensions, those of source {key} "
                f"{index.vectors.shape[1]}: all sources need vectors of one encoder"
            )
    total = len(own.vectors)
    report = None if progress is None else lambda done: progress(done, total)
    density = _pool_density(filled, kernel_radius)(own.vectors, report)
    return own.table.select("content_id", "count").with_columns(density=density)


_latest: tuple[object, KernelDensity] | None = None


def _pool_density(indexes: Mapping[str, SourceIndex], kernel_radius: float) -> KernelDensity:
    """The density under the pool of ``indexes``.

    The last one is kept: grouping a large pool takes longer than the densities of one source, and a refresh wants
    the same pool for source after source.
    """
    global _latest
    versions = [index.version for index in indexes.values()]
    key = (kernel_radius, tuple(zip(indexes, versions, strict=True)))
    if _latest is not None and _latest[0] == key and None not in versions:
        return _latest[1]
    counts = np.concatenate([index.table["count"].to_numpy() for index in indexes.values()])
    _latest = (key, KernelDensity([index.vectors for index in indexes.values()], kernel_radius, counts))
    return _latest[1]


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
