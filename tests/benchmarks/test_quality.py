"""What judges the plans, against slower oracles."""

import numpy as np
import pytest

import quality
from tests.core import oracles
from tsds_pipeline.core.config import SelectionConfig
from tsds_pipeline.core.selection import select

ALPHA, SCALE = 0.5, 5.0


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(300, 8)).astype(np.float32)
    pool[:50] = pool[50:100] + rng.normal(size=(50, 8)).astype(np.float32) * 0.02
    pool[:10] = pool[50:60]
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    return pool[-7:] + np.float32(0.01), pool


def test_densities(arrays, monkeypatch: pytest.MonkeyPatch):
    _, pool = arrays
    for name, value in (("_POINTS", 64), ("_ROWS", 100), ("_PAIRS", 50)):
        monkeypatch.setattr(quality, name, value)
    points, radii = np.arange(0, 300, 2), [0.1, 0.5]
    found = quality.densities(pool, points, radii)
    for radius, row in zip(radii, found, strict=True):
        expected = oracles.densities(pool, radius, np.ones(300), pool[points])
        np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_nearest(arrays, monkeypatch: pytest.MonkeyPatch):
    queries, pool = arrays
    monkeypatch.setattr(quality, "_ROWS", 100)
    expected = np.sort(oracles.distances(queries, pool) ** 2, axis=1)[:, :20]
    np.testing.assert_allclose(quality.nearest(queries, pool, 20), expected, atol=1e-12)


def test_recall_counts_ties_and_misses():
    plan = quality.Plan(np.array([0, 0, 0]), np.array([4, 5, 6]), np.full(3, 1 / 3), np.ones(3))
    exact = np.array([[1.0, 4.0, 4.0, 9.0]])
    sample = np.array([0])
    assert quality.recall(plan, np.array([1.0, 2.0, 2.0]), sample, exact) == [1.0]
    assert quality.recall(plan, np.array([1.0, 2.0, 3.0]), sample, exact) == pytest.approx([2 / 3])


def test_objective(arrays):
    queries, pool = arrays
    config = SelectionConfig(
        alpha=ALPHA, distance_scale=SCALE, kernel_radius=0.5, normalize=False, with_replacement=True
    )
    selected = select(queries, pool, 5, config, 0)
    d, rho = oracles.distances(queries, pool), oracles.densities(pool, 0.5, np.ones(300), pool)
    expected = oracles.objective(selected.plan.dense(), d, 1 / rho, "knn_kde", ALPHA, SCALE)
    entries = selected.plan.query, selected.plan.candidate
    plan = quality.Plan(*entries, selected.plan.mass, rho[entries[1]])
    found = quality.objective(plan, len(queries), d[entries], plan.density, ALPHA, SCALE)
    assert found - (1 - ALPHA) / (1 / rho).sum() == pytest.approx(expected, rel=1e-12)
