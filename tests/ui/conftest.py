"""The demo project, made once, and its UI with the automation running."""

import shutil
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def server(demo, tmp_path_factory) -> Iterator[DevServer]:
    """`tsds dev` on a copy of it."""
    root = shutil.copytree(demo, tmp_path_factory.mktemp("dev") / "demo")
    with dev_server(root) as running:
        yield running
