"""The arrays that the benchmarks run on: generated ones of any size, or what a project has stored.

The generated pool resembles sentence embeddings: unit vectors from a mixture of 200 clusters of unequal size with a
decaying spectrum. Among a million, a query's nearest is at about 0.65, its 64th at 0.73. In every chunk about 1 %
are exact copies and 5 % near-duplicates at up to 0.15, some hundreds of each of one and the same record. A chunk
depends only on the seed and its number, so that a pool is written to disk without being held, and a smaller one is
the beginning of a larger.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

CHUNK = 100_000
_CLUSTERS, _QUERIED_CLUSTERS = 200, 10
_DECAY, _NOISE, _NEAR = 0.4, 0.7, 0.15
# Which stream of random numbers: they are seeded by (seed, stream, number).
_SHAPE, _POOL, _TASK = 0, 1, 2


class Mixture:
    """The clusters of one ``seed``; its pool and any number of tasks over it."""

    def __init__(self, dim: int, seed: int = 0):
        self.dim, self.seed = dim, seed
        rng = np.random.default_rng([seed, _SHAPE])
        spectrum = (np.arange(dim) + 1.0) ** -_DECAY
        rotation, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
        self._axes = (rotation * spectrum).astype(np.float32).T
        self._centers = _unit(rng.standard_normal((_CLUSTERS, dim)).astype(np.float32) @ self._axes)
        self._shares = rng.dirichlet(np.full(_CLUSTERS, 2.0))
        self._noise = np.float32(_NOISE / np.sqrt((spectrum**2).sum()))

    def candidates(self, n: int) -> Iterator[np.ndarray]:
        """A pool of ``n`` rows in chunks, float32."""
        for number, start in enumerate(range(0, n, CHUNK)):
            yield self._chunk(number, min(CHUNK, n - start))

    def queries(self, m: int, task: int = 0) -> np.ndarray:
        """``m`` queries from a few clusters, others for each ``task``, float32 (m, dim)."""
        rng = np.random.default_rng([self.seed, _TASK, task])
        clusters = rng.choice(_CLUSTERS, _QUERIED_CLUSTERS, replace=False)
        return self._draw(rng, rng.choice(clusters, m))

    def _draw(self, rng: np.random.Generator, clusters: np.ndarray) -> np.ndarray:
        noise = rng.standard_normal((len(clusters), self.dim), dtype=np.float32) @ self._axes
        return _unit(self._centers[clusters] + self._noise * noise)

    def _chunk(self, number: int, n: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, _POOL, number])
        rows = self._draw(rng, rng.choice(_CLUSTERS, n, p=self._shares))
        exact, near = n // 100, n // 20
        distinct = n - exact - near
        source = rng.integers(0, distinct, exact + near)
        source[: exact // 4] = 0  # a family of copies, and one of near-duplicates
        source[exact : exact + near // 10] = 1
        rows[distinct:] = rows[source]
        distance = rng.uniform(0, _NEAR, (near, 1)) / np.sqrt(self.dim)
        rows[n - near :] += (distance * rng.standard_normal((near, self.dim))).astype(np.float32)
        rows[n - near :] = _unit(rows[n - near :])
        return rows[rng.permutation(n)]


def generate(folder: Path, n: int, m: int, dim: int, seed: int = 0, dtype: str = "float32") -> None:
    """Write candidates.npy (``n``, ``dim``), and the queries of two tasks (``m``, ``dim``), to ``folder``.

    queries.npy are float32; earlier_queries.npy are those of another task.
    """
    mixture = Mixture(dim, seed)
    rows = np.lib.format.open_memmap(folder / "candidates.npy", "w+", dtype, (n, dim))
    start = 0
    for chunk in mixture.candidates(n):
        rows[start : start + len(chunk)] = chunk
        start += len(chunk)
    rows.flush()
    np.save(folder / "queries.npy", mixture.queries(m))
    np.save(folder / "earlier_queries.npy", mixture.queries(m, task=1))


def tasks_of(project: Path) -> list[str]:
    """The tasks whose queries ``project`` has embedded."""
    return sorted(_vectors(project, "query_embeddings"))


def load_project(folder: Path, project: Path, task: str) -> None:
    """The same files from the embeddings that ``project`` stores: all sources, and ``task``.

    The earlier task is another one of the project, or the same where it has only one.
    """
    sources, tasks = _vectors(project, "candidate_embeddings"), _vectors(project, "query_embeddings")
    blocks = [np.load(path, mmap_mode="r") for _, path in sorted(sources.items())]
    shape = (sum(map(len, blocks)), blocks[0].shape[1])
    rows = np.lib.format.open_memmap(folder / "candidates.npy", "w+", "float32", shape)
    np.concatenate(blocks, out=rows)
    rows.flush()
    earlier = next((name for name in sorted(tasks) if name != task), task)
    np.save(folder / "queries.npy", np.load(tasks[task]))
    np.save(folder / "earlier_queries.npy", np.load(tasks[earlier]))


def _vectors(project: Path, asset: str) -> dict[str, Path]:
    """The files of vectors that ``project`` stores under ``asset``, by partition."""
    found = {
        path.name.rpartition(".vectors-")[0]: path for path in (project / "storage" / asset).glob("*.npy")
    }
    if not found:
        raise SystemExit(
            f"{project}: no vectors in storage/{asset}: name a project that `tsds refresh` has filled"
        )
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
