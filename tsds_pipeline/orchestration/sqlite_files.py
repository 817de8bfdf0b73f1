"""The SQLite files of a new Dagster instance, put in their places when they are complete.

Dagster makes their tables in many steps, and takes a file that is there for one that was made to its end: killed, or
out of disk, in between, it would never open that instance again.
"""

import fcntl
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

_BESIDE, _MADE = ".new", "made"


def make_files(home: Path, make: Callable[[Path], None]) -> None:
    """Have in ``home`` the files that ``make`` makes in a folder with the same dagster.yaml, unless it has any."""
    beside = home / _BESIDE

    def is_done() -> bool:
        return not beside.exists() and any(home.rglob("*.db"))

    if is_done():
        return
    with (home / f"{_BESIDE}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_done():  # by another process
            return
        if not (beside / _MADE).exists():
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            shutil.copy(home / "dagster.yaml", beside)
            make(beside)
            for path in beside.rglob("*.db"):
                with closing(sqlite3.connect(path)) as database:
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (beside / _MADE).touch()
        for path in sorted(beside.rglob("*.db")):
            place = home / path.relative_to(beside)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
        shutil.rmtree(beside, ignore_errors=True)
