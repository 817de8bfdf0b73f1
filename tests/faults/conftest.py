"""What comes of the project of these tests where nothing goes wrong."""

import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.project import PHASES, settled
from tests.forks import Fork


class Undisturbed(NamedTuple):
    """A refresh after each of PHASES, without any fault."""

    root: Path
    first: dict[str, bytes]
    """The results after the first."""
    results: dict[str, bytes]
    """Those after the last."""
    changes: list[int]
    """How many changes of files each makes."""
    seconds: list[float]
    """How long each takes."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Undisturbed:
    """Not to be changed."""
    root, changes, seconds = tmp_path_factory.mktemp("undisturbed") / "project", [], []
    results: list[dict[str, bytes]] = []
    for change in PHASES:
        change(root)
        started = time.monotonic()
        refresh = Fork(root, "refresh")
        assert refresh.wait() == 0, refresh.output
        changes.append(refresh.changes)
        seconds.append(time.monotonic() - started)
        results.append(settled(root))
    return Undisturbed(root, *results, changes, seconds)
