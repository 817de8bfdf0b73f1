"""``select`` from arrays to indices, as a user calls it."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import oracles
import pytest

from tsds_pipeline import Selection, SelectionConfig, prepare, select
from tsds_pipeline.core import prepared
from tsds_pipeline.core import selection as module
from tsds_pipeline.core.transport import ALGORITHMS

pytestmark = pytest.mark.filterwarnings("ignore:knn_tv keeps every candidate")


def vectors(n: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.6, 1.0])
def test_a_selection_is_the_optimum_of_the_vectors(algorithm, alpha):
    q, x = vectors(4, seed=1), vectors(12)
    x[6:9] = x[0]
    config = SelectionConfig(
        algorithm, alpha, kernel_radius=0.5, whole_pool_densities=True, with_replacement=True
    )
    chosen = select(q, x, 3, config, rng())
    q, x = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (q, x))
    d, density = oracles.distances(q, x), oracles.densities(x, 0.5, np.ones(12), x)
    a = 1 / density if algorithm == "knn_kde" else np.ones(12)
    assert chosen.objective == pytest.approx(
        oracles.optimum(d, a, algorithm, alpha, config.distance_scale), rel=1e-5, abs=1e-9
    )
    np.testing.assert_allclose(chosen.densities, density, rtol=1e-5)
    np.testing.assert_allclose(chosen.plan.dense().sum(axis=0), chosen.probabilities, rtol=1e-12, atol=1e-16)
    assert chosen.objective_bounds == (chosen.objective, chosen.objective)
    assert chosen.alpha == alpha
    assert chosen.effective_size == pytest.approx(1 / np.square(chosen.probabilities).sum())


def test_the_defaults_draw_distinct_rows_that_follow_the_queries():
    x = np.concatenate([vectors(500) + 4, vectors(500, seed=1) - 4])
    chosen = select(vectors(20, seed=2) + 4, x, 100, rng=rng())
    assert isinstance(chosen, Selection)
    assert chosen.indices.shape == (1, 100)
    assert len(set(chosen.indices[0].tolist())) == 100
    assert (chosen.indices < 500).all()
    assert chosen.probabilities.sum() == pytest.approx(1, rel=1e-12)
    assert chosen.effective_size >= 100 * (1 - 1e-9)
    assert not chosen.truncated
    assert chosen.neighborhood_sizes.shape == (20,)
    assert 0 <= chosen.certain_share <= 1


def test_a_large_pool_needs_only_some_densities_and_has_the_same_plan(monkeypatch):
    q, x = vectors(5, seed=1), vectors(3000)
    config = SelectionConfig(alpha=0.9, kernel_radius=0.3)
    small = select(q, x, 10, config, rng())
    monkeypatch.setattr(module, "SMALL_POOL", 0)
    large = select(q, x, 10, config, rng())
    np.testing.assert_array_equal(small.indices, large.indices)
    np.testing.assert_array_equal(small.probabilities, large.probabilities)
    known = ~np.isnan(large.densities)
    assert 0 < known.sum() < 3000
    assert known[large.plan.candidate].all()
    np.testing.assert_array_equal(small.densities[known], large.densities[known])
    low, high = large.objective_bounds
    assert low <= small.objective <= high
    assert low < high


def clustered(n: int, seed: int) -> np.ndarray:
    centers = np.random.default_rng(0).normal(size=(40, 24))
    own = np.random.default_rng(seed)
    return (centers[own.integers(40, size=n)] + 0.3 * own.normal(size=(n, 24))).astype(np.float32)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("counted", [False, True])
def test_a_prepared_pool_serves_tasks_like_arrays_do(monkeypatch, algorithm, counted):
    for home in (module, prepared):
        monkeypatch.setattr(home, "SMALL_POOL", 1000)
    x = clustered(20_000, 1)
    counts = rng(5).integers(1, 4, len(x)) if counted else None
    config = SelectionConfig(algorithm, 0.99, kernel_radius=0.3, distance_scale=1.0)
    pool = prepare(x, config, counts)
    for task in range(3):
        q = clustered(30, 10 + task)[task:]
        one = select(q, pool, 20, config, rng())
        # All densities, so that it knows S as the pool does.
        whole = replace(config, whole_pool_densities=algorithm == "knn_kde")
        other = select(q, x, 20, whole, rng(), counts=counts)
        assert 0.999 <= one.recall <= 1.0
        assert other.recall == 1.0
        assert one.density_error == other.density_error == 0.0
        assert one.objective == pytest.approx(other.objective, rel=1e-6)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
    assert not np.isnan(pool.densities).any() or algorithm != "knn_kde"


def test_no_task_changes_what_another_gets(monkeypatch):
    for home in (module, prepared):
        monkeypatch.setattr(home, "SMALL_POOL", 1000)
    x, q = clustered(40_000, 1), clustered(30, 2)
    pool = prepare(x)
    first = select(q, pool, 20, rng=rng())
    select(vectors(50, 24), pool, 5000, rng=rng())
    again = select(q, pool, 20, rng=rng())
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert first.recall == again.recall


def test_an_exact_pool_is_searched_exactly(monkeypatch):
    monkeypatch.setattr(prepared, "SMALL_POOL", 1000)
    x, q = clustered(5000, 1), clustered(10, 2)
    config = SelectionConfig(exact=True)
    one, other = select(q, prepare(x, config), 20, config, rng()), select(q, x, 20, config, rng())
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert one.recall == 1.0


@pytest.mark.parametrize(
    ("config", "counts", "message"),
    [
        (SelectionConfig(kernel_radius=0.2), None, "kernel_radius is 0.2 but the pool was prepared with 0.1"),
        (SelectionConfig(normalize=False), None, "normalize is False but the pool was prepared with True"),
        (SelectionConfig(exact=True), None, "exact is True but the pool was prepared with False"),
        (None, np.ones(50), "counts belong to the pool"),
    ],
)
def test_a_pool_that_was_prepared_otherwise_is_refused(config, counts, message):
    pool = prepare(vectors(50))
    with pytest.raises(ValueError, match=message):
        select(vectors(2), pool, 5, config, counts=counts)


def test_counts_stand_for_repeated_rows():
    q, x = vectors(4, seed=1), vectors(40)
    counts = rng(1).integers(1, 6, 40)
    config = SelectionConfig(alpha=0.4, kernel_radius=0.6)
    one = select(q, x, 5, config, rng(), counts=counts)
    two = select(q, np.repeat(x, counts, axis=0), 5, config, rng())
    groups = np.repeat(np.arange(40), counts)
    np.testing.assert_allclose(one.probabilities, np.bincount(groups, weights=two.probabilities), rtol=1e-9)
    np.testing.assert_allclose(one.densities[groups], two.densities, rtol=1e-12)
    assert one.objective == pytest.approx(two.objective, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_strides_and_files_give_the_same_rows(dtype, tmp_path):
    q, x = vectors(6, seed=1).astype(np.float16), vectors(200).astype(np.float16)
    expected = select(q.astype(np.float32), x.astype(np.float32), 20, rng=rng()).indices
    np.testing.assert_array_equal(
        select(q.astype(dtype), np.asfortranarray(x.astype(dtype)), 20, rng=rng()).indices, expected
    )
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(select(q, mapped, 20, rng=rng()).indices, expected)


@pytest.mark.parametrize("with_replacement", [False, True])
def test_with_ids_the_order_of_rows_does_not_matter(with_replacement):
    q, x, ids = vectors(10, seed=1), vectors(400), np.array([f"r{j}" for j in range(400)])
    order = rng(3).permutation(400)
    config = SelectionConfig(epochs=2, with_replacement=with_replacement)
    one = ids[select(q, x, 50, config, rng(), ids=ids).indices]
    two = ids[order][select(q, x[order], 50, config, rng(), ids=ids[order]).indices]
    np.testing.assert_array_equal(one, two)
    other = ids[select(q, x, 50, config, rng(1), ids=ids).indices]
    assert not np.array_equal(one, other)


def test_a_seed_repeats_a_selection_and_no_seed_does_not():
    q, x = vectors(10, seed=1), vectors(400)
    np.testing.assert_array_equal(select(q, x, 50, rng=rng()).indices, select(q, x, 50, rng=rng()).indices)
    assert not np.array_equal(select(q, x, 50).indices, select(q, x, 50).indices)


def test_asking_for_more_than_have_mass_names_an_alpha_that_has_enough():
    q, x = vectors(3, seed=1), vectors(100)
    with pytest.raises(ValueError, match=r"50 examples .* only 3 candidates have mass: alpha = ") as caught:
        select(q, x, 50, SelectionConfig(alpha=1.0))
    alpha = float(str(caught.value).split("alpha = ")[2].split(" ")[0])
    assert select(q, x, 50, SelectionConfig(alpha=alpha)).indices.shape == (1, 50)
    assert select(q, x, 50, SelectionConfig(alpha=1.0, with_replacement=True)).certain_share == 0


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_of_a_tiny_pool_can_be_drawn(algorithm, n):
    chosen = select(vectors(1, 1, seed=1), vectors(n, 1), n, SelectionConfig(algorithm), rng())
    assert sorted(chosen.indices[0].tolist()) == list(range(n))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": np.ones((2, 3))}, "queries have 3 dimensions and candidates 8"),
        ({"queries": np.full((1, 8), np.nan)}, r"queries\[0\] has a value that is not finite"),
        ({"queries": np.zeros((1, 8))}, r"queries\[0\] is all zeros"),
        ({"candidates": np.ones(8)}, "candidates must be a non-empty array"),
        ({"size": 0}, "size must be a whole number from 1, got 0"),
        ({"size": 1.5}, "size must be a whole number"),
        ({"size": True}, "size must be a whole number"),
        ({"size": 21}, "21 examples were asked for but there are only 20 candidates"),
        ({"counts": np.ones(19)}, "counts must hold 20 numbers"),
        ({"counts": np.r_[np.ones(19), 0]}, r"counts\[19\] is 0"),
        ({"counts": np.r_[1.5, np.ones(19)]}, r"counts\[0\] is 1.5"),
        ({"counts": np.r_[np.inf, np.ones(19)]}, r"counts\[0\] is inf"),
        ({"ids": list(range(19))}, "ids must hold 20 names"),
        ({"ids": [*range(19), "0"]}, "ids must be distinct, but '0' occurs more than once"),
    ],
)
def test_unusable_input_is_named(change, message):
    arguments = {"queries": vectors(2), "candidates": vectors(20), "size": 2, **change}
    with pytest.raises(ValueError, match=message):
        select(**arguments)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("algorithm", "knn"),
        ("alpha", "automatic"),
        ("alpha", 1.01),
        ("alpha", True),
        ("distance_scale", 0),
        ("kernel_radius", -1.0),
        ("kernel_radius", "0.1"),
        ("epochs", 0),
        ("max_neighbors", 0),
        ("max_neighbors", 2.5),
        ("with_replacement", 1),
        ("normalize", None),
        ("exact", 1),
    ],
)
def test_settings_that_make_no_sense_name_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        SelectionConfig(**{field: value})


def test_each_algorithm_has_its_own_distance_scale():
    assert SelectionConfig().distance_scale == 5.0
    assert SelectionConfig("knn_uniform").distance_scale == 5.0
    assert SelectionConfig("knn_tv").distance_scale < 1
    assert SelectionConfig("knn_tv", distance_scale=2).distance_scale == 2
    assert SelectionConfig() == SelectionConfig(distance_scale=5.0)


def test_the_core_needs_no_dagster_and_the_package_imports_lightly():
    script = (
        "import sys; sys.modules['dagster'] = None; import tsds_pipeline; "
        "assert not {'torch', 'faiss', 'polars', 'numpy'} & set(sys.modules); "
        "import numpy as np; from tsds_pipeline import select; x = np.eye(5); "
        "assert select(x[:2], x, 2).indices.shape == (1, 2); "
        "assert not {'torch', 'polars', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import tsds_pipeline

    assert "select" in dir(tsds_pipeline)
    with pytest.raises(AttributeError, match="nothing"):
        _ = tsds_pipeline.nothing


@pytest.mark.long
@pytest.mark.parametrize("size", [1000, 20_000])
def test_random_vectors_end_untruncated(size):
    q, x = vectors(1000, 384, seed=1), vectors(100_000, 384)
    chosen = select(q, x, size, rng=rng())
    assert not chosen.truncated
    assert chosen.effective_size >= size * (1 - 1e-9)
    assert len(set(chosen.indices[0].tolist())) == size
    np.testing.assert_allclose(np.bincount(chosen.plan.query, weights=chosen.plan.mass), 1e-3, rtol=1e-12)
