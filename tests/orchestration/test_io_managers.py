"""Partitions that were added where nothing checks their names, as in the Dagster UI."""

import dagster as dg
import pytest

from tests.projects import make_project
from tsds_pipeline.definitions import definitions
from tsds_pipeline.orchestration.instances import project_instance


@pytest.mark.parametrize("key", ["../../x", "a/b", "UPPER", "x" * 64, "a b", "unknown"])
def test_a_bad_key_writes_nothing(tmp_path, key):
    project = make_project(tmp_path / "project", sources=1, tasks=1, n=5)
    job = definitions(str(project.root)).resolve_implicit_global_asset_job_def()
    with project_instance(project) as instance:
        instance.add_dynamic_partitions("source", [key])
        before = {path for path in tmp_path.rglob("*") if ".dagster" not in path.parts}
        result = job.execute_in_process(
            instance=instance,
            partition_key=key,
            asset_selection=[dg.AssetKey("candidate_corpus")],
            raise_on_error=False,
        )
    assert not result.success
    after = {path for path in tmp_path.rglob("*") if ".dagster" not in path.parts}
    assert {path for path in after - before if path.is_file()} <= {project.storage / "file-hashes.json"}
