"""The map: the same each time, landmarks stay where they are, everything else lies among its nearest."""

import os
import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tsds_pipeline.core import projection
from tsds_pipeline.core.projection import _principal_components, lay_out, place


def clusters(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=n)
    return (10 * np.eye(3, 8)[labels] + rng.normal(size=(n, 8))).astype(np.float32), labels


def test_clusters_stay_together_and_the_bytes_are_the_same():
    vectors, labels = clusters(150)
    positions = lay_out(vectors)
    assert positions.shape == (150, 2)
    assert positions.tobytes() == lay_out(vectors).tobytes()
    distances = np.linalg.norm(positions[:, None] - positions, axis=2) + np.diag(np.full(150, np.inf))
    assert (labels[distances.argmin(axis=1)] == labels).all()


def test_the_bytes_do_not_depend_on_the_threads():
    code = (
        "import hashlib, numpy as np; from tsds_pipeline.core.projection import lay_out; "
        "vectors = np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32); "
        "print(hashlib.sha256(lay_out(vectors).tobytes()).hexdigest())"
    )
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | dict.fromkeys(names, threads),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1


def test_all_of_it_is_computed_in_one_thread(monkeypatch):
    # On most machines another number of threads happens to give the same principal components, but not on all.
    from sklearn.manifold import TSNE

    threads = []

    def noted(compute):
        def called(*arguments, **options):
            threads.extend(library["num_threads"] for library in threadpool_info())
            return compute(*arguments, **options)

        return called

    monkeypatch.setattr(projection, "_principal_components", noted(_principal_components))
    monkeypatch.setattr(TSNE, "fit_transform", noted(TSNE.fit_transform))
    with threadpool_limits(2):
        lay_out(clusters(40)[0])
    assert set(threads) == {1}


@pytest.mark.parametrize("vectors", [np.ones((1, 3)), np.ones((50, 3)), np.eye(5), np.arange(4.0)[:, None]])
def test_few_equal_or_flat_rows(vectors):
    positions = lay_out(vectors.astype(np.float32))
    assert positions.shape == (len(vectors), 2)
    assert np.isfinite(positions).all()


def test_principal_components_are_those_of_the_singular_value_decomposition():
    vectors = np.random.default_rng(1).normal(size=(40, 6)) * [5, 3, 1, 1, 1, 1]
    left, values, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(
        np.abs(_principal_components(vectors)), np.abs(left * values)[:, :2], atol=1e-4
    )


def test_places():
    rng = np.random.default_rng(2)
    landmarks, positions = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
    np.testing.assert_allclose(place(landmarks, landmarks, positions), positions, atol=1e-5)
    points = rng.normal(size=(20, 4))
    for point, found in zip(points, place(points, landmarks, positions), strict=True):
        distances = np.linalg.norm(landmarks - point, axis=1)
        near = np.argsort(distances)[:5]
        weights = 1 / distances[near] ** 2
        np.testing.assert_allclose(found, weights @ positions[near] / weights.sum(), atol=1e-5)


def test_one_landmark():
    np.testing.assert_allclose(place(np.ones((3, 2)), np.zeros((1, 2)), np.array([[4.0, 5.0]])), [[4, 5]] * 3)
