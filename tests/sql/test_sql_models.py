"""The files of dbt_like_sql/: which are models and checks, in which order, and what is wrong with the others."""

from pathlib import Path

import pytest

from tsds_pipeline.graph import CODE_VERSIONS, project_models
from tsds_pipeline.sql.models import FOLDER, SHIPPED, Models


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, text: str) -> None:
        path = tmp_path / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    return write_file


@pytest.fixture
def load(tmp_path):
    return lambda: project_models(tmp_path)


def problem(found: Models, name: str) -> str:
    assert found.problems == ()
    return found.models[name].problem


def test_the_shipped_files_are_in_order(load):
    found = load()
    assert found.problems == ()
    assert [model.problem for model in found.models.values() if model.problem] == []
    assert {model.file.folder for model in found.models.values()} == {"staging", "marts"}
    files = {path.stem for path in SHIPPED.rglob("*.sql")}
    checks = {check.name for model in found.models.values() for check in model.checks}
    assert files == found.models.keys() | checks
    for model in found.models.values():
        assert model.file.description, model.name
        assert model.select.text.rstrip().splitlines()[-1].startswith("ORDER BY "), model.name
    for path in SHIPPED.rglob("*.sql"):
        assert max(map(len, path.read_text().splitlines())) <= 120


def test_every_model_comes_after_what_it_reads(load, write):
    write("staging/a_first.sql", "FROM z_last")
    write("marts/z_last.sql", "FROM kde_densities")
    order = list(load().models)
    assert order.index("z_last") < order.index("a_first")
    assert order[-1] == "asset_costs", "it tells of all the others"


def test_a_new_file_is_a_new_model(load, write):
    write(
        "marts/mine.sql",
        '-- What I want\n--to know.\n\nSELECT 1 AS one,  -- The number.\n 2 AS "two" -- Two.\n',
    )
    model = load().models["mine"]
    assert model.reads == ()
    assert model.file.path == "dbt_like_sql/marts/mine.sql"
    assert model.file.description == "What I want to know."
    assert model.file.columns == {"one": "The number.", "two": "Two."}


def test_a_file_of_the_project_replaces_a_shipped_one(load, write):
    before = load().models
    write("marts/task_overlap.sql", "FROM query_examples")
    after = load().models
    assert after.keys() == before.keys()
    assert after["task_overlap"].reads == ("query_examples",)
    assert after["task_overlap"].code != before["task_overlap"].code
    assert {n: m.code for n, m in after.items() if n != "task_overlap"} == {
        n: m.code for n, m in before.items() if n != "task_overlap"
    }


def test_lineage_stops_at_with_and_ignores_case(load, write):
    write(
        "marts/mine.sql",
        "WITH a AS (FROM KDE_Densities) SELECT * FROM A JOIN main.Stg_Samples USING (content_id)",
    )
    assert load().models["mine"].reads == ("kde_densities", "stg_samples")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT *\nFROM nope", '2: there is no relation or model "nope"; `tsds sql .tables` lists them'),
        (
            "FROM stg_sample",
            '1: there is no relation or model "stg_sample" (did you mean "stg_samples"?); '
            "`tsds sql .tables` lists them",
        ),
        (
            "FROM information_schema.tables",
            '1: there is no relation or model "information_schema.tables"; `tsds sql .tables` lists them',
        ),
        (
            "FROM 'secret.parquet'",
            '1: there is no relation or model "secret.parquet"; `tsds sql .tables` lists them',
        ),
        ("FROM", '1: Parser Error: syntax error at or near "FROM"'),
    ],
)
def test_a_broken_file_is_the_problem_of_its_model_alone(load, write, text, message):
    write("marts/mine.sql", text)
    write("marts/reader.sql", "FROM mine")
    found = load()
    assert problem(found, "mine") == f"dbt_like_sql/marts/mine.sql:{message}"
    assert [name for name, model in found.models.items() if model.problem] == ["mine"]


