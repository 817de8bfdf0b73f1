"""Partitions that were added where nothing checks their names, as in the Dagster UI."""

import pytest

from tests.orchestration.runs import materialized
from tests.projects import make_project
from tsds_pipeline.orchestration.instances import project_instance


@pytest.mark.parametrize("key", ["../../x", "a/b", "UPPER", "x" * 64, "a b", "unknown"])
def test_a_bad_key_writes_nothing(tmp_path, key):
    project = make_project(tmp_path / "project", sources=1, tasks=1, n=5)
    with project_instance(project) as instance:
        instance.add_dynamic_partitions("source", [key])
    before = {path for path in tmp_path.rglob("*") if ".dagster" not in path.parts}
    assert not materialized(project, "candidate_corpus", key).success
    after = {path for path in tmp_path.rglob("*") if ".dagster" not in path.parts}
    assert {path for path in after - before if path.is_file()} <= {project.storage / "file-hashes.json"}
