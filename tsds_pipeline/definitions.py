"""The Dagster entry: everything that the UI, the daemon and `tsds refresh` run."""

import os
from functools import partial

import dagster as dg

from tsds_pipeline.assets import candidates, mixtures, reports, tasks
from tsds_pipeline.assets.sql_models import model_assets
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import WARMUP, project_models
from tsds_pipeline.node_names import DEFAULT_ENCODER, node_name
from tsds_pipeline.orchestration.alerts import alert_sensor
from tsds_pipeline.orchestration.automation import condition, model_condition, sensors
from tsds_pipeline.orchestration.forked_runs import fork_runs
from tsds_pipeline.orchestration.inputs import input_specs
from tsds_pipeline.orchestration.io_managers import ProjectIOManager
from tsds_pipeline.orchestration.jobs import redraw_job, refresh_job, schedules
from tsds_pipeline.orchestration.json_logs import use_json_if_asked
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.project import AUTOMATION, Project
from tsds_pipeline.settings import AlertSettings, DagsterSettings


def definitions(root: str | None = None) -> dg.Definitions:
    """The pipeline on the project folder ``root``; without it on the one that TSDS_PROJECT names."""
    use_json_if_asked()
    loaded = _project(root)
    settings = loaded.settings.dagster if loaded else DagsterSettings()
    running = os.environ.get(AUTOMATION) == "on"
    sensing = dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED
    project = ProjectResource(root=root)
    encoders = [DEFAULT_ENCODER, *(loaded.settings.encoders if loaded else ())]
    conditioned = condition(root, len(encoders))
    warming = [name for name in encoders if loaded and loaded.with_encoder(name).settings.encoder.warms_up]
    lacking = [node_name(WARMUP, encoder=name) for name in encoders if name not in warming]
    every = (*candidates.ASSETS, *tasks.ASSETS, *reports.ASSETS, *mixtures.ASSETS)
    assets = [made for asset in every for made in asset.definitions(encoders, conditioned, lacking)]
    models = model_assets(project_models(loaded and loaded.root), model_condition(root))
    owned = partial(dg.AssetSpec.replace_attributes, owners=list(settings.owners))
    return dg.Definitions(
        assets=dg.map_asset_specs(owned, [*input_specs(encoders), *assets, *models]),
        resources={"project": project, "artifacts": ProjectIOManager(project=project)},
        jobs=[refresh_job, redraw_job],
        sensors=[
            *sensors(settings, sensing),
            alert_sensor(loaded.settings.alerts if loaded else AlertSettings(), settings.interval, sensing),
        ],
        schedules=schedules(
            settings, dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED
        ),
        # A process for each step would load everything again: two seconds.
        executor=dg.in_process_executor,
    )


def _project(root: str | None) -> Project | None:
    """The project; None where there is no usable one, as every run will say."""
    try:
        return Project.load(root)
    except TsdsError:
        return None


fork_runs()
defs = definitions()
