"""The pipeline's pool over several sources against the same candidates in one array."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.projects import DIM, clustered
from tsds_pipeline import SelectionConfig
from tsds_pipeline.core.array_pool import ArrayPool
from tsds_pipeline.core.density import KernelDensity
from tsds_pipeline.core.neighbors import ExactSearch, FaissSearch
from tsds_pipeline.core.prepared import PreparedPool
from tsds_pipeline.core.row_stack import RowStack
from tsds_pipeline.core.transport import solve, solve_auto
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.stages import kernel_sums, neighbors, pool
from tsds_pipeline.stages.densities import kernel_densities
from tsds_pipeline.stages.index import SourceIndex
from tsds_pipeline.stages.neighbors import query_neighbors
from tsds_pipeline.stages.pool import ReducedPool, SourcePart, StoredPool

SIZES = {"a": 90, "b": 0, "c": 4, "d": 150}
QUERIES = clustered(9, seed=99)
RADIUS = 0.3


@pytest.fixture(params=[3, 128], ids=["searched again", "stored"])
def depth(request, monkeypatch):
    """How many neighbours are stored: so few that most are searched again, or all."""
    for module in (neighbors, pool):
        monkeypatch.setattr(module, "DEPTH", request.param)
    return request.param


def source_index(n: int, seed: int) -> SourceIndex:
    vectors = clustered(n, seed) if n else np.empty((0, 0), np.float32)
    ids = [f"{seed:02d}{row:030d}" for row in range(n)]
    table = pl.DataFrame(
        {"content_id": ids, "count": [1 + row % 3 for row in range(n)]},
        schema={"content_id": pl.String, "count": pl.Int64},
    )
    return SourceIndex(table, vectors, ExactSearch(RowStack([vectors])) if n else None)


def stored_pool(uniform: bool, queries: np.ndarray = QUERIES) -> tuple[StoredPool, np.ndarray, np.ndarray]:
    """The pool, and the same vectors and counts in one array each."""
    indexes = {key: source_index(n, seed) for seed, (key, n) in enumerate(SIZES.items())}
    parts = []
    for key, index in indexes.items():
        found = kernel_densities(key, indexes, RADIUS).table
        parts.append(SourcePart(key, index, found, query_neighbors("t", key, queries, index, found)))
    filled = [index for index in indexes.values() if len(index.table)]
    vectors = np.concatenate([index.vectors for index in filled])
    counts = np.concatenate([index.table["count"].to_numpy() for index in filled])
    return StoredPool("t", parts, queries, uniform=uniform), vectors, counts


def prepared(vectors: np.ndarray, counts: np.ndarray) -> PreparedPool:
    return PreparedPool(vectors, SelectionConfig(kernel_radius=RADIUS, normalize=False), counts)


@pytest.mark.parametrize("algorithm", ["knn_kde", "knn_uniform", "knn_tv"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 0.99, 1.0])
def test_several_sources_solve_like_one_array(depth, algorithm, alpha):
    uniform = algorithm != "knn_kde"
    several, vectors, counts = stored_pool(uniform)
    one = ArrayPool(QUERIES, prepared(vectors, counts), weighted=not uniform)
    one.weights(np.arange(len(vectors)))  # all of them, so that it knows S as the pipeline does
    expected = solve(one, len(QUERIES), algorithm=algorithm, alpha=alpha)
    found = solve(several, len(QUERIES), algorithm=algorithm, alpha=alpha)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-9, atol=1e-15)
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)
    assert not found.truncated


def test_the_automatic_alpha_counts_a_text_in_two_sources_once(depth):
    several, vectors, counts = stored_pool(uniform=False)
    twice = several.content_ids.to_list()
    twice[-60:] = twice[:60]
    several.content_ids = pl.Series(twice)
    one = ArrayPool(QUERIES, prepared(vectors, counts), weighted=True)
    units = np.unique(twice, return_inverse=True)[1]
    expected = solve_auto(one, len(QUERIES), 30, units=units)
    found = solve_auto(several, len(QUERIES), 30, units=several.units)
    assert found.alpha == pytest.approx(expected.alpha, rel=1e-6)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-6, atol=1e-12)


def test_the_pool_knows_where_a_candidate_comes_from():
    several, vectors, _ = stored_pool(uniform=False)
    some = np.array([0, 89, 90, 93, 94, 243, 5])
    assert several.size == len(vectors) == 244
    assert several.sources(some).to_list() == ["a", "a", "c", "c", "d", "d", "a"]
    assert np.array_equal(several.vectors(some), vectors[some])
    exact = np.linalg.norm(QUERIES[:, None].astype(float) - vectors, axis=2)
    np.testing.assert_allclose(several.distances(np.arange(9)), exact, atol=1e-9)


def test_query_vectors_of_another_length_are_named():
    index = source_index(5, 0)
    with pytest.raises(TsdsError, match=r"task t: its query vectors have 3 dimensions, those of source a 12"):
        query_neighbors("t", "a", QUERIES[:, :3], index, index.table.with_columns(density=1.0))


def test_a_task_without_candidates_is_told_so():
    index = source_index(0, 0)
    part = SourcePart("b", index, index.table.with_columns(density=pl.lit(0.0)), index.table)
    with pytest.raises(TsdsError, match="task t: its sources have no records"):
        StoredPool("t", [part], QUERIES, uniform=False)


def test_densities_of_one_source_are_those_of_the_pool():
    indexes = {key: source_index(n, seed) for seed, (key, n) in enumerate(SIZES.items())}
    filled = [index for index in indexes.values() if len(index.table)]
    vectors = np.concatenate([index.vectors for index in filled]).astype(float)
    counts = np.concatenate([index.table["count"].to_numpy() for index in filled])
    for key, index in indexes.items():
        found = kernel_densities(key, indexes, RADIUS).table
        assert found["content_id"].equals(index.table["content_id"])
        if len(index.table):
            distances = np.linalg.norm(index.vectors[:, None].astype(float) - vectors, axis=2)
            kernel = np.maximum(0, 1 - (distances / RADIUS) ** 2)
            np.testing.assert_allclose(found["density"].to_numpy(), kernel @ counts, rtol=1e-9)
            assert (found["density"] >= found["count"]).all()


def test_vectors_of_another_length_are_named():
    indexes = {"a": source_index(5, 0), "z": source_index(5, 1)}
    other = SourceIndex(indexes["z"].table, indexes["z"].vectors[:, : DIM - 1], None)
    with pytest.raises(TsdsError, match=r"source a: .* 12 dimensions, those of source z 11"):
        kernel_densities("a", {**indexes, "z": other}, RADIUS)


def stored_indexes(**versions: str) -> dict[str, SourceIndex]:
    """Indexes whose embeddings have ``versions``."""
    indexes = {key: source_index(n, seed) for seed, (key, n) in enumerate(SIZES.items())}
    return {key: replace(index, embeddings=versions.get(key, f"v-{key}")) for key, index in indexes.items()}


@pytest.fixture
def evaluated(monkeypatch) -> list[tuple[int, int]]:
    """The sizes of the two sources of each pair that is computed, the smaller first."""
    monkeypatch.setattr(kernel_sums, "_remembered", {})
    pairs, both = [], kernel_sums._both
    monkeypatch.setattr(
        kernel_sums,
        "_both",
        lambda small, large, radius: (
            pairs.append((len(small.table), len(large.table))) or both(small, large, radius)
        ),
    )
    return pairs


def test_each_two_sources_are_computed_once_and_a_changed_one_costs_only_its_own_pairs(tmp_path, evaluated):
    pool = stored_indexes()
    first = {key: kernel_densities(key, pool, RADIUS, tmp_path).table for key in pool}
    assert sorted(evaluated) == [(4, 4), (4, 90), (4, 150), (90, 90), (90, 150), (150, 150)]
    for key in pool:
        assert kernel_densities(key, pool, RADIUS, tmp_path).table.equals(first[key])
    assert len(evaluated) == 6
    evaluated.clear()
    changed = {**pool, "c": replace(source_index(5, 9), embeddings="new")}
    after = {key: kernel_densities(key, changed, RADIUS, tmp_path).table for key in ("d", "c", "a")}
    assert sorted(evaluated) == [(5, 5), (5, 90), (5, 150)]
    for key, table in after.items():
        assert kernel_densities(key, changed, RADIUS).table.equals(table), "the same bytes as from nothing"
    assert kernel_densities("a", pool, RADIUS, tmp_path).table.equals(first["a"])
    evaluated.clear()
    kernel_densities("a", pool, RADIUS / 2, tmp_path)
    assert len(evaluated) == 3, "another radius shares nothing"


def test_the_error_that_is_kept_is_that_of_the_pair(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_sums, "_remembered", {})
    errors = iter([0.5, 0.0, 0.0])
    mutual = KernelDensity.mutual

    def with_error(self, *given):
        sums = mutual(self, *given)
        self.error = next(errors)
        return sums

    monkeypatch.setattr(KernelDensity, "mutual", with_error)
    pool = stored_indexes()
    assert kernel_densities("c", {key: pool[key] for key in "ac"}, RADIUS, tmp_path).largest_error == 0.5
    assert kernel_densities("c", {key: pool[key] for key in "cd"}, RADIUS, tmp_path).largest_error == 0.0
    assert kernel_densities("a", {key: pool[key] for key in "ac"}, RADIUS, tmp_path).largest_error == 0.5


def test_sums_that_are_damaged_are_computed_again(tmp_path, evaluated, caplog):
    pool = stored_indexes()
    first = kernel_densities("a", pool, RADIUS, tmp_path).table
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-40])
    evaluated.clear()
    assert kernel_densities("a", pool, RADIUS, tmp_path).table.equals(first)
    assert len(evaluated) == 3
    assert caplog.text.count("is damaged") == 3


def test_what_is_not_stored_is_not_kept(tmp_path, evaluated):
    loose = {key: replace(index, embeddings=None) for key, index in stored_indexes().items()}
    kernel_densities("a", loose, RADIUS, tmp_path)
    kernel_densities("a", loose, RADIUS, tmp_path)
    assert len(evaluated) == 6
    assert not list(tmp_path.rglob("*"))


def test_two_sources_of_equal_embeddings_count_each_other(tmp_path):
    pool = stored_indexes()
    twice = {**pool, "e": pool["d"]}
    before, after = (
        kernel_densities("d", indexes, RADIUS, tmp_path).table["density"].to_numpy()
        for indexes in (pool, twice)
    )
    own = kernel_densities("d", {"d": pool["d"]}, RADIUS).table["density"].to_numpy()
    np.testing.assert_allclose(after, before + own, rtol=1e-12)


def test_recall_is_the_share_of_the_exact_neighbors(monkeypatch):
    monkeypatch.setattr(neighbors, "DEPTH", 5)
    index = source_index(60, 0)
    table = query_neighbors("t", "a", QUERIES, index, index.table.with_columns(density=1.0))
    assert neighbors.recall(table, QUERIES, index) == (1.0, 4)
    approximate = replace(index, search=FaissSearch(None, index.vectors))
    assert neighbors.recall(table, QUERIES, approximate) == (1.0, 9)
    # Another candidate at the farthest distance is as good; one farther away is a miss.
    border = pl.col("distance") == pl.col("distance").max().over("query")
    tied = table.with_columns(candidate=pl.when(border).then(59).otherwise("candidate"))
    assert neighbors.recall(tied, QUERIES, approximate) == (1.0, 9)
    missed = table.with_columns(distance=pl.when(border).then(pl.col("distance") + 1).otherwise("distance"))
    found, _ = neighbors.recall(missed, QUERIES, approximate)
    assert found == pytest.approx(1 - len(table.filter(border)) / 45)
    assert neighbors.recall(
        neighbors.query_neighbors("t", "b", QUERIES, source_index(0, 1), table), QUERIES, source_index(0, 1)
    ) == (1.0, 0)


@pytest.mark.parametrize("algorithm", ["knn_kde", "knn_uniform", "knn_tv"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_a_reduced_pool_solves_as_if_the_others_had_never_been_there(depth, algorithm, alpha):
    uniform = algorithm != "knn_kde"
    several, vectors, counts = stored_pool(uniform)
    # Those that are nearest to some query go, so that neighbourhoods begin elsewhere.
    nearest = np.linalg.norm(vectors[:, None].astype(float) - QUERIES, axis=2).min(axis=1).argsort()[:40]
    gone = np.zeros(len(vectors), bool)
    gone[nearest] = True
    reduced = ReducedPool(several, several.content_ids.filter(gone))
    left = np.flatnonzero(~gone)
    one = ArrayPool(QUERIES, prepared(vectors[left], counts[left]), weighted=False)
    # Densities stay those of the whole pool.
    one.weights = lambda rows: (counts if uniform else counts / several.densities)[left[rows]].astype(float)
    one.total_weight = lambda: (one.weights(np.arange(len(left))).sum(),) * 2
    assert reduced.size == one.size == 204
    assert reduced.content_ids.equals(several.content_ids.filter(~gone))
    assert np.array_equal(reduced.vectors(np.arange(204)), vectors[left])
    assert reduced.sources(np.array([0, 203])).to_list() == ["a", "d"]
    expected = solve(one, len(QUERIES), algorithm=algorithm, alpha=alpha)
    found = solve(reduced, len(QUERIES), algorithm=algorithm, alpha=alpha)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-9, atol=1e-15)
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)


def test_a_reduced_pool_finds_all_there_are_and_no_more(depth):
    several, vectors, _ = stored_pool(uniform=False)
    reduced = ReducedPool(several, several.content_ids[3:])
    near = reduced.nearest(np.arange(9), 50)
    assert near.indices.shape == (9, 3)
    assert (np.sort(near.indices, axis=1) == [0, 1, 2]).all()
    exact = np.linalg.norm(QUERIES[:, None].astype(float) - vectors[:3], axis=2)
    np.testing.assert_allclose(near.distances, np.sort(exact, axis=1), atol=1e-9)
    with pytest.raises(TsdsError, match="every candidate gives away"):
        ReducedPool(several, several.content_ids)
