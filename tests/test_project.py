import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tsds_pipeline import settings as settings_module
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.project import Project, create_project
from tsds_pipeline.settings import Settings, TaskSettings, load_settings


class TestLoad:
    def test_the_argument_comes_before_the_environment_and_the_current_folder(self, tmp_path, monkeypatch):
        for name in ("argument", "environment", "current"):
            create_project(tmp_path / name)
        monkeypatch.chdir(tmp_path / "current")
        assert Project.load().root == tmp_path / "current"
        monkeypatch.setenv("TSDS_PROJECT", str(tmp_path / "environment"))
        assert Project.load().root == tmp_path / "environment"
        assert Project.load(tmp_path / "argument").root == tmp_path / "argument"
        monkeypatch.setenv("TSDS_PROJECT", "")
        assert Project.load().root == tmp_path / "current"

    def test_a_relative_folder_becomes_absolute(self, tmp_path, monkeypatch):
        create_project(tmp_path / "here")
        monkeypatch.chdir(tmp_path)
        assert Project.load("here").root == tmp_path / "here"

    def test_a_linked_folder_keeps_its_name(self, tmp_path):
        create_project(tmp_path / "target")
        (tmp_path / "link").symlink_to(tmp_path / "target")
        assert Project.load(tmp_path / "link").root == tmp_path / "link"

    @pytest.mark.parametrize("name", ["sources", "tasks"])
    def test_a_folder_of_inputs_is_enough(self, tmp_path, name):
        (tmp_path / name).mkdir()
        assert Project.load(tmp_path).settings == Settings()

    def test_settings_are_read(self, tmp_path):
        (tmp_path / "tsds.toml").write_text("[selection]\nseed = 7\n")
        assert Project.load(tmp_path).settings.selection.seed == 7

    def test_wrong_settings_are_reported(self, tmp_path):
        (tmp_path / "tsds.toml").write_text("[selection]\nseeds = 7\n")
        with pytest.raises(
            TsdsError, match=r'tsds.toml: \[selection\] seeds: unknown key \(did you mean "seed"'
        ):
            Project.load(tmp_path)

    def test_no_project(self, tmp_path, monkeypatch):
        with pytest.raises(TsdsError, match=r"not a tsds project .*tsds init DIR.*tsds demo"):
            Project.load(tmp_path)
        monkeypatch.setenv("TSDS_PROJECT", str(tmp_path / "missing"))
        with pytest.raises(TsdsError, match=r"TSDS_PROJECT=.*missing: no such folder.*tsds init DIR"):
            Project.load()

    def test_where_things_are(self, tmp_path):
        project = Project(tmp_path, Settings())
        folders = (project.storage, project.exports, project.dagster_home)
        assert folders == (tmp_path / "storage", tmp_path / "exports", tmp_path / ".dagster")
        assert not any(folder.exists() for folder in folders)


class TestDagsterHome:
    def test_telemetry_is_off(self, tmp_path):
        home = Project(tmp_path, Settings()).prepare_dagster_home()
        assert yaml.safe_load((home / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}

    def test_a_file_of_the_users_stays(self, tmp_path):
        project = Project(tmp_path, Settings())
        own = project.prepare_dagster_home() / "dagster.yaml"
        own.write_text("telemetry: {enabled: true}\n")
        project.prepare_dagster_home()
        assert own.read_text() == "telemetry: {enabled: true}\n"


class TestCreate:
    def test_a_new_project(self, tmp_path):
        root = create_project(tmp_path / "a" / "b")
        assert {path.name for path in root.iterdir()} == {"tsds.toml", "sources", "tasks", ".gitignore"}
        assert (root / ".gitignore").read_text().splitlines()[1:] == [
            "storage/",
            "exports/",
            "reports/",
            ".dagster/",
        ]
        assert Project.load(root).settings == Settings()

    def test_in_a_folder_that_has_files(self, tmp_path):
        (tmp_path / "sources").mkdir()
        (tmp_path / "sources" / "a.jsonl").write_text("{}\n")
        (tmp_path / ".gitignore").write_text("mine\n")
        create_project(tmp_path)
        assert (tmp_path / "sources" / "a.jsonl").read_text() == "{}\n"
        assert (tmp_path / ".gitignore").read_text() == "mine\n"

    def test_a_project_is_not_overwritten(self, tmp_path):
        (tmp_path / "tsds.toml").write_text("[pool]\n")
        with pytest.raises(TsdsError, match=r"tsds.toml exists already: edit it, or name another folder"):
            create_project(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["tsds.toml"]
        assert (tmp_path / "tsds.toml").read_text() == "[pool]\n"

    def test_a_place_that_cannot_be_a_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        for root in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(TsdsError, match="cannot make this folder"):
                create_project(root)


class TestTemplate:
    """The commented tsds.toml of a new project."""

    @pytest.fixture
    def text(self, tmp_path) -> str:
        return (create_project(tmp_path) / "tsds.toml").read_text("utf-8")

    def test_what_is_not_an_example_is_the_default(self, text, tmp_path):
        path = tmp_path / "uncommented.toml"
        path.write_text(uncomment(text, examples=False))
        document = tomllib.loads(path.read_text())
        assert load_settings(path) == Settings()
        for table, values in document.items():
            assert Settings().model_dump(mode="json")[table].items() >= values.items()

    def test_examples_are_valid(self, text, tmp_path):
        path = tmp_path / "uncommented.toml"
        uncommented = uncomment(text, examples=True)
        for one_of_several in ("size = 1000 ", "tokens = 2000000 ", "command = "):
            uncommented = uncommented.replace(f"\n{one_of_several}", f"\n# {one_of_several}", 1)
        path.write_text(uncommented)
        settings = load_settings(path)
        assert settings.selection.fraction == 0.01
        assert settings.tasks["my-task"].sources == ("my-source",)
        assert settings.sources["my-source"].text == "{instruction}\n{input}\n{output}"

    @pytest.mark.parametrize("table", ["encoder", "pool", "corpus", "selection"])
    def test_every_key_is_taught(self, text, table):
        section = text.split(f"[{table}]", 1)[1].split("\n[", 1)[0]
        model = Settings.model_fields[table].annotation
        assert set(re.findall(r"^# (\w+) = ", section, re.MULTILINE)) >= set(model.model_fields)

    def test_tables_of_tables_are_taught(self, text):
        own = set(TaskSettings.model_fields) - set(settings_module.SelectionSettings.model_fields)
        assert all(re.search(rf"\b{key} = ", text) for key in own)


def uncomment(text: str, *, examples: bool) -> str:
    """``text`` with its settings switched on: the defaults only, or the examples too."""
    lines, in_example = [], False
    for line in text.splitlines():
        in_example = "# example" in line if line.startswith("# [") else in_example and line.startswith("# ")
        setting = re.match(r"# (\w+ = |\[)", line)
        if setting and (examples or not (in_example or "# example" in line)):
            line = line.removeprefix("# ")
        lines.append(line)
    return "\n".join(lines)


def test_the_template_is_installed_with_the_package(repository: Path):
    document = tomllib.loads((repository / "pyproject.toml").read_text())
    assert "template.toml" in document["tool"]["setuptools"]["package-data"]["tsds_pipeline"]
