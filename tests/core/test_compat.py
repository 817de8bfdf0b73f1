"""The public script's definition against plain loops written from it, and its corner cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsds_pipeline.core.compat import CompatConfig, assign, select_compat


class ScriptFailsError(Exception):
    """The definition has no plan."""


def oracle(queries, candidates, alpha, scale, sigma, max_k, kde_k) -> np.ndarray:
    """Selection probabilities from the definition: Python loops over float64, every sum from its start."""
    queries, candidates = (np.asarray(rows, np.float32).astype(float) for rows in (queries, candidates))
    m, n = len(queries), len(candidates)
    depth, crowd = min(max_k, n // 10), min(kde_k, n // 10)
    rows = []
    for query in queries:
        by_distance = sorted((float(np.sqrt(((query - x) ** 2).sum())), j) for j, x in enumerate(candidates))
        rows.append(by_distance[:depth])
    known = {j for row in rows for _, j in row}
    rho = {}
    for j in known:
        squared = sorted(float(((candidates[j] - candidates[other]) ** 2).sum()) for other in known)
        rho[j] = sum(max(0.0, 1 - one / sigma**2) for one in squared[:crowd]) if sigma else 1.0
    reach = [[sum(1 / rho[j] for _, j in row[: k + 1]) for k in range(depth)] for row in rows]

    def cost(s: float) -> float:
        """Of letting every query reach just past s, but not past the last candidate it knows."""
        total = 0.0
        for row, reached in zip(rows, reach, strict=True):
            full = sum(one <= s for one in reached[:-1])
            if full:
                total += sum((row[full][0] - distance) / rho[j] for distance, j in row[:full])
        return total

    points = sorted(one for reached in reach for one in reached[:-1])
    s = next((one for one in points if alpha / scale * cost(one) >= (1 - alpha) * m), points[-1])
    p = np.zeros(n)
    for row in rows:
        left = 1 / m
        for k, (_, j) in enumerate(row):
            wanted = 1 / (m * s * rho[j])
            if k == 0 and wanted > left + 1e-9:
                raise ScriptFailsError
            given = left if k == depth - 1 else min(wanted, left)
            p[j] += given
            left -= given
    return p


def instance(seed: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Queries and candidates: in general position, on a grid with many ties, or with families of copies."""
    rng = np.random.default_rng(seed)
    m, n, dim = int(rng.integers(1, 6)), int(rng.integers(20, 90)), int(rng.integers(1, 5))
    candidates, queries = rng.normal(size=(n, dim)), rng.normal(size=(m, dim))
    if kind == "grid":
        candidates, queries = np.round(candidates), np.round(queries)
    if kind == "copies":
        candidates[n // 3 :] = candidates[rng.integers(0, 4, n - n // 3)]
    return queries, candidates


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["free", "grid", "copies"]),
    scale=st.sampled_from([0.1, 1.3]),
    alpha=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.01, 0.99)),
    sigma=st.sampled_from([0.0, 0.3, 0.75, 3.0]),
    max_k=st.sampled_from([2, 3, 5000]),
    kde_k=st.sampled_from([1, 2, 4, 1000]),
)
def test_probabilities_are_those_of_the_definition(seed, kind, scale, alpha, sigma, max_k, kde_k):
    queries, candidates = instance(seed, kind)
    config = CompatConfig(
        alpha=alpha, distance_scale=scale, kernel_radius=sigma, max_neighbors=max_k, kde_neighbors=kde_k
    )
    try:
        expected = oracle(queries, candidates, alpha, scale, sigma, max_k, kde_k)
    except ScriptFailsError:
        with pytest.raises(ValueError, match="failed assertion"):
            select_compat(queries, candidates, 5, config, 0)
        return
    found = select_compat(queries, candidates, 5, config, 0)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-11)
    assert found.probabilities.sum() == pytest.approx(1, rel=1e-12)
    assert np.nanmin(found.densities) >= 1
    assert np.count_nonzero(found.probabilities) <= found.neighbors * len(queries)


def test_every_outcome_of_the_definition_occurs_among_random_cases():
    """Else the comparison above would say little."""
    seen = {"stops": 0, "cut": 0, "whole": 0}
    for seed in range(24):
        config = CompatConfig(alpha=0.2 + seed / 32, distance_scale=0.1)
        try:
            found = select_compat(*instance(seed, "free"), 5, config, 0)
        except ValueError:
            seen["stops"] += 1
        else:
            seen["cut" if found.cut_rows else "whole"] += 1
    assert min(seen.values()) >= 3, seen


