"""A map of the pool, laid out once for all tasks: some candidates as landmarks, by which the rest is placed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from tsds_pipeline.core.projection import lay_out, place
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.storage import Artifact

LANDMARKS = 1500

SCHEMA = {"source": pl.String, "content_id": pl.String, "x": pl.Float32, "y": pl.Float32}


@dataclass(frozen=True)
class PoolMap:
    """``table`` has source, content_id, x and y of each landmark; ``vectors`` (n, dim) are theirs."""

    table: pl.DataFrame
    vectors: np.ndarray

    @property
    def positions(self) -> np.ndarray:
        """(n, 2)."""
        return self.table.select("x", "y").to_numpy()

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """Where ``vectors`` (m, dim) are on the map, (m, 2)."""
        if not len(self.vectors):
            return np.zeros((len(vectors), 2), np.float32)
        return place(vectors, self.vectors, self.positions)


def map_pool(embeddings: Mapping[str, Artifact]) -> PoolMap:
    """The map of the candidates that ``embeddings``, by source, hold vectors of.

    Landmarks are the candidates with the smallest content ids: these are hashes, so it is a random sample in which
    each source has its share, and which changes little as the pool grows.
    """
    tables = [
        artifact.frame.select("content_id").with_row_index("row").with_columns(source=pl.lit(source))
        for source, artifact in sorted(embeddings.items())
        if len(artifact.frame)
    ]
    if not tables:
        return PoolMap(pl.DataFrame(schema=SCHEMA), np.zeros((0, 0), np.float32))
    chosen = pl.concat(table.bottom_k(LANDMARKS, by="content_id") for table in tables)
    chosen = chosen.unique("content_id", keep="first", maintain_order=True).bottom_k(
        LANDMARKS, by="content_id"
    )
    chosen = chosen.sort("content_id")
    _require_one_dimension({key: embeddings[key] for key in chosen["source"].unique().sort()})
    vectors = np.stack(
        [embeddings[source].vectors[row] for source, row in chosen["source", "row"].iter_rows()]
    )
    x, y = lay_out(vectors).T
    table = chosen.select("source", "content_id").with_columns(x=pl.Series(x), y=pl.Series(y))
    return PoolMap(table, vectors)


def _require_one_dimension(embeddings: Mapping[str, Artifact]) -> None:
    dims = {source: artifact.vectors.shape[1] for source, artifact in embeddings.items()}
    first, *rest = dims
    for source in rest:
        if dims[source] != dims[first]:
            raise TsdsError(
                f"source {source}: its vectors have {dims[source]} dimensions, those of source {first} "
                f"{dims[first]}: all sources need vectors of one encoder"
            )
