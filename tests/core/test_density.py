"""Kernel densities against brute force."""

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsds_pipeline.core import cells as cells_module
from tsds_pipeline.core import close_pairs as pairs_module
from tsds_pipeline.core import density
from tsds_pipeline.core.cells import Cells
from tsds_pipeline.core.close_pairs import close_pairs
from tsds_pipeline.core.density import KernelDensity
from tsds_pipeline.core.row_stack import RowStack


def densities(pool: np.ndarray, radius: float, points: np.ndarray, counts: np.ndarray | None = None):
    return KernelDensity(RowStack([pool]), radius, counts)(RowStack([points]))


def families(rng: np.random.Generator, n: int, dim: int, radius: float) -> np.ndarray:
    """Groups of near-duplicates about the size of the kernel, exact copies among them."""
    centers = rng.normal(size=(max(1, n // 8), dim)) * radius * rng.choice([1, 5, 50])
    x = centers[rng.integers(len(centers), size=n)] + rng.normal(size=(n, dim)) * radius / (2 * np.sqrt(dim))
    x[: n // 5] = x[n - n // 5 :]
    return x.astype(np.float32)


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 300),
    dim=st.sampled_from([1, 2, 16, 17, 40, 300]),
    radius=st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
    offset=st.sampled_from([0.0, 0.0, 30.0]),
)
def test_densities_are_those_of_brute_force(seed, n, dim, radius, offset):
    rng = np.random.default_rng(seed)
    x = families(rng, n, dim, radius) + np.float32(offset * radius)
    counts = rng.integers(1, 10, n)
    points = np.concatenate([x, x + np.float32(radius / 3)])
    found = densities(x, radius, points, counts)
    np.testing.assert_allclose(found, oracles.densities(x, radius, counts, points), rtol=1e-12, atol=1e-12)
    assert (found[:n] >= counts).all()


def test_many_cells_lose_no_pair(monkeypatch):
    monkeypatch.setattr(cells_module, "_ROWS_PER_CELL", 4)
    rng = np.random.default_rng(0)
    for dim, radius in ((2, 0.05), (30, 0.5), (200, 0.3)):
        x = families(rng, 2000, dim, radius)
        np.testing.assert_allclose(
            densities(x, radius, x), oracles.densities(x, radius, np.ones(2000), x), rtol=1e-12
        )


def test_cells_whose_centers_nearly_coincide_lose_no_pair(monkeypatch):
    monkeypatch.setattr(cells_module, "_ROWS_PER_CELL", 4)
    rng = np.random.default_rng(5)
    x = (10 + np.repeat(rng.normal(size=(3, 8)), 300, axis=0) + rng.normal(scale=1e-4, size=(900, 8))).astype(
        "f"
    )
    for radius in (1e-4, 1e-3, 1.0):
        np.testing.assert_allclose(
            densities(x, radius, x), oracles.densities(x, radius, np.ones(900), x), rtol=1e-12
        )


def test_cells_discard_most_pairs_of_a_clustered_pool():
    rng = np.random.default_rng(1)
    x = (
        rng.normal(size=(50, 64))[rng.integers(50, size=20_000)] + 0.1 * rng.normal(size=(20_000, 64))
    ).astype("f")
    stack = RowStack([x])
    parts = list(close_pairs(Cells(stack, 0.1), stack, 0.1))
    assert len(parts) > 10
    assert sum(len(part.members) for part in parts) == len(x)
    assert sum(part.tests for part in parts) < 0.1 * len(x) ** 2


def test_blocks_and_batches_change_no_bit(monkeypatch):
    rng = np.random.default_rng(2)
    x, counts = families(rng, 3000, 24, 0.3), rng.integers(1, 5, 3000)
    whole = densities(x, 0.3, x, counts)
    monkeypatch.setattr(pairs_module, "_POINTS_AT_ONCE", 7)
    monkeypatch.setattr(pairs_module, "_ROWS_AT_ONCE", 11)
    blocks = KernelDensity(RowStack([x[:1], x[1:900], x[900:]]), 0.3, counts)
    np.testing.assert_array_equal(blocks(RowStack([x])), whole)
    parts = [blocks(RowStack([part])) for part in (x[:10], x[10:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    monkeypatch.setattr(pairs_module, "_COST_OF_PAIR", 1e9)  # every block goes through a product of full rows
    np.testing.assert_array_equal(blocks(RowStack([x])), whole)
    monkeypatch.setattr(pairs_module, "_COST_OF_PAIR", 0.0)
    np.testing.assert_array_equal(blocks(RowStack([x])), whole)


def test_pairs_of_two_sources_are_evaluated_once_for_both(monkeypatch):
    monkeypatch.setattr(cells_module, "_ROWS_PER_CELL", 4)
    rng = np.random.default_rng(6)
    x = families(rng, 1500, 24, 0.3)
    counts = rng.integers(1, 5, 1500)
    left, right = x[:600], x[600:]
    at_left, at_right = KernelDensity(RowStack([right]), 0.3, counts[600:]).mutual(
        RowStack([left]), counts[:600]
    )
    np.testing.assert_allclose(at_left, oracles.densities(right, 0.3, counts[600:], left), rtol=1e-12)
    np.testing.assert_allclose(at_right, oracles.densities(left, 0.3, counts[:600], right), rtol=1e-12)
    assert at_left.any()


def approximate(monkeypatch, tests_of_point: float) -> None:
    """Have densities be approximate from so many tests a point on."""
    monkeypatch.setattr(density, "EXACT_TESTS", 0)
    monkeypatch.setattr(density, "EXACT_TESTS_OF_POINT", tests_of_point)
    monkeypatch.setattr(density, "_PROBES", 1)
    monkeypatch.setattr(cells_module, "_ROWS_PER_CELL", 16)


@pytest.mark.parametrize("tolerance", [0.2, 1e-12])
def test_approximate_densities_look_at_as_many_cells_as_the_tolerance_asks_for(monkeypatch, tolerance):
    approximate(monkeypatch, 0)
    monkeypatch.setattr(density, "TOLERANCE", tolerance)
    monkeypatch.setattr(density, "_AUDITED", 3000)
    x = np.random.default_rng(7).normal(size=(3000, 3)).astype(np.float32)
    kernel = KernelDensity(RowStack([x]), 0.3, exact=False)
    exact = oracles.densities(x, 0.3, np.ones(3000), x)
    error = np.abs(kernel(RowStack([x])) - exact) / exact
    assert error.max() <= tolerance + 1e-12
    assert kernel.error == pytest.approx(error.max(), abs=1e-12)
    assert (kernel.error > 0) == (tolerance == 0.2)


def test_a_point_always_finds_itself_however_close_the_cells_are(monkeypatch):
    approximate(monkeypatch, 0)
    monkeypatch.setattr(density, "TOLERANCE", np.inf)
    rng = np.random.default_rng(9)
    x = (10 + rng.normal(scale=1e-5, size=(4000, 40))).astype(np.float32)
    counts = rng.integers(1, 5, 4000)
    found = KernelDensity(RowStack([x]), 1e-3, counts, exact=False)(RowStack([x]))
    assert (found >= counts).all()


@pytest.mark.parametrize("tolerance", [0.2, 1e-12])
def test_approximate_sums_of_two_sources_are_audited_on_both_sides(monkeypatch, tolerance):
    approximate(monkeypatch, 0)
    monkeypatch.setattr(density, "TOLERANCE", tolerance)
    monkeypatch.setattr(density, "_AUDITED", 3000)
    rng = np.random.default_rng(10)
    x, y = (rng.normal(size=(n, 3)).astype(np.float32) for n in (2000, 1000))
    counts = rng.integers(1, 5, 1000)
    kernel = KernelDensity(RowStack([x]), 0.3, exact=False)
    at_y, at_x = kernel.mutual(RowStack([y]), counts)
    for found, exact in (
        (at_y, oracles.densities(x, 0.3, np.ones(2000), y)),
        (at_x, oracles.densities(y, 0.3, counts, x)),
    ):
        assert (np.abs(found - exact) / np.maximum(exact, 1)).max() <= tolerance + 1e-12


def test_large_families_are_looked_at_a_few_points_at_a_time(monkeypatch):
    x = families(np.random.default_rng(11), 3000, 24, 0.3)
    whole = densities(x, 0.3, x)
    for pairs in (1, 100, 5000):
        monkeypatch.setattr(pairs_module, "_PAIRS_AT_ONCE", pairs)
        np.testing.assert_array_equal(densities(x, 0.3, x), whole)
    for name in ("_NEAR_BYTES", "_FULL_BYTES"):
        monkeypatch.setattr(pairs_module, name, 1000)
    monkeypatch.setattr(pairs_module, "_COST_OF_PAIR", 1e9)
    monkeypatch.setattr(cells_module, "_BLOCK", 1000)
    np.testing.assert_array_equal(densities(x, 0.3, x), whole)


@pytest.mark.parametrize("copies", [0, 1500])
def test_least_margins_are_no_more_than_those_of_every_row(monkeypatch, copies):
    monkeypatch.setattr(cells_module, "_ROWS_PER_CELL", 16)
    rng = np.random.default_rng(12)
    x = rng.normal(size=(3000, 24)).astype(np.float32)
    x[:copies] = x[0]  # one cell with half of the rows
    cells = Cells(RowStack([x]), 0.3)
    cells.measure(np.arange(len(cells)))
    rows, centers = cells.lifted[:, :-1].astype(float), cells.centers.astype(float)
    for a in range(0, len(cells), 5):
        for c in range(len(cells)):
            mine = rows[cells.starts[c] : cells.starts[c + 1]]
            gap = np.linalg.norm(centers[a] - centers[c])
            if len(mine) and gap > 0.1:
                toward = ((mine - centers[a]) ** 2).sum(1) - ((mine - centers[c]) ** 2).sum(1)
                exact = toward.min() / (2 * gap)
                assert cells.least_margins[a, c] == pytest.approx(exact, abs=1e-4)
                assert cells.inverse_gaps[a, c] == pytest.approx(1 / gap, rel=1e-5)


def test_cheap_densities_are_exact_in_any_case(monkeypatch):
    approximate(monkeypatch, 1e9)
    monkeypatch.setattr(density, "TOLERANCE", np.inf)
    x = families(np.random.default_rng(7), 3000, 24, 0.3)
    kernel = KernelDensity(RowStack([x]), 0.3, exact=False)
    np.testing.assert_array_equal(kernel(RowStack([x])), densities(x, 0.3, x))
    assert kernel.error == 0


def test_a_pool_mapped_from_disk_and_one_of_half_precision(tmp_path):
    x = families(np.random.default_rng(3), 500, 20, 0.2).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = RowStack([np.load(tmp_path / "x.npy", mmap_mode="r")])
    full = x.astype(np.float32)
    np.testing.assert_array_equal(KernelDensity(mapped, 0.2)(mapped), densities(full, 0.2, full))


def test_progress_counts_points_up_to_all():
    done = []
    x = families(np.random.default_rng(4), 100, 3, 1.0)
    KernelDensity(RowStack([x]), 1.0)(RowStack([x]), done.append)
    assert done[-1] == 100


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(ValueError, match="kernel_radius"):
        KernelDensity(RowStack([np.ones((2, 2), dtype=np.float32)]), radius)


def test_points_far_from_the_pool_in_cells_without_rows(monkeypatch):
    monkeypatch.setattr(cells_module, "_ROWS_PER_CELL", 4)
    x = np.repeat(families(np.random.default_rng(8), 100, 24, 0.3), 20, axis=0)
    kernel = KernelDensity(RowStack([x]), 0.3)
    empty = np.flatnonzero(np.diff(kernel.cells.starts) == 0)
    assert len(empty), "a centre that no row is nearest to"
    back = kernel.cells.centers @ kernel.cells._basis.T + kernel.cells.mean
    points = np.concatenate([x[:50] + np.float32(1e3), back[empty]])
    expected = oracles.densities(x, 0.3, np.ones(2000), points)
    np.testing.assert_allclose(kernel(RowStack([points])), expected, rtol=1e-12, atol=1e-12)
