"""The demo project, made once, and its UI with the automation running."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import tsds, typed
from tests.dev_server import DevServer, dev_server
from tests.small_demo import small_demo

PICTURES = os.environ.get("TSDS_SCREENSHOTS")
FASTER = "\n[dagster]\ninterval = 3\none_run_above = 2\n"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("ui")


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """A small project of `tsds demo`; where the pictures are kept, for people to look at, the whole one."""
    root = tmp_path_factory.mktemp("ui") / "demo"
    if PICTURES:
        done = typed("demo", root)
        assert done.returncode == 0, done.stderr
    else:
        with small_demo(["networkx", "numpy", "polars"], ["graphs", "linear-algebra", "strings"]):
            done = tsds("demo", root)
        assert done.exit_code == 0, done.output
    with (root / "tsds.toml").open("a") as file:
        file.write(FASTER)
    return root


@pytest.fixture(scope="session")
def server(demo, tmp_path_factory) -> Iterator[DevServer]:
    """`tsds dev` on a copy of it."""
    root = shutil.copytree(demo, tmp_path_factory.mktemp("dev") / "demo")
    with dev_server(root) as running:
        yield running


@dataclass(frozen=True)
class Backfill:
    """A backfill of one task, what it made, and the tasks whose exports were written meanwhile."""

    id: str
    task: str
    made: list[str]
    exported: set[str]


@pytest.fixture(scope="session")
def backfill(server) -> Backfill:
    """A backfill of the task "strings" while everything is fresh."""
    server.wait_for(server.is_at_rest, "rest")
    before, exports = server.runs(), _times(server.root / "exports")
    started = server.backfill(["strings"])
    server.wait_for(lambda: server.is_finished(started), "the backfill", 900)
    after = _times(server.root / "exports")
    exported = {path.parent.name for path in after if exports.get(path) != after[path]}
    return Backfill(started, "strings", server.materialized(server.made_after(before)), exported)


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
