"""`tsds init`."""

from tests.commands import tsds


def test_a_new_project(tmp_path):
    root = tmp_path / "new"
    result = tsds("init", root)
    assert result.exit_code == 0
    assert f"tsds -p {root} refresh" in result.output
    assert {path.name for path in root.iterdir()} == {"tsds.toml", "sources", "tasks", ".gitignore"}
    again = tsds("init", root)
    assert again.exit_code == 1
    assert again.stderr.startswith(f"error: {root}/tsds.toml exists already")


def test_refresh_of_an_empty_project_says_what_to_do(tmp_path):
    tsds("init", tmp_path)
    result = tsds("-p", tmp_path, "refresh")
    assert result.exit_code == 1
    assert "problem: sources/: no source yet" in result.stderr
    assert "hint: tasks/: no task yet" in result.stderr
    assert result.stdout.startswith("0 made, 0 fresh in ")
    assert tsds("-p", tmp_path, "status").stdout == "nothing to compute yet\n"


def test_a_project_that_it_would_pass_over_is_refused(tmp_path):
    result = tsds("-p", tmp_path / "elsewhere", "init", tmp_path / "new")
    assert result.exit_code == 2
    assert "`tsds init` is about no project that there is: leave out -p/--project" in result.stderr
    assert not (tmp_path / "new").exists()
