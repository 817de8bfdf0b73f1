"""A small project that is up to date, made once."""

import shutil
from pathlib import Path

import pytest

from tests.projects import make_project, refreshed


@pytest.fixture(scope="session")
def done_once(tmp_path_factory) -> Path:
    """A project that is up to date; not to be changed."""
    root = tmp_path_factory.mktemp("done") / "project"
    make_project(root, sources=2, tasks=2, n=30)
    refreshed(root, models=True)
    return root


@pytest.fixture
def done(done_once, tmp_path) -> Path:
    """A copy of it to play with."""
    return Path(shutil.copytree(done_once, tmp_path / "project"))
