"""The candidates of one task over its sources, as the solver wants to see them.

The first neighbours come from the stored ``query_neighbors``, merged over the sources; deeper ones are
searched in the sources' indexes, only for the rows that need them. Candidates are numbered source by
source, in the order of the source keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import all_distances
from tsds_pipeline.core.neighbors import Neighbors, sort_rows
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, not_made, stored
from tsds_pipeline.provenance import require_same_versions
from tsds_pipeline.stages.index import SourceIndex, open_index
from tsds_pipeline.stages.neighbors import DEPTH
from tsds_pipeline.storage import Artifact
from tsds_pipeline.workers import workers_of


@dataclass(frozen=True)
class SourcePart:
    """What the pool holds of one source."""

    key: str
    index: SourceIndex
    densities: pl.DataFrame
    """content_id, count, density, row by row as in the index."""
    neighbors: pl.DataFrame
    """As ``stages.neighbors`` makes it."""

    def __len__(self) -> int:
        return len(self.densities)


class StoredPool:
    """A :class:`~tsds_pipeline.core.pool.CandidatePool` over stored neighbours and indexes.

    ``total_weight`` is S, the sum of a_j over this task's candidates. ``uniform`` gives every candidate its
    count as weight (knn_uniform, knn_tv) in place of count / density.
    """

    def __init__(self, task: str, parts: Sequence[SourcePart], queries: np.ndarray, *, uniform: bool):
        self._task, self.queries = task, queries
        self.parts = [part for part in parts if len(part)]
        if not self.parts:
            raise TsdsError(
                f"task {task}: its sources have no records: add some, or name other sources; what is "
                "left out of them is in storage/quarantine and storage/excluded"
            )
        self.starts = np.cumsum([0] + [len(part) for part in self.parts])
        self.size = int(self.starts[-1])
        table = pl.concat([part.densities.select("content_id", "count", "density") for part in self.parts])
        self.content_ids = table["content_id"]
        self.counts = table["count"].to_numpy()
        self.densities = table["density"].to_numpy()
        self._weights = self.counts.astype(np.float64) if uniform else self.counts / self.densities
        self._total_weight = float(self._weights.sum())

    @cached_property
    def units(self) -> np.ndarray:
        """Sampling unit of each candidate: the same text in several sources is one; int64 (N,)."""
        return _units(self.content_ids)

    @property
    def examples(self) -> int:
        """How many sampling units there are."""
        return int(self.units.max()) + 1

    def uniform(self, uniform: bool) -> "StoredPool":
        """The same candidates, weighted by count alone or not."""
        return StoredPool(self._task, self.parts, self.queries, uniform=uniform)

    @cached_property
    def _first(self) -> Neighbors:
        """The stored neighbours of all rows, merged."""
        table = pl.concat(
            part.neighbors.select("query", pl.col("candidate").cast(pl.Int64) + int(start), "distance")
            for part, start in zip(self.parts, self.starts, strict=False)
        ).sort("query", "distance", "candidate")
        rank = pl.int_range(pl.len()).over("query")
        # Deeper than DEPTH the merged list could miss what a source did not give.
        table = table.with_columns(rank=rank).filter(pl.col("rank") < min(DEPTH, self.size))
        shape = (len(self.queries), min(DEPTH, self.size))
        distances, indices = np.full(shape, np.inf), np.full(shape, -1, np.int64)
        place = table["query"].to_numpy(), table["rank"].to_numpy()
        distances[place], indices[place] = table["distance"].to_numpy(), table["candidate"].to_numpy()
        return Neighbors(distances, indices)

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        """At least the ``k`` nearest candidates of the queries ``rows``, all where there are fewer."""
        if k <= DEPTH:
            return Neighbors(self._first.distances[rows], self._first.indices[rows])
        queries = np.ascontiguousarray(self.queries[rows])
        found = []
        for part, start in zip(self.parts, self.starts, strict=False):
            near = part.index.search.search(queries, k)
            found.append(Neighbors(near.distances, np.where(near.indices < 0, -1, near.indices + start)))
        merged = sort_rows(*(np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True)))
        return Neighbors(merged.distances[:, :k], merged.indices[:, :k])

    def weights(self, candidates: np.ndarray) -> np.ndarray:
        return self._weights[candidates]

    def total_weight(self) -> tuple[float, float]:
        return self._total_weight, self._total_weight

    def distances(self, rows: np.ndarray) -> np.ndarray:
        """Plain L2 distances of the queries ``rows`` to every candidate, (len(rows), N) float64."""
        queries = self.queries[rows]
        return np.concatenate([all_distances(queries, part.index.vectors) for part in self.parts], axis=1)

    def vectors(self, candidates: np.ndarray) -> np.ndarray:
        """Vectors of ``candidates``, in their order, (n, dim) float32."""
        result = np.empty((len(candidates), self.queries.shape[1]), np.float32)
        owner = np.searchsorted(self.starts, candidates, side="right") - 1
        for number, part in enumerate(self.parts):
            mine = np.flatnonzero(owner == number)
            result[mine] = part.index.vectors[candidates[mine] - self.starts[number]]
        return result

    def sources(self, candidates: np.ndarray) -> pl.Series:
        """Source key of each of ``candidates``."""
        owner = np.searchsorted(self.starts, candidates, side="right") - 1
        return pl.Series("source", [part.key for part in self.parts], dtype=pl.String)[owner]


class ReducedPool:
    """``pool`` as if the candidates with one of ``content_ids`` had never been in it; the others are counted anew.

    Their densities stay: what is left out of one task is in the pool of the others. A
    :class:`~tsds_pipeline.core.pool.CandidatePool` with all that a :class:`StoredPool` knows of its candidates.
    """

    def __init__(self, pool: StoredPool, content_ids: pl.Series):
        self._pool, self.queries, self.parts = pool, pool.queries, pool.parts
        self.left_out = pool.content_ids.is_in(content_ids.implode()).to_numpy()
        self._kept = np.flatnonzero(~self.left_out)
        self._number = np.cumsum(~self.left_out) - 1
        self.size = len(self._kept)
        if not self.size:
            raise TsdsError("every candidate gives away a query or a test record: add others")
        self.content_ids = pool.content_ids[self._kept]
        self.counts, self.densities = pool.counts[self._kept], pool.densities[self._kept]
        self._weights = pool.weights(self._kept)
        self._total_weight = float(self._weights.sum())

    @cached_property
    def units(self) -> np.ndarray:
        """Sampling unit of each candidate, int64 (N,)."""
        return _units(self.content_ids)

    @property
    def examples(self) -> int:
        """How many sampling units there are."""
        return int(self.units.max()) + 1

    def uniform(self, uniform: bool) -> "ReducedPool":
        """The same candidates, weighted by count alone or not."""
        return ReducedPool(self._pool.uniform(uniform), self._pool.content_ids.filter(self.left_out))

    def nearest(self, rows: np.ndarray, k: int) -> Neighbors:
        """The ``k`` nearest candidates of the queries ``rows``, all where there are fewer."""
        k, deep = min(k, self.size), k
        distances, indices = np.full((len(rows), k), np.inf), np.full((len(rows), k), -1, np.int64)
        waiting = np.arange(len(rows))
        while len(waiting):
            found = self._pool.nearest(rows[waiting], deep)
            there = (found.indices >= 0) & ~self.left_out[found.indices]
            # To the front, in their order; then padding.
            order = np.argsort(~there, axis=1, kind="stable")[:, :k]
            kept = np.take_along_axis(there, order, 1)
            near = np.take_along_axis(found.distances, order, 1)
            numbers = self._number[np.take_along_axis(found.indices, order, 1)]
            width = order.shape[1]
            distances[waiting, :width] = np.where(kept, near, np.inf)
            indices[waiting, :width] = np.where(kept, numbers, -1)
            # A search that came back short finds no more.
            enough = (there.sum(axis=1) >= k) | (found.indices < 0).any(axis=1)
            if max(deep, found.indices.shape[1]) >= self._pool.size:
                break
            waiting, deep = waiting[~enough], min(2 * max(deep, found.indices.shape[1]), self._pool.size)
        return Neighbors(distances, indices)

    def weights(self, candidates: np.ndarray) -> np.ndarray:
        return self._weights[candidates]

    def total_weight(self) -> tuple[float, float]:
        return self._total_weight, self._total_weight

    def distances(self, rows: np.ndarray) -> np.ndarray:
        """Plain L2 distances of the queries ``rows`` to every candidate, (len(rows), N) float64."""
        return self._pool.distances(rows)[:, self._kept]

    def vectors(self, candidates: np.ndarray) -> np.ndarray:
        """Vectors of ``candidates``, in their order, (n, dim) float32."""
        return self._pool.vectors(self._kept[candidates])

    def sources(self, candidates: np.ndarray) -> pl.Series:
        """Source key of each of ``candidates``."""
        return self._pool.sources(self._kept[candidates])


def _units(content_ids: pl.Series) -> np.ndarray:
    return content_ids.rank("dense").to_numpy().astype(np.int64) - 1


def open_pool(observed: Observed, task: str, made: Mapping[str, Artifact]) -> StoredPool:
    """The candidates of ``task`` out of the artifacts ``made``, by node."""
    project = observed.project.for_task(task)
    workers = workers_of(project.settings.ray)
    parts = [
        SourcePart(
            source,
            open_index(made_node(made, project.of_encoder("faiss_index", source)), workers),
            made_node(made, project.of_encoder("kde_densities", source)).frame,
            made_node(made, f"query_neighbors|{source}|{task}").frame,
        )
        for source in observed.candidate_sources(task)
    ]
    uniform = project.settings.resolved_task(task).algorithm != "knn_kde"
    return StoredPool(task, parts, made[f"query_embeddings|{task}"].vectors, uniform=uniform)


def read_pool(observed: Observed, task: str) -> StoredPool:
    """The same out of what is stored; TsdsError where that is not all there, or does not belong together."""
    made = stored_parts(observed, task)
    made_node(made, f"query_embeddings|{task}")
    require_same_versions(made)
    return open_pool(observed, task, made)


def stored_parts(observed: Observed, task: str) -> dict[str, Artifact]:
    """Those of the artifacts behind the pool of ``task`` that are there, by node."""
    sources, project = observed.candidate_sources(task), observed.project.for_task(task)
    nodes = [
        project.of_encoder(asset, source) for asset in ("faiss_index", "kde_densities") for source in sources
    ]
    nodes += [f"query_neighbors|{source}|{task}" for source in sources] + [f"query_embeddings|{task}"]
    found = {node: stored(observed.project.storage, node) for node in nodes}
    return {node: artifact for node, artifact in found.items() if artifact is not None}


def made_node(made: Mapping[str, Artifact], node: str) -> Artifact:
    """``made[node]``; a source that is in the folder but not made yet is told so."""
    if node not in made:
        raise not_made(node)
    return made[node]
