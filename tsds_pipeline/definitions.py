"""The Dagster entry: everything that the UI, the daemon and `tsds refresh` run."""

import dagster as dg

from tsds_pipeline.assets import candidates, tasks
from tsds_pipeline.orchestration.inputs import input_specs
from tsds_pipeline.orchestration.io_managers import ProjectIOManager
from tsds_pipeline.orchestration.resources import ProjectResource


def definitions(root: str | None = None) -> dg.Definitions:
    """The pipeline on the project folder ``root``; without it on the one that TSDS_PROJECT names."""
    project = ProjectResource(root=root)
    return dg.Definitions(
        assets=[*input_specs(), *dg.load_assets_from_modules([candidates, tasks])],
        resources={"project": project, "artifacts": ProjectIOManager(project=project)},
    )


defs = definitions()
