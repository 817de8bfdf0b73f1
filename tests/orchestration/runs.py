"""What the daemon does, without one: evaluating sensors, and runs that are asked for, which nothing executes."""

import dagster as dg
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from tsds_pipeline.definitions import definitions
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.orchestration.resources import ProjectResource

PLACE = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("somewhere"), "__repository__")


def evaluated(instance, root, defs, name, cursors):
    """What the sensor ``name`` of the project says, as the daemon evaluates it; ``cursors`` are kept by name."""
    context = dg.build_sensor_context(
        instance,
        cursors.get(name),
        definitions=defs,
        resources={"project": ProjectResource(root=str(root))},
        sensor_name=name,
    )
    with context:
        result = defs.resolve_sensor_def(name).evaluate_tick(context)
    cursors[name] = result.cursor
    return result


def materialized(project, asset, partition):
    """The run of one partition, as somebody asks for it in the UI; it may fail."""
    job = definitions(str(project.root)).resolve_implicit_global_asset_job_def()
    with project_instance(project) as instance:
        return job.execute_in_process(
            instance=instance,
            partition_key=partition,
            asset_selection=[dg.AssetKey(asset)],
            raise_on_error=False,
        )


def a_run(instance, root, asset, partition, status, **tags):
    return instance.create_run_for_job(
        definitions(str(root)).resolve_implicit_global_asset_job_def(),
        status=status,
        tags={"dagster/partition": partition, **tags},
        asset_selection=frozenset([dg.AssetKey(asset)]),
        remote_job_origin=RemoteJobOrigin(PLACE, "__ASSET_JOB"),
    )
