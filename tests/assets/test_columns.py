"""What the catalogue says of columns is complete, and names only columns that there are."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from tests.projects import WITH_REPORTS, made, make_project, refreshed
from tsds_pipeline.assets.columns import COLUMNS as ALL_COLUMNS
from tsds_pipeline.definitions import definitions
from tsds_pipeline.graph import CODE_VERSIONS, WARMUP
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.project import Project

USER_FIELDS = {"label"}
# What only encoders that train adapters have is tested with them (test_gradient_refresh).
COLUMNS = {asset: columns for asset, columns in ALL_COLUMNS.items() if asset != WARMUP}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("columns") / "project"
    mixture = '[mixtures.m]\ntasks = ["t0"]\nsize = 9\n'
    make_project(root, sources=2, tasks=1, n=20, settings=WITH_REPORTS + mixture)
    made(refreshed(root))
    made(refreshed(root, nodes=["selection_comparison|t0"]))
    return root


@pytest.fixture(scope="module")
def stored(project) -> dict[str, set[str]]:
    """The columns that each asset's tables have."""
    return {
        asset: {
            name
            for path in (project / "storage").rglob("*.parquet")
            if path.relative_to(project / "storage").parts[0].removesuffix(".parquet") == asset
            for name in pl.read_parquet_schema(path)
        }
        for asset in CODE_VERSIONS
        if asset != WARMUP
    }


def test_every_column_is_described_and_every_description_is_of_a_column(stored):
    assert {asset: set(columns) for asset, columns in COLUMNS.items()} == {
        asset: columns - USER_FIELDS for asset, columns in stored.items()
    }


def test_columns_come_from_columns_that_there_are(stored):
    for asset, columns in COLUMNS.items():
        for name, column in columns.items():
            for dependency in column.made_from:
                upstream, _, of = dependency.partition(".")
                assert of in stored[upstream], (asset, name, dependency)


def test_lineage_follows_the_edges_of_the_graph():
    graph = definitions().resolve_asset_graph()
    for asset, columns in COLUMNS.items():
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey(asset)).parent_keys}
        named = {
            dependency.partition(".")[0] for column in columns.values() for dependency in column.made_from
        }
        assert named <= parents, asset


def test_dagster_is_told(project, stored):
    with project_instance(Project.load(project)) as instance:
        for asset, columns in stored.items():
            event = instance.get_latest_materialization_event(dg.AssetKey(asset)).asset_materialization
            schema = event.metadata["dagster/column_schema"].schema
            assert {column.name for column in schema.columns} == columns
            assert all(column.description for column in schema.columns)
            lineage = event.metadata["dagster/column_lineage"].column_lineage.deps_by_column
            assert set(lineage) <= columns
            assert all(lineage.values())
