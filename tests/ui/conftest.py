"""The demo project, made once, and its UI with the automation running."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import typed
from tests.dev_server import DevServer, dev_server

FASTER = "\n[dagster]\ninterval = 3\n"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("ui")


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """The project of `tsds demo`."""
    root = tmp_path_factory.mktemp("ui") / "demo"
    done = typed("demo", root)
    assert done.returncode == 0, done.stderr
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