def test_a_plan_worked_out_by_hand():
    """s runs through 1, 2 with costs 1 * (2 - 1) = 1 and 1 + 2 * (4 - 2) = 5; the budget is C = 3 at alpha 1/2."""
    distances, ones = np.array([[1.0, 2.0, 4.0, 9.0]]), np.ones((1, 4))
    assigned = assign(distances, ones, 0.5, 3.0)
    assert assigned.spread == 2
    assert assigned.cut_rows == 0
    np.testing.assert_allclose(assigned.mass, [[0.5, 0.5, 0, 0]], rtol=1e-15)


def test_a_query_that_runs_out_gives_the_last_one_all_that_is_left():
    """The second query's candidates weigh 1/4 each, so that at s = 3 it has given 3 quarters of a third."""
    distances = np.array([[0.0, 0.1, 0.2, 0.3], [0.0, 0.1, 0.2, 0.3]])
    densities = np.array([[1.0] * 4, [4.0] * 4])
    assigned = assign(distances, densities, 0.0, 1.0)
    assert assigned.spread == 3
    assert assigned.cut_rows == 2
    np.testing.assert_allclose(2 * assigned.mass, [[1 / 3] * 3 + [0], [1 / 12] * 3 + [3 / 4]], rtol=1e-14)


def test_densities_count_the_nearest_among_what_queries_see_only():
    """60 candidates on a line, 6 for a query; of four copies in sight at most three count, and none out of sight."""
    candidates = np.concatenate([np.zeros(4), [0.5, 0.75], np.arange(1.0, 55.0)])[:, None]
    seen = {"kernel_radius": 1.0, "alpha": 0.2}
    few = select_compat(np.zeros((1, 1)), candidates, 5, CompatConfig(kde_neighbors=3, **seen), 0)
    all_in_sight = select_compat(np.zeros((1, 1)), candidates, 5, CompatConfig(**seen), 0)
    assert few.neighbors == 6
    np.testing.assert_allclose(few.densities[:6], [3, 3, 3, 3, 1 + 0.9375 + 0.75, 1 + 0.9375 + 0.4375])
    near, far = 1 + 0.9375 + 4 * 0.75, 1 + 0.9375 + 4 * 0.4375  # 1.0 is near both, and out of sight
    copy = 4 + 0.75 + 0.4375
    np.testing.assert_allclose(all_in_sight.densities[:6], [copy, copy, copy, copy, near, far])
    assert np.isnan(all_in_sight.densities[6:]).all()


def test_knn_uniform_is_what_radius_0_stands_for():
    queries, candidates = instance(3, "copies")
    uniform = CompatConfig(algorithm="knn_uniform", alpha=0.4)
    zero = CompatConfig(kernel_radius=0, alpha=0.4)
    one, two = (select_compat(queries, candidates, 9, config, 1) for config in (uniform, zero))
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    np.testing.assert_array_equal(one.indices, two.indices)
    assert set(one.densities[~np.isnan(one.densities)]) == {1.0}


def test_draws_are_with_replacement_seeded_and_in_proportion():
    queries, candidates = instance(4, "free")
    config = CompatConfig(alpha=0.4, epochs=2)
    found = select_compat(queries, candidates, 40_000, config, 7)
    np.testing.assert_array_equal(
        found.indices, select_compat(queries, candidates, 40_000, config, 7).indices
    )
    assert found.indices.shape == (2, 40_000)
    assert (np.diff(found.indices, axis=1) >= 0).all()
    assert (found.indices[0] != found.indices[1]).any()
    for drawn in found.indices:
        share = np.bincount(drawn, minlength=len(candidates)) / 40_000
        assert (np.abs(share - found.probabilities) <= 5 * np.sqrt(found.probabilities / 40_000)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "knn_tv"}, "algorithm must be one of knn_kde, knn_uniform, got 'knn_tv'"),
        ({"alpha": "auto"}, "alpha must be a number from 0 to 1, got 'auto'"),
        ({"alpha": 1.5}, "alpha must be"),
        ({"kernel_radius": -1.0}, "kernel_radius must be"),
        ({"distance_scale": 0.0}, "distance_scale must be"),
        ({"max_neighbors": 1}, "max_neighbors must be a whole number from 2, got 1"),
        ({"kde_neighbors": 0}, "kde_neighbors must be a whole number from 1, got 0"),
        ({"epochs": 0}, "epochs must be"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CompatConfig(**changes)


def test_input_that_cannot_be_used_is_refused():
    rows = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(ValueError, match=r"candidates are 19: .* give it 20 or more"):
        select_compat(rows[:2], rows[:19], 5)
    with pytest.raises(ValueError, match="queries have 2 dimensions and candidates 3"):
        select_compat(rows[:2, :2], rows, 5)
    with pytest.raises(ValueError, match="size must be a whole number from 1, got 0"):
        select_compat(rows[:2], rows, 0)
    with pytest.raises(ValueError, match=r"queries\[0\] has a value that is not finite"):
        select_compat(rows[:2] * np.nan, rows, 5)
