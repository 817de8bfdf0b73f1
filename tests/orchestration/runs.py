"""Runs as the automation asks for them, which nothing executes."""

import dagster as dg
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from tsds_pipeline.definitions import definitions

PLACE = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("somewhere"), "__repository__")


def a_run(instance, root, asset, partition, status, **tags):
    return instance.create_run_for_job(
        definitions(str(root)).resolve_implicit_global_asset_job_def(),
        status=status,
        tags={"dagster/partition": partition, **tags},
        asset_selection=frozenset([dg.AssetKey(asset)]),
        remote_job_origin=RemoteJobOrigin(PLACE, "__ASSET_JOB"),
    )
