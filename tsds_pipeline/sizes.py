"""How many bytes a project folder holds, by what they are for."""

import os
from contextlib import suppress
from pathlib import Path

from tsds_pipeline.discovery import COPIES
from tsds_pipeline.encoders.cache import FOLDER as EMBEDDINGS
from tsds_pipeline.encoders.warmup import FOLDER as WARMUPS
from tsds_pipeline.project import Project

RESULTS = "results"
# Folders of storage/ that cost time to have again, and are no results.
_APART = (EMBEDDINGS, WARMUPS, COPIES)


def project_sizes(project: Project) -> dict[str, int]:
    """Bytes by part: the results in storage/, caches beside them, exports, reports, and Dagster's own files."""
    storage = project.storage
    apart = {name: size_of(storage / name) for name in _APART}
    return {
        RESULTS: size_of(storage) - sum(apart.values()),
        **apart,
        "exports": size_of(project.exports),
        "reports": size_of(project.reports),
        "dagster": size_of(project.dagster_home),
    }


def size_of(path: Path | str) -> int:
    """Bytes of the file or of all files in the folder ``path``; what goes away meanwhile, or is not there, has none.

    Links are not followed: what is elsewhere takes no room here.
    """
    total = 0
    with suppress(OSError):
        if not os.path.isdir(path):
            return os.lstat(path).st_size
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += size_of(entry.path)
                else:
                    with suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def shown_size(size: float) -> str:
    """``size`` in bytes, for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
