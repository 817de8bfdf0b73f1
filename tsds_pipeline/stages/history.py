"""The versions of each task's sample: what was in them, how good they were, and how one differs from the next.

One file a version, ``storage/selection_history/<task>/<number>-<version>.parquet``. It is a record for people; nothing
is decided by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from tsds_pipeline.storage import write_atomically

FOLDER = "selection_history"

SCHEMA = {
    "task": pl.String,
    "version": pl.String,
    "number": pl.Int64,
    "made_at": pl.Datetime("us", "UTC"),
    "size": pl.Int64,
    "epochs": pl.Int64,
    "seed": pl.Int64,
    "algorithm": pl.String,
    "alpha": pl.Float64,
    "kernel_radius": pl.Float64,
    "redraws": pl.Int64,
    "kept": pl.Int64,
    "added": pl.Int64,
    "dropped": pl.Int64,
    "content_ids": pl.List(pl.String),
}
"""``number`` counts from 1; ``made_at`` is when the version was first seen; ``kept``, ``added`` and ``dropped`` count
examples against the version before, null for the first. Then follow the quality metrics, a Float64 column each: those
that need held-back queries are means over these, the others (diversity, leaks) are of the sample itself."""


@dataclass(frozen=True)
class Drift:
    """How a version of a sample differs from the one before; lists of content ids, sorted."""

    kept: tuple[str, ...]
    added: tuple[str, ...]
    dropped: tuple[str, ...]


class History:
    """The versions of the sample of ``task`` that are on record in ``storage``."""

    def __init__(self, storage: Path, task: str):
        self._folder, self._task = storage / FOLDER / task, task

    def versions(self, last: int) -> pl.DataFrame:
        """A row for each of the ``last`` versions, oldest first: what SCHEMA has without the examples, and metrics."""
        tables = [table for path in self._paths()[-last:] if (table := _read(path)) is not None]
        found = pl.concat(tables, how="diagonal") if tables else pl.DataFrame(schema=SCHEMA)
        return found.drop("content_ids")

    def drift(self, sample: pl.DataFrame, version: str) -> Drift | None:
        """How ``sample``, the version ``version``, differs from the one before; None where it is the first."""
        for path in reversed(self._before(version)):
            if (table := _read(path)) is not None:
                old, new = set(table["content_ids"].item()), set(sample["content_id"])
                return Drift(*(tuple(sorted(ids)) for ids in (old & new, new - old, old - new)))
        return None

    def record(
        self,
        sample: pl.DataFrame,
        version: str,
        drawn: Mapping[str, Any],
        solved: Mapping[str, Any],
        kernel_radius: float,
        metrics: Mapping[str, float],
    ) -> None:
        """Put the version on record; one that is there already keeps its number and time.

        ``drawn`` and ``solved`` are the notes of the sample and of its probabilities.
        """
        drift, before = self.drift(sample, version), self._before(version)
        number = _number(before[-1]) + 1 if before else 1
        known = _read(self._path(number, version))
        made_at = datetime.now(UTC) if known is None else known["made_at"].item()
        row = {
            "task": self._task,
            "version": version,
            "number": number,
            "made_at": made_at,
            **{name: drawn[name] for name in ("size", "epochs", "seed", "redraws")},
            "kernel_radius": kernel_radius,
            **{name: solved[name] for name in ("algorithm", "alpha")},
            **{name: len(getattr(drift, name)) if drift else None for name in ("kept", "added", "dropped")},
            "content_ids": sorted(set(sample["content_id"])),
        }
        schema = {**SCHEMA, **dict.fromkeys(metrics, pl.Float64)}
        table = pl.DataFrame([{**row, **metrics}], schema=schema)
        write_atomically(self._path(number, version), table.write_parquet)

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*-*.parquet"))

    def _path(self, number: int, version: str) -> Path:
        return self._folder / f"{number:06d}-{version}.parquet"

    def _before(self, version: str) -> list[Path]:
        """The files of the versions before ``version``: one that comes back after another is a new one."""
        paths = self._paths()
        return paths[:-1] if paths and paths[-1].stem.partition("-")[2] == version else paths


def damaged_records(storage: Path) -> list[Path]:
    """The files of versions, of all tasks, that cannot be read."""
    return [path for path in sorted((storage / FOLDER).glob("*/*.parquet")) if _read(path) is None]


def _number(path: Path) -> int:
    return int(path.stem.partition("-")[0])


def _read(path: Path) -> pl.DataFrame | None:
    """The record at ``path``; None where there is none, or it is damaged: nothing is decided by it."""
    try:
        return pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError):
        return None
