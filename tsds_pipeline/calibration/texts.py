"""A sample of the pool's texts, spread over sources and lengths, with what each of them stands for."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from tsds_pipeline.calibration.edits import differ_by_an_edit
from tsds_pipeline.core.sampling import permanent_random_numbers
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, stored
from tsds_pipeline.node_names import split_name
from tsds_pipeline.provenance import require_same_versions
from tsds_pipeline.stages.index import SourceIndex, open_index
from tsds_pipeline.storage import Artifact
from tsds_pipeline.summary import texts_of

LENGTHS = {"short": 15, "medium": 50, "long": None}
"""Groups of texts by their number of words, each up to the one given."""
# Neighbours among which the nearest one that is another text is looked for.
_NEIGHBORS = 32


def length_group(words: int) -> int:
    """Which of LENGTHS, from 0, a text of so many words is."""
    return next(group for group, most in enumerate(LENGTHS.values()) if most is None or words <= most)


@dataclass(frozen=True)
class Nearest:
    """Of each text of a sample the nearest candidate that is another text, and not just an edit of it."""

    distances: np.ndarray
    """(n,) plain L2; a lower bound where all the neighbours that were looked at are edits."""
    table: pl.DataFrame
    """A row each: source, text, other_source, other_text, distance; without those bounds."""
    edited: np.ndarray
    """(n,) bool: whether the pool holds another that differs by about one word."""


class PoolTexts:
    """The candidates of all sources, as they are stored; TsdsError where they are not all there."""

    def __init__(self, observed: Observed):
        self._project = observed.project
        self.made: dict[str, Artifact] = {}
        for source in observed.sources:
            nodes = [
                self._project.of_encoder(name, source) for name in ("candidate_embeddings", "faiss_index")
            ]
            for node in (f"candidate_corpus|{source}", *nodes):
                artifact = stored(self._project.storage, node)
                if artifact is None:
                    raise TsdsError(f"source {source} is not in the pool yet: run `tsds refresh` first")
                self.made[node] = artifact
        require_same_versions(self.made)
        self.table = self._words(observed.sources)
        """A row a distinct text: content_id, source (its first), row (in that), words, stratum."""
        if self.table.is_empty():
            raise TsdsError(
                f"{self._project.root / 'sources'}: no records: add some, then run `tsds refresh`"
            )
        self._indexes: dict[str, SourceIndex] = {}

    def __len__(self) -> int:
        return len(self.table)

    def _words(self, sources: Iterable[str]) -> pl.DataFrame:
        words = pl.col("text").str.count_matches(r"\S+").cast(pl.Int64).alias("words")
        parts = [
            self.made[f"candidate_corpus|{source}"]
            .scan()
            .select("content_id", words)
            .with_row_index("row")
            .with_columns(source=pl.lit(source))
            .collect()
            for source in sources
        ]
        if not parts:
            return pl.DataFrame(schema={"content_id": pl.String})
        short, medium = LENGTHS["short"], LENGTHS["medium"]
        group = (pl.col("words") > short).cast(pl.Int64) + (pl.col("words") > medium).cast(pl.Int64)
        return (
            pl.concat(parts).unique("content_id", keep="first", maintain_order=True).with_columns(group=group)
        )

    def sample(self, n: int, key: str) -> pl.DataFrame:
        """At most ``n`` rows of ``table``, as many of each source and length as there are, in a random order.

        ``weight`` says how many texts each row stands for. A smaller sample with the same ``key`` is among it.
        """
        order = permanent_random_numbers(self.table["content_id"].to_list(), key)
        table = self.table.with_columns(order=order).sort("order", "content_id")
        stratum = ["source", "group"]
        turn = pl.int_range(pl.len()).over(stratum).alias("turn")
        table = table.with_columns(turn, of=pl.len().over(stratum))
        chosen = table.sort("turn", "order", maintain_order=True).head(n)
        weight = (pl.col("of") / pl.len().over(stratum)).alias("weight")
        chosen = chosen.with_columns(weight).select(pl.exclude("order", "turn", "of"))
        return chosen.with_columns(text=texts_of(self._project, chosen))

    def vectors(self, rows: pl.DataFrame) -> np.ndarray:
        """Vectors (n, dim) float32 of ``rows`` (source, row)."""
        result: np.ndarray | None = None
        for source in rows["source"].unique().sort():
            mine = np.flatnonzero((rows["source"] == source).to_numpy())
            vectors = self._index(source).vectors
            if result is None:
                result, first = np.empty((len(rows), vectors.shape[1]), np.float32), source
            if vectors.shape[1] != result.shape[1]:
                raise TsdsError(
                    f"source {source}: its vectors have {vectors.shape[1]} dimensions, those of source {first} "
                    f"{result.shape[1]}: all sources need vectors of one encoder"
                )
            result[mine] = vectors[rows["row"].to_numpy()[mine]]
        return np.empty((0, 0), np.float32) if result is None else result

    def nearest_others(self, rows: pl.DataFrame) -> Nearest:
        """For each of ``rows``, as ``sample`` gives them."""
        vectors = np.ascontiguousarray(self.vectors(rows))
        found = []
        for source in self._sources():
            index = self._index(source)
            if index.search is None:
                continue
            near = index.search.search(vectors, _NEIGHBORS)
            query, rank = np.nonzero(near.indices >= 0)
            ids = index.table["content_id"][near.indices[query, rank]]
            found.append(
                pl.DataFrame(
                    {"query": query, "distance": near.distances[query, rank], "content_id": ids}
                ).with_columns(source=pl.lit(source))
            )
        own = rows.select(own_id="content_id", own_source="source", own_text="text").with_row_index("query")
        own = own.with_columns(pl.col("query").cast(pl.Int64))
        near = pl.concat(found).join(own, on="query").filter(pl.col("content_id") != pl.col("own_id"))
        near = near.unique(["query", "content_id"], keep="first", maintain_order=True)
        near = near.sort("query", "distance", "source", "content_id").group_by("query", maintain_order=True)
        near = near.head(_NEIGHBORS)
        near = near.with_columns(text=texts_of(self._project, near))
        return _nearest(near, len(rows))

    def _sources(self) -> list[str]:
        return [name.partition for name in map(split_name, self.made) if name.asset == "faiss_index"]

    def _index(self, source: str) -> SourceIndex:
        if source not in self._indexes:
            self._indexes[source] = open_index(self.made[self._project.of_encoder("faiss_index", source)])
        return self._indexes[source]


def _nearest(near: pl.DataFrame, n: int) -> Nearest:
    """Out of the neighbours of each query, in order of distance."""
    distances, edited, rows = np.full(n, np.inf), np.zeros(n, dtype=bool), []
    done: set[int] = set()
    for row in near.iter_rows(named=True):
        query = row["query"]
        if query in done:
            continue
        distances[query] = row["distance"]  # a bound, until another text is found
        if row["text"] is None or differ_by_an_edit(row["own_text"], row["text"]):
            edited[query] = True
            continue
        done.add(query)
        rows.append((row["own_source"], row["own_text"], row["source"], row["text"], row["distance"]))
    names = ["source", "text", "other_source", "other_text", "distance"]
    kinds = [pl.String] * 4 + [pl.Float64]
    table = pl.DataFrame(rows, dict(zip(names, kinds, strict=True)), orient="row")
    return Nearest(distances, table, edited)
