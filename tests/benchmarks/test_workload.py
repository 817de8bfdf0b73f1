"""The generated arrays, and those that a project has stored."""

from pathlib import Path

import numpy as np
import pytest

import workload


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "CHUNK", 1000)


@pytest.mark.usefixtures("small_chunks")
def test_a_smaller_pool_is_the_beginning_of_a_larger(tmp_path: Path):
    workload.generate(tmp_path, 3000, 5, 16, dtype="float16")
    rows = np.load(tmp_path / "candidates.npy")
    beginning = np.concatenate(list(workload.Mixture(16).candidates(2000)))
    assert rows.dtype == np.float16
    np.testing.assert_array_equal(rows[:2000], beginning.astype(np.float16))


@pytest.mark.usefixtures("small_chunks")
def test_every_chunk_has_copies_and_near_duplicates_among_unit_vectors():
    for chunk in workload.Mixture(16).candidates(2000):
        np.testing.assert_allclose(np.linalg.norm(chunk, axis=1), 1.0, atol=1e-6)
        assert len(np.unique(chunk, axis=0)) == 990  # 1 % are exact copies
        gaps = np.linalg.norm(chunk[:, None] - chunk[None], axis=2)
        np.fill_diagonal(gaps, np.inf)
        assert 0.05 < (gaps.min(axis=1) < workload._NEAR).mean() < 0.2


def test_tasks_and_seeds_differ():
    mixture = workload.Mixture(16)
    first = mixture.queries(20)
    np.testing.assert_array_equal(first, workload.Mixture(16).queries(20))
    assert not np.isin(first, mixture.queries(20, task=1)).any()
    assert not np.isin(first, workload.Mixture(16, seed=1).queries(20)).any()


def test_a_projects_vectors(tmp_path: Path):
    rng = np.random.default_rng(0)
    stored = {
        f"{asset}_embeddings/{name}.vectors-0123.npy": rng.normal(size=(n, 4)).astype(np.float32)
        for asset, name, n in (
            ("candidate", "b", 3),
            ("candidate", "a.x", 2),
            ("query", "t", 1),
            ("query", "u", 2),
        )
    }
    for name, vectors in stored.items():
        path = tmp_path / "storage" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
    assert workload.tasks_of(tmp_path) == ["t", "u"]
    workload.load_project(tmp_path, tmp_path, "t")
    b, a, t, u = stored.values()
    np.testing.assert_array_equal(np.load(tmp_path / "candidates.npy"), np.concatenate([a, b]))
    np.testing.assert_array_equal(np.load(tmp_path / "queries.npy"), t)
    np.testing.assert_array_equal(np.load(tmp_path / "earlier_queries.npy"), u)


def test_a_folder_without_vectors_is_no_project(tmp_path: Path):
    with pytest.raises(SystemExit, match="no vectors"):
        workload.tasks_of(tmp_path)