def test_a_circle(load, write):
    write("marts/a.sql", "FROM b")
    write("marts/b.sql", "FROM c JOIN stg_samples USING (task)")
    write("staging/c.sql", "FROM a")
    write("marts/d.sql", "FROM a")
    write("marts/self.sql", "FROM self")
    found = load()
    folder = "dbt_like_sql"
    way = " -> ".join(f"{folder}/{name}.sql" for name in ("marts/a", "marts/b", "staging/c", "marts/a"))
    assert problem(found, "a") == f"{folder}/marts/a.sql: reads itself ({way}): take one of these out"
    assert problem(found, "c").startswith(f"{folder}/staging/c.sql: reads itself")
    assert problem(found, "self") == (
        f"{folder}/marts/self.sql: reads itself ({folder}/marts/self.sql -> {folder}/marts/self.sql): "
        "take one of these out"
    )
    assert problem(found, "d") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("marts/kde_densities.sql", '"kde_densities" is a result of the pipeline already: rename the file'),
        ("marts/quarantine.sql", '"quarantine" is a result of the pipeline already: rename the file'),
        ("marts/source_files.sql", '"source_files" is a result of the pipeline already: rename the file'),
        (
            "marts/My-Model.sql",
            '"My-Model" cannot be the name of an asset (lower-case letters, digits and "_", beginning with a letter, '
            "at most 63 characters): rename the file",
        ),
        ("mine.sql", "is in no folder of models: move it to staging/, marts/ or checks/"),
        ("marts/deep/mine.sql", "is in no folder of models: move it to staging/, marts/ or checks/"),
    ],
)
def test_a_file_that_cannot_be_a_model(load, write, name, message):
    write(name, "SELECT 1")
    found = load()
    assert found.problems == (f"dbt_like_sql/{name}: {message}",)
    assert list(found.models) == list(project_models(None).models)


def test_two_files_of_one_name(load, write):
    write("staging/mine.sql", "SELECT 1")
    write("marts/mine.sql", "SELECT 2")
    (said,) = load().problems
    assert said == (
        "dbt_like_sql/staging/mine.sql: dbt_like_sql/marts/mine.sql has the same name: rename one of them"
    )


def test_a_file_that_is_not_text(load, write, tmp_path):
    write("marts/mine.sql", "")
    (tmp_path / FOLDER / "marts" / "mine.sql").write_bytes(b"SELECT '\xff'")
    assert load().problems == ("dbt_like_sql/marts/mine.sql: is not UTF-8 (byte 9): save it as UTF-8",)


def test_checks_belong_to_the_model_that_is_made_last(load, write):
    write(
        "checks/mine.sql",
        "-- severity: warn\n-- Nothing is wrong.\nFROM task_overlap JOIN stg_samples USING (task)",
    )
    (check,) = [one for one in load().models["task_overlap"].checks if one.name == "mine"]
    assert check.severity == "warn"
    assert check.file.description == "Nothing is wrong."
    write("checks/mine.sql", "FROM stg_samples")
    (check,) = [one for one in load().models["stg_samples"].checks if one.name == "mine"]
    assert check.severity == "error"


def test_a_changed_check_is_other_code_of_its_model(load, write):
    before = load().models["task_overlap"].code
    write("checks/mine.sql", "FROM task_overlap WHERE false")
    assert load().models["task_overlap"].code != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "FROM kde_densities",
            ": reads only kde_densities: a check belongs to a model: read one, such as those of staging/",
        ),
        ("SELECT 1", ": reads nothing: a check belongs to a model: read one, such as those of staging/"),
        ("-- x\n-- severity: fatal\nFROM stg_samples", ':2: severity "fatal": use "warn" or "error"'),
        ("FROM nope", ':1: there is no relation or model "nope"; `tsds sql .tables` lists them'),
        ("FROM stg_samples WHERE", ':1: Parser Error: syntax error at or near "WHERE"'),
    ],
)
def test_a_broken_check_is_a_problem_of_the_project(load, write, text, message):
    write("checks/mine.sql", text)
    assert load().problems == (f"dbt_like_sql/checks/mine.sql{message}",)


def test_no_asset_is_named_like_a_model():
    assert not CODE_VERSIONS.keys() & project_models(None).models.keys()


def test_the_folder_is_beside_the_package():
    assert Path(SHIPPED).name == "dbt_like_sql"
    assert (SHIPPED / "marts" / "source_coverage.sql").is_file()
