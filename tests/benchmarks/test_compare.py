"""The two commands, at sizes of seconds. TSDS_REFERENCE names a clone of the public script to compare with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
SMALL = ["--queries", "8", "--dim", "16", "--size", "20"]


def command(repository: Path, name: str, *arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, str(repository / "benchmarks" / name), *arguments]
    return subprocess.run(line, capture_output=True, text=True)


def compare(repository: Path, out: Path, runs: int, *arguments: str) -> dict:
    sizes = [*SMALL, "--candidates", "3000", "--runs", str(runs)]
    done = command(repository, "compare.py", *sizes, "--out", str(out), *arguments)
    assert done.returncode == 0, done.stderr
    assert (out / "plot.png").stat().st_size > 0
    assert (out / "table.md").read_text() in done.stdout
    assert {path.name for path in out.iterdir()} == {"plot.png", "results.json", "table.md"}
    results = json.loads((out / "results.json").read_text())
    assert not [run for run in results["runs"] if "failed" in run]
    return results


def test_ours_alone(repository: Path, tmp_path: Path):
    results = compare(repository, tmp_path, 1)
    stages = results["runs"][0]["stages"]
    assert stages.keys() >= {"search", "transport", "draw", "other"}
    assert {(run["method"], run["radius"]) for run in results["runs"]} == {
        (method, radius) for method in ("select cold", "exact cold", "further task") for radius in (0.1, 0.5)
    }
    exact = [one for one in results["quality"] if one["method"] == "exact cold"]
    assert [one["radius"] for one in exact] == [0.1, 0.5]
    for one in exact:
        assert one["least_recall"] == 1.0
        assert one["largest_density_error"] < 1e-12


def test_with_the_reference(repository: Path, tmp_path: Path):
    clone = os.environ.get("TSDS_REFERENCE")
    if not clone:
        pytest.skip("TSDS_REFERENCE names no clone of the public script")
    before = sorted(Path(clone).rglob("*"))
    results = compare(repository, tmp_path, 2, "--reference", clone)
    assert sorted(Path(clone).rglob("*")) == before
    runs = [run for run in results["runs"] if run["method"] == "reference"]
    assert len(runs) == 4
    for run in runs:
        assert list(run["stages"]) == ["index", "search", "densities", "transport", "draw"]
        assert run["rebuilt_differs"] < 1e-6
    assert [one["radius"] for one in results["quality"] if one["method"] == "reference"] == [0.1, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "{empty}"], "no tsds.py in there"),
        (["--project", "{empty}"], "no vectors in storage/query_embeddings"),
        (["--task", "t"], "--task names a task of a --project"),
        (["--runs", "0"], "must be at least 1, got 0"),
        (["--radius", "0"], "--radius must be above 0"),
    ],
)
def test_what_cannot_be_done_is_said(repository: Path, tmp_path: Path, arguments: list[str], message: str):
    done = command(repository, "compare.py", *(argument.format(empty=tmp_path) for argument in arguments))
    assert done.returncode != 0
    assert message in done.stderr


def test_growth(repository: Path, tmp_path: Path):
    sizes = [*SMALL, "--candidates", "1000", "3000", "--limit-gib", "4"]
    done = command(repository, "scaling.py", *sizes, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "scaling.json").read_text())["runs"]
    assert [run["candidates"] for run in runs] == [1000, 3000]
    assert all("failed" not in run for run in runs)
    assert "Peak memory stays below 4 GiB." in (tmp_path / "scaling.md").read_text()
    assert (tmp_path / "scaling.png").stat().st_size > 0
