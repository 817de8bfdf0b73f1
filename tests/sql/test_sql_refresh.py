"""Models in a refresh: new and broken files, checks, what stops what, and what Dagster is told."""

import re
import shutil
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from tests.commands import tsds
from tests.projects import append_records, clustered, made, made_models, make_project, records, refreshed
from tsds_pipeline.definitions import definitions
from tsds_pipeline.graph import observe, stored
from tsds_pipeline.orchestration.instances import project_instance
from tsds_pipeline.project import Project
from tsds_pipeline.sql.relations import RELATIONS, relation_sql
from tsds_pipeline.sql.warehouse import add_view, open_warehouse, scratch
from tsds_pipeline.status import next_nodes, status


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished") / "project"
    make_project(root, sources=2, tasks=1, n=12)
    refreshed(root, models=True)
    return root


@pytest.fixture
def root(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


def write(root: Path, name: str, text: str) -> None:
    path = root / "dbt_like_sql" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def look(root: Path):
    return observe(Project.load(root))


def outcomes(root: Path) -> dict[str, tuple]:
    """What a refresh does about each node that is not fresh."""
    return {
        step.node: (step.outcome, *step.reasons)
        for step in refreshed(root, models=True)
        if step.outcome != "fresh"
    }


def assert_settled(root: Path) -> None:
    """Nothing is left to be done, in whatever way one asks."""
    assert [(one.node, one.reasons) for one in status(look(root)) if one.state != "fresh"] == []
    assert next_nodes(look(root)) == set()


def test_a_new_file_is_made_and_a_changed_one_again_with_its_readers(root):
    write(
        root,
        "staging/mine.sql",
        "-- Mine.\nSELECT source, count(*) AS n FROM kde_densities GROUP BY source ORDER BY 1",
    )
    write(root, "marts/reader.sql", "SELECT sum(n)::BIGINT AS n FROM mine")
    assert next_nodes(look(root)) == {"mine", "reader"}
    steps = refreshed(root, models=True)
    assert (made(steps), made_models(steps)) == ([], ["mine", "reader"])
    observed = look(root)
    assert stored(observed.project.storage, "mine").frame.rows() == [("s0", 12), ("s1", 12)]
    assert stored(observed.project.storage, "reader").frame.rows() == [(24,)]
    write(root, "marts/reader.sql", "SELECT max(n) AS n FROM mine")
    assert {one.node: one.reasons for one in status(look(root)) if one.state != "fresh"} == {
        "reader": ("the code of reader changed",)
    }
    assert made_models(refreshed(root, models=True)) == ["reader"]
    write(
        root,
        "staging/mine.sql",
        "SELECT source, 2 * count(*) AS n FROM kde_densities GROUP BY source ORDER BY 1",
    )
    assert next_nodes(look(root)) == {"mine", "reader"}
    assert made_models(refreshed(root, models=True)) == ["mine", "reader"]
    assert stored(observed.project.storage, "reader").frame.rows() == [(24,)]
    assert_settled(root)


def test_broken_files_fail_alone(root):
    write(root, "marts/broken.sql", "-- It is broken.\nSELECT\n  nope\nFROM stg_samples;")
    write(root, "marts/reader.sql", "FROM broken")
    write(root, "marts/typo.sql", "FROM stg_sampels")
    write(root, "marts/good.sql", "SELECT 1 AS one")
    write(root, "checks/kde_densities.sql", "SELECT 1")
    found = outcomes(root)
    column = (
        'dbt_like_sql/marts/broken.sql:3: Binder Error: Referenced column "nope" not found in FROM clause!'
    )
    table = 'dbt_like_sql/marts/typo.sql:1: there is no relation or model "stg_sampels" (did you mean "stg_samples"?)'
    assert found.keys() == {"broken", "reader", "typo", "good"}
    assert found["broken"][0] == "failed"
    assert found["broken"][1].startswith(column)
    assert found["reader"] == ("waiting", "needs broken")
    assert found["typo"][0] == "failed"
    assert found["typo"][1].startswith(table)
    assert found["good"] == ("made", "missing")
    assert next_nodes(look(root)) == set(), "by itself nothing of it is tried again"
    shown = tsds("-p", root, "status")
    assert re.search(r"^  sql +failed +3 of 17: ", shown.stdout, re.MULTILINE)
    assert f"failed: broken: {column}" in shown.stderr
    assert f"failed: typo: {table}" in shown.stderr
    assert 'problem: dbt_like_sql/checks/kde_densities.sql: "kde_densities" is a result' in shown.stderr
    again = tsds("-p", root, "refresh")
    assert again.exit_code == 1
    assert f"failed: typo: {table}" in again.stderr
    assert "waiting: 1 more, each needs broken" in again.stderr
    assert "; SQL models: 0 made, 14 fresh, 2 failed, 1 waiting" in again.stdout
    assets = {
        key.to_user_string() for key in definitions(str(root)).resolve_asset_graph().get_all_asset_keys()
    }
    assert {"broken", "reader", "typo", "good", "task_overlap"} <= assets
    (root / "dbt_like_sql" / "checks" / "kde_densities.sql").unlink()
    write(root, "marts/broken.sql", "SELECT task FROM stg_samples LIMIT 1")
    write(root, "marts/typo.sql", "SELECT 1 AS one")
    assert set(made_models(refreshed(root, models=True))) == {"broken", "reader", "typo"}
    assert_settled(root)


def test_a_broken_file_leaves_the_last_result(root):
    write(root, "marts/task_overlap.sql", "SELECT 1 / 'x'")
    before = (root / "storage" / "task_overlap.parquet").read_bytes()
    assert outcomes(root)["task_overlap"][0] == "failed"
    assert (root / "storage" / "task_overlap.parquet").read_bytes() == before
    (root / "dbt_like_sql" / "marts" / "task_overlap.sql").unlink()
    assert made_models(refreshed(root, models=True)) == ["task_overlap"], "as whatever failed"
    assert (root / "storage" / "task_overlap.parquet").read_bytes() == before
    assert_settled(root)


def test_a_broken_task_stops_no_model(tmp_path):
    root = tmp_path / "project"
    make_project(root, sources=1, tasks=2, n=12)
    (root / "tasks" / "t1" / "query.jsonl").write_text("{broken\n")
    found = outcomes(root)
    models = look(root).models
    assert {found[name][0] for name in models} == {"made"}
    assert stored(look(root).project.storage, "stg_samples").frame["task"].unique().to_list() == ["t0"]
    assert [one.node for one in status(look(root)) if one.state != "fresh" and one.node in models] == []
    assert not next_nodes(look(root)) & models.keys()
    assert not outcomes(root).keys() & models.keys()


def check_of(root: Path, model: str, name: str) -> dg.AssetCheckEvaluation:
    with project_instance(Project.load(root)) as instance:
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey(model), name), limit=1
        )
        return history[0].event.dagster_event.asset_check_evaluation_data


