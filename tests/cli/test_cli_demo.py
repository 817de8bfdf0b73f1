"""`tsds demo` on a small part of its corpus, with the real encoder."""

import re

import pytest

from tests.commands import tsds
from tests.small_demo import small_demo


@pytest.fixture
def small():
    with small_demo(["networkx", "polars"], ["graphs", "strings"]):
        yield


def test_from_nothing_to_a_summary_of_each_task(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = tsds("demo", "shown")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("shown: 50 docstrings of 2 libraries (the sources), 2 tasks\n")
    assert "\npool\n" in result.output
    graphs = result.output.partition("\ngraphs: ")[2].partition("\nstrings: ")[0]
    for label in ("asked", "chosen", "from", "density", "files"):
        assert re.search(rf"^  {label} ", graphs, re.MULTILINE)
    assert re.search(r"\d+% are from where they should be \(networkx\); by chance 50% would be", graphs)
    assert (tmp_path / "shown" / "exports" / "graphs" / "epoch-0.jsonl").is_file()
    assert "shown/exports/graphs/" in graphs
    assert "tsds -p shown show graphs" in result.output
    assert "Warning" not in result.stderr
    again = tsds("demo", "shown")
    assert re.search(r"^0 made, \d+ fresh in ", again.output, re.MULTILINE)


def test_another_project_is_left_alone(done):
    result = tsds("demo", done)
    assert result.exit_code == 1
    assert "is another project" in result.stderr
