"""The project that the assets work on, as a Dagster resource."""

import dagster as dg

from tsds_pipeline.graph import Observed, observe
from tsds_pipeline.project import Project


class ProjectResource(dg.ConfigurableResource):
    """The project folder; without ``root`` the one that TSDS_PROJECT names, else the current folder."""

    root: str | None = None

    def load(self) -> Project:
        return Project.load(self.root)

    def observe(self) -> Observed:
        """The project's files and settings as they are now."""
        return observe(self.load())