def test_checks(root):
    write(
        root,
        "checks/short.sql",
        "-- severity: warn\n-- No text is short.\n"
        "SELECT id, characters FROM stg_candidates WHERE characters < 99 ORDER BY id",
    )
    write(root, "checks/odd.sql", "SELECT nope FROM stg_candidates")
    assert made_models(refreshed(root, models=True)) == ["stg_candidates"], "its result is what it was"
    failed = check_of(root, "stg_candidates", "short")
    assert not failed.passed
    assert failed.severity == dg.AssetCheckSeverity.WARN
    assert failed.description == "24 failing rows, the first: id s0-0, characters 12"
    assert failed.metadata["failing_rows"].value == 24
    assert len(failed.metadata["first_rows"].records) == 10
    odd = check_of(root, "stg_candidates", "odd")
    assert odd.severity == dg.AssetCheckSeverity.ERROR
    assert odd.description.startswith('dbt_like_sql/checks/odd.sql:1: Binder Error: Referenced column "nope"')
    said = tsds("-p", root, "status")
    assert "warning: stg_candidates: check short: 24 failing rows, the first: id s0-0" in said.stderr
    assert check_of(root, "stg_samples", "drawn_examples_have_mass").passed
    assert stored(root / "storage", "stg_candidates").header.notes["failed_checks"].keys() == {"short", "odd"}
    write(root, "checks/short.sql", "SELECT id FROM stg_candidates WHERE characters < 1")
    (root / "dbt_like_sql" / "checks" / "odd.sql").unlink()
    assert made_models(refreshed(root, models=True)) == ["stg_candidates"]
    assert check_of(root, "stg_candidates", "short").passed
    assert stored(root / "storage", "stg_candidates").header.notes == {}
    assert_settled(root)


