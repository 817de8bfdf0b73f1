"""A flat map of vectors to look at: a few landmarks laid out by t-SNE, everything else placed among them.

The map is for the eye. Nothing is selected by it, and distances on it mean little beyond "near" and "far".
"""

import numpy as np
from threadpoolctl import threadpool_limits

from tsds_pipeline.core.arrays import all_distances, row_blocks

# Fewer would make t-SNE's perplexity larger than the data.
_FEWEST = 10
_NEAREST = 5


def lay_out(vectors: np.ndarray) -> np.ndarray:
    """Positions of ``vectors`` (n, dim) in the plane, float32 (n, 2); the same input gives the same bytes.

    t-SNE (van der Maaten and Hinton 2008), started from the first two principal components so that the layout is
    the same each time and changes little with the data. Seconds for 2,000 rows. Fewer than 10 rows, or rows that are
    all equal, are laid out by the principal components alone.
    """
    # scikit-learn's threads are there to be limited once it is loaded.
    from sklearn.manifold import TSNE

    # Several threads add up in any order, and t-SNE makes a small difference a large one.
    with threadpool_limits(1):
        components = _principal_components(vectors)
        if len(vectors) < _FEWEST or not components.any():
            return components
        scale = 1e-4 / components[:, 0].std()
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init=components * scale, max_iter=500, n_jobs=1)
        return np.ascontiguousarray(tsne.fit_transform(np.ascontiguousarray(vectors, np.float32)), np.float32)


def place(points: np.ndarray, landmarks: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Positions of ``points`` (n, dim) on the map of ``landmarks`` (k, dim) at ``positions`` (k, 2); float32 (n, 2).

    A point comes to the mean of its nearest landmarks' positions, weighted by 1 / squared distance: a landmark itself
    stays where it is.
    """
    result = np.empty((len(points), 2), np.float32)
    nearest = min(_NEAREST, len(landmarks))
    for start, stop in row_blocks(len(points), 8 * len(landmarks)):
        distances = all_distances(points[start:stop], landmarks)
        columns = np.argpartition(distances, nearest - 1, axis=1)[:, :nearest]
        near = np.maximum(np.take_along_axis(distances, columns, axis=1), 1e-9)
        weights = near.min(axis=1, keepdims=True) ** 2 / near**2
        weights /= weights.sum(axis=1, keepdims=True)
        result[start:stop] = np.einsum("ij,ijk->ik", weights, positions[columns].astype(np.float64))
    return result


def _principal_components(vectors: np.ndarray) -> np.ndarray:
    """The first two principal components of ``vectors`` (n, dim), float32 (n, 2), zeros where there are fewer."""
    centred = vectors.astype(np.float64)
    centred -= centred.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    # Of an axis and its opposite, the one that points up along its largest entry.
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    result = np.zeros((len(vectors), 2), np.float32)
    result[:, : axes.shape[1]] = centred @ axes
    return result
