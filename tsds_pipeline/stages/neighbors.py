"""Nearest candidates of one task's queries in one source, with their densities."""

import numpy as np
import polars as pl

from tsds_pipeline.core.neighbors import ExactSearch
from tsds_pipeline.core.row_stack import RowStack
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.stages.index import SourceIndex

DEPTH = 128
"""Neighbours kept per query and source. Where more are needed, the index is searched again (``stages.pool``)."""

# Queries whose neighbours are searched exactly too; a flat index is exact itself.
_SAMPLE, _SAMPLE_OF_EXACT = 16, 4

SCHEMA = {
    "query": pl.Int32,
    "candidate": pl.Int32,
    "content_id": pl.String,
    "count": pl.Int64,
    "distance": pl.Float64,
    "density": pl.Float64,
}


def query_neighbors(
    task: str, source: str, queries: np.ndarray, index: SourceIndex, densities: pl.DataFrame
) -> pl.DataFrame:
    """The DEPTH nearest candidates of each of ``queries`` (m, dim), in order of (query, distance, candidate).

    ``query`` and ``candidate`` are row numbers of the query and the source; ``distance`` is plain L2.
    ``densities`` has a row for each row of the index.
    """
    if index.search is None:
        return pl.DataFrame(schema=SCHEMA)
    if queries.shape[1] != index.vectors.shape[1]:
        raise TsdsError(
            f"task {task}: its query vectors have {queries.shape[1]} dimensions, those of source {source} "
            f"{index.vectors.shape[1]}: queries and candidates need vectors of one encoder"
        )
    found = index.search.search(queries, DEPTH)
    query, rank = np.nonzero(found.indices >= 0)
    candidate = found.indices[query, rank]
    table = pl.DataFrame(
        {"query": query, "candidate": candidate, "distance": found.distances[query, rank]}
    ).with_columns(densities.select("content_id", "count", "density")[candidate])
    return table.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())


def recall(table: pl.DataFrame, queries: np.ndarray, index: SourceIndex) -> tuple[float, int]:
    """The share of the exact nearest candidates that ``table`` has, and for how many of the queries that was seen.

    What is as near as the farthest of the exact ones counts, whichever of those that tie it is.
    """
    if index.search is None:
        return 1.0, 0
    exact = isinstance(index.search, ExactSearch)
    search = index.search if exact else ExactSearch(RowStack([index.vectors]))
    sample = np.random.default_rng(0).permutation(len(queries))[: _SAMPLE_OF_EXACT if exact else _SAMPLE]
    nearest = search.search(np.ascontiguousarray(queries[sample]), DEPTH).distances
    farthest = pl.DataFrame({"query": sample.astype(np.int32), "farthest": nearest[:, -1]})
    found = table.join(farthest, on="query").filter(pl.col("distance") <= pl.col("farthest"))
    return len(found) / nearest.size, len(sample)