def test_dagster_is_told(finished):
    with project_instance(Project.load(finished)) as instance:
        event = instance.get_latest_materialization_event(
            dg.AssetKey("source_coverage")
        ).asset_materialization
    metadata = event.metadata
    assert metadata["dagster/row_count"].value == 2
    columns = {column.name: column for column in metadata["dagster/column_schema"].schema.columns}
    assert columns["lift"].description == "drawn_share over pool_share."
    assert columns["source"].description == "Key of the source."
    assert all(column.description for column in columns.values())
    assert metadata["made_because"].value == "missing"
    assert len(metadata["preview"].records) == 2
    assert all(line.startswith("    ") for line in metadata["sql"].md_str.splitlines())
    assert event.tags["dagster/data_version"] == stored(finished / "storage", "source_coverage").version


def test_a_lost_result_is_made_again_and_nothing_for_its_sake(root):
    (root / "storage" / "stg_samples.parquet").unlink()
    (root / "storage" / "task_overlap.parquet").write_bytes(b"PAR1")
    assert next_nodes(look(root)) == {"stg_samples", "task_overlap"}
    assert made_models(refreshed(root, models=True)) == ["stg_samples", "task_overlap"]
    assert_settled(root)


def test_what_is_gone_is_garbage(root):
    write(root, "marts/mine.sql", "SELECT 1 AS one")
    refreshed(root, models=True)
    write(root, "marts/mine.sql", "SELECT nope")
    refreshed(root, models=True)
    assert "nothing to delete" in tsds("-p", root, "gc").output
    (root / "dbt_like_sql" / "marts" / "mine.sql").unlink()
    kept = sorted((root / "storage").iterdir())
    assert "storage: there is no SQL model mine" in tsds("-p", root, "gc").output
    gone = {root / "storage" / name for name in ("mine.parquet", "mine.attempt.json")}
    assert set(kept) - set((root / "storage").iterdir()) == gone


def test_relations_have_the_columns_that_files_have(finished):
    """But for vectors, what is for the pipeline alone, and fields of the user's records."""
    left_out = {"vector", "densities_version", "version", "label", "embedding"}
    for name, relation in RELATIONS.items():
        paths = [
            *(finished / "storage" / name).rglob("*.parquet"),
            *(finished / "storage").glob(f"{name}.parquet"),
        ]
        for path in paths:
            there = pl.read_parquet_schema(path).keys()
            assert relation.columns.keys() <= there, name
            assert relation.growing or there - left_out == relation.columns.keys() - left_out, name


def test_a_relation_without_files_is_empty_and_of_the_same_types(finished, tmp_path):
    new = observe(make_project(tmp_path, sources=1, tasks=1, n=3))
    types = []
    for observed in (look(finished), new):
        with scratch(observed) as connection:
            for name in RELATIONS:
                add_view(connection, name, observed)
            found = {name: connection.execute(f"DESCRIBE {name}").fetchall() for name in RELATIONS}
            types.append({name: [row[:2] for row in rows] for name, rows in found.items()})
            if observed is new:
                assert all(connection.execute(f"FROM {name}").fetchall() == [] for name in RELATIONS)
    full, empty = types
    own = len(empty["selection_history"])  # then follow measures
    assert full["selection_history"][:own] in (empty["selection_history"], [])
    assert {**full, "selection_history": None} == {**empty, "selection_history": None}


def test_a_relation_has_only_what_is_in_the_project(root):
    (root / "sources" / "s1.jsonl").unlink()
    observed = look(root)
    assert (root / "storage" / "kde_densities" / "s1.parquet").exists()
    assert "s1" not in relation_sql("kde_densities", observed.project.storage, observed.keys)
    with open_warehouse(observed) as connection:
        assert connection.execute("SELECT DISTINCT source FROM query_neighbors").fetchall() == [("s0",)]


def test_a_model_reads_what_another_had_last_while_what_is_before_that_fails(root):
    few = "SELECT CASE WHEN count(*) > 7 THEN error('too many') ELSE 1 END AS n FROM query_examples"
    write(root, "marts/few.sql", few)
    write(root, "marts/between.sql", "SELECT n FROM few")
    write(root, "marts/both.sql", "SELECT n, count(*) AS queries FROM between, query_examples GROUP BY n")
    assert {name for name, (outcome, *_) in outcomes(root).items() if outcome == "made"} == {
        "few",
        "between",
        "both",
    }
    append_records(root / "tasks" / "t0" / "query.jsonl", records("more", clustered(5, 301)[4:]))
    found = outcomes(root)
    assert found["few"][0] == "failed"
    assert "waiting" not in {outcome for outcome, *_ in found.values()}
    assert found["both"][0] == "made"
