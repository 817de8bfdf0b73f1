"""Kernel densities against brute force."""

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsds_pipeline.core import close_pairs, density
from tsds_pipeline.core.close_pairs import ClosePairs
from tsds_pipeline.core.density import KernelDensity


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
    found = KernelDensity(x, radius, counts)(points)
    np.testing.assert_allclose(found, oracles.densities(x, radius, counts, points), rtol=1e-12, atol=1e-12)
    assert (found[:n] >= counts).all()


def test_many_cells_lose_no_pair(monkeypatch):
    monkeypatch.setattr(close_pairs, "_ROWS_PER_CELL", 4)
    rng = np.random.default_rng(0)
    for dim, radius in ((2, 0.05), (30, 0.5), (200, 0.3)):
        x = families(rng, 2000, dim, radius)
        np.testing.assert_allclose(
            KernelDensity(x, radius)(x), oracles.densities(x, radius, np.ones(2000), x), rtol=1e-12
        )


def test_cells_whose_centers_nearly_coincide_lose_no_pair(monkeypatch):
    monkeypatch.setattr(close_pairs, "_ROWS_PER_CELL", 4)
    rng = np.random.default_rng(5)
    x = (10 + np.repeat(rng.normal(size=(3, 8)), 300, axis=0) + rng.normal(scale=1e-4, size=(900, 8))).astype(
        "f"
    )
    for radius in (1e-4, 1e-3, 1.0):
        np.testing.assert_allclose(
            KernelDensity(x, radius)(x), oracles.densities(x, radius, np.ones(900), x), rtol=1e-12
        )


def test_cells_discard_most_pairs_of_a_clustered_pool():
    rng = np.random.default_rng(1)
    x = (
        rng.normal(size=(50, 64))[rng.integers(50, size=20_000)] + 0.1 * rng.normal(size=(20_000, 64))
    ).astype("f")
    cells = list(ClosePairs(x, 0.1).of(x))
    assert len(cells) > 10
    assert sum(len(cell.members) for cell in cells) == len(x)
    tested = sum(len(cell.members) * len(cell.pool.near(cell.a, cell.allowed)) for cell in cells)
    assert tested < 0.1 * len(x) ** 2


def test_blocks_and_batches_change_no_bit(monkeypatch):
    rng = np.random.default_rng(2)
    x, counts = families(rng, 3000, 24, 0.3), rng.integers(1, 5, 3000)
    whole = KernelDensity(x, 0.3, counts)(x)
    monkeypatch.setattr(density, "_POINTS_AT_ONCE", 100)
    monkeypatch.setattr(close_pairs, "_POINTS_AT_ONCE", 7)
    monkeypatch.setattr(close_pairs, "_ROWS_AT_ONCE", 11)
    blocks = KernelDensity([x[:1], x[1:900], x[900:]], 0.3, counts)
    np.testing.assert_array_equal(blocks(x), whole)
    np.testing.assert_array_equal(np.concatenate([blocks(x[:10]), blocks(x[10:])]), whole)


def test_a_pool_mapped_from_disk(tmp_path):
    x = families(np.random.default_rng(3), 500, 20, 0.2)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(KernelDensity(mapped, 0.2)(mapped), KernelDensity(x, 0.2)(x))


def test_progress_counts_points_up_to_all():
    done = []
    x = families(np.random.default_rng(4), 100, 3, 1.0)
    KernelDensity(x, 1.0)(x, done.append)
    assert done[-1] == 100


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(ValueError, match="kernel_radius"):
        KernelDensity(np.ones((2, 2), dtype=np.float32), radius)
