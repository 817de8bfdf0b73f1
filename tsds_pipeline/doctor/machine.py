"""The machine that a project is on: permissions, memory, disk, clock, locks of its file system."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from tsds_pipeline.doctor.finding import NAMED, OK, PROBLEM, WARNING, Found
from tsds_pipeline.project import Project
from tsds_pipeline.sizes import shown_size, size_of

_FAR_OFF = 120.0
"""Seconds that clocks of machines which share files may differ by."""
_LEAST_FREE = 2**27


def permissions(project: Project) -> Found:
    remedy = f"give it to the user that runs tsds (here {os.geteuid()})"
    wrong = []
    for folder in (project.storage, project.exports, project.reports, project.dagster_home):
        if not folder.exists():
            if not os.access(folder.parent, os.W_OK | os.X_OK):
                wrong.append(f"{folder} cannot be made")
        elif not folder.is_dir():
            wrong.append(f"{folder} is no folder")
        else:
            inside = (path for path, _, _ in os.walk(folder))
            wrong += [
                f"{path} cannot be written" for path in inside if not os.access(path, os.W_OK | os.X_OK)
            ]
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        yield PROBLEM, "; ".join(wrong[:NAMED]) + more, remedy
    else:
        yield OK, "what the pipeline writes to can be written", None


def memory(project: Project) -> Found:
    from tsds_pipeline.core.machine import available_memory
    from tsds_pipeline.metrics import costs

    free = available_memory()
    peaks = {one.asset: one.peak_memory for one in costs(project.storage) if one.peak_memory}
    if not peaks:
        yield OK, f"{shown_size(free)} free; how much is needed is known after the first refresh", None
        return
    asset, peak = max(peaks.items(), key=lambda item: item[1])
    said = f"{shown_size(free)} free; {asset} took {shown_size(peak)}"
    if free < peak:
        yield WARNING, said, "end what else runs here, or give the machine more"
    else:
        yield OK, said, None


def disk(project: Project) -> Found:
    inputs = sum(size_of(project.root / name) for name in ("sources", "tasks"))
    # A result is written beside the one that it replaces; a first refresh stores what it reads, and vectors.
    stored = [size_of(path) for path in (project.storage, project.exports) if path.is_dir()]
    needed = max(sum(stored) or 3 * inputs, _LEAST_FREE)
    for folder in dict.fromkeys([project.root, Path(os.environ.get("TMPDIR") or "/tmp")]):
        usage, statistics = shutil.disk_usage(folder), os.statvfs(folder)
        said = f"{shown_size(usage.free)} free in {folder}"
        remedy = "make room: `tsds gc --dry-run` says what nothing needs, `tsds status` what takes how much"
        if statistics.f_files and statistics.f_favail < 1000:
            yield PROBLEM, f"{statistics.f_favail} more files can be made in {folder}", remedy
        elif usage.free < _LEAST_FREE:
            yield PROBLEM, said, remedy
        elif usage.free < needed:
            yield WARNING, f"{said}, and making everything again may take {shown_size(needed)}", remedy
        else:
            yield OK, said, None


def clock(project: Project) -> Found:
    now = time.time()
    built = Path(__file__).stat().st_mtime
    newest = max(((path.stat().st_mtime, path) for path in _tables(project)), default=(0.0, None))
    if newest[0] > now + _FAR_OFF:
        yield (
            PROBLEM,
            f"{newest[1]} is {(newest[0] - now) / 60:.0f} minutes from the future",
            "set the clock (of this machine, or of that which wrote it) by NTP",
        )
    elif now < built - 86400:
        yield PROBLEM, f"{time.ctime(now)} is before tsds was installed", "set the clock by NTP"
    else:
        yield (
            OK,
            f"{time.strftime('%Y-%m-%d %H:%M:%S %Z', time.localtime(now))}, no result is from the future",
            None,
        )


def _tables(project: Project) -> Iterator[Path]:
    return project.storage.rglob("*.parquet") if project.storage.is_dir() else iter(())


def file_locks(project: Project) -> Found:
    folder = project.storage if project.storage.is_dir() else project.root
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        yield (
            PROBLEM,
            f"the file system of {folder} has no locks ({error.strerror})",
            "keep the project on a local disk or NFS 4: two refreshes at once would spoil each other's results",
        )
    else:
        yield OK, f"the file system of {folder} has them", None
    finally:
        os.close(handle)
