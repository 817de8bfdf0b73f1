"""What the records of two sources add to each other's densities, kept: a changed source costs only its own pairs.

For each two sources there is one file under the versions of their embeddings, with the rows of either that the other
adds something to. Files that name other versions than the present ones are garbage (see ``garbage``).
"""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsds_pipeline.core.density import KernelDensity
from tsds_pipeline.core.row_stack import RowStack
from tsds_pipeline.encoders.shards import UNREADABLE
from tsds_pipeline.stages.index import SourceIndex
from tsds_pipeline.storage import write_atomically

FOLDER = "kernel_sums"
"""Its place in a project's storage/."""
CODE = "1"
"""Raised when the same embeddings would give other sums."""
# Rows of the sources whose cells stay in memory for their next pair: up to 500 bytes each and more.
_REMEMBERED_ROWS = 4_000_000

logger = logging.getLogger(__name__)
_remembered: dict[tuple[str, float], KernelDensity] = {}


class Sums(NamedTuple):
    """``values`` (r,) float64 at ``rows`` (r,), zero elsewhere; the largest relative ``error`` seen on a sample."""

    rows: np.ndarray
    values: np.ndarray
    error: float


def kernel_sums(own: SourceIndex, other: SourceIndex, kernel_radius: float, base: Path | None = None) -> Sums:
    """The sum of the kernel over all records of ``other``, with their counts, at each record of ``own``.

    ``base`` is the folder of the sums that are kept; without it, or for embeddings that are not stored, none are.
    """
    # Which of the two is grouped into cells decides the last bits: it must not depend on whose turn it is.
    small, large = sorted((own, other), key=lambda index: (len(index.table), index.embeddings or ""))
    path = _path(small, large, kernel_radius, base)
    kept = path and _read(path)
    if kept is None:
        kept = _both(small, large, kernel_radius)
        if path:
            _write(path, kept)
    return kept["small" if own is small else "large"]


def sums_folder(base: Path, kernel_radius: float) -> Path:
    """The folder under ``base`` of the sums for this radius."""
    return base / f"{CODE}-radius-{kernel_radius!r}"


def _path(small: SourceIndex, large: SourceIndex, kernel_radius: float, base: Path | None) -> Path | None:
    if base is None or small.embeddings is None or large.embeddings is None:
        return None
    return sums_folder(base, kernel_radius) / f"{small.embeddings}-{large.embeddings}.npz"


def _both(small: SourceIndex, large: SourceIndex, kernel_radius: float) -> dict[str, Sums]:
    density = _density(small, kernel_radius)
    points = RowStack([large.vectors])
    if small is large or (small.embeddings is not None and small.embeddings == large.embeddings):
        at_small = at_large = density(points)
    else:
        at_large, at_small = density.mutual(points, large.table["count"].to_numpy())
    error = density.error
    return {
        name: Sums(rows := np.flatnonzero(values), values[rows], error)
        for name, values in (("small", at_small), ("large", at_large))
    }


def _density(index: SourceIndex, kernel_radius: float) -> KernelDensity:
    """The density under one source. In a refresh each is wanted once for every other source."""
    key = (index.embeddings, kernel_radius)
    if key in _remembered:
        return _remembered[key]
    counts = index.table["count"].to_numpy()
    density = KernelDensity(RowStack([index.vectors]), kernel_radius, counts, exact=False)
    if index.embeddings is not None:
        _remembered[key] = density
        while sum(len(one.pool) for one in _remembered.values()) > _REMEMBERED_ROWS:
            del _remembered[next(iter(_remembered))]
    return density


def _read(path: Path) -> dict[str, Sums] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {
                name: Sums(file[f"{name}_rows"], file[f"{name}_values"], float(file["error"]))
                for name in ("small", "large")
            }
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        logger.warning("%s is damaged (%s): it is computed again", path, error)
        return None


def _write(path: Path, sums: dict[str, Sums]) -> None:
    arrays = {
        f"{name}_{field}": getattr(one, field) for name, one in sums.items() for field in ("rows", "values")
    }

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays, error=np.float64(sums["small"].error))

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save)
