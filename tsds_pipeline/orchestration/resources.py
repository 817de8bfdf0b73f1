"""The project that the assets work on, as a Dagster resource."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import dagster as dg

from tsds_pipeline.graph import Observed, observe
from tsds_pipeline.project import Project, project_folder

REFRESH = "tsds/refresh"
"""Tag of the runs of a refresh, with a value of its own for each."""


class ProjectResource(dg.ConfigurableResource):
    """The project folder; without ``root`` the one that TSDS_PROJECT names, else the current folder."""

    root: str | None = None

    def load(self) -> Project:
        return Project.load(self.root)

    @property
    def name(self) -> str:
        """The name of the project's folder, whatever is in it."""
        return project_folder(self.root).name

    def observe(self) -> Observed:
        """The project's files and settings as they are now, or as ``observed_once`` has them."""
        return _observed.get() or observe(self.load())


_observed: ContextVar[Observed | None] = ContextVar("observed", default=None)


@contextmanager
def observed_once(observed: Observed) -> Iterator[None]:
    """Inside, whatever runs in this thread takes ``observed`` instead of looking for itself.

    What changes meanwhile is noticed by the next look; remote servers are asked once, not for every result.
    """
    token = _observed.set(observed)
    try:
        yield
    finally:
        _observed.reset(token)
