"""`tsds compare`: the table on the terminal is that of the stored comparison, made once."""

import polars as pl
import pytest

from tests.commands import tsds
from tests.projects import append_records, clustered, records
from tsds_pipeline.core.baselines import METHODS
from tsds_pipeline.project import Project
from tsds_pipeline.report.pages import comparison_path
from tsds_pipeline.report.selection import TITLES


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_table_of_all_methods(done, columns):
    result = tsds("-p", done, "compare", "t0", COLUMNS=columns)
    assert result.exit_code == 0, result.output
    assert "t0: held-back queries judge, mean over 4 parts" in result.output
    table = pl.read_parquet(done / "storage" / "selection_comparison" / "t0.parquet")
    methods = ["selection", *(method for method in METHODS if method != "knn_kde")]
    assert table["method"].unique(maintain_order=True).to_list() == methods
    lines = {line.strip().rpartition("  ")[2].strip(): line for line in result.output.splitlines()}
    means = dict(table.group_by("method").agg(pl.col("transport_distance").mean()).iter_rows())
    for method in methods:
        assert f"{means[method]:.3g}" in lines[TITLES[method]]
    best = min(means, key=means.get)
    assert f"{means[best]:.3g}*" in lines[TITLES[best]]
    page = comparison_path(Project.load(done), "t0")
    assert f"page: {page}" in result.output
    assert page.read_text("utf-8").count("<svg") == 1


def test_it_is_made_once(done):
    tsds("-p", done, "compare", "t0")
    before = comparison_path(Project.load(done), "t0").stat().st_mtime_ns
    again = tsds("-p", done, "compare", "t0")
    assert " made " not in again.output
    assert comparison_path(Project.load(done), "t0").stat().st_mtime_ns == before
    assert "1 made" in tsds("-p", done, "compare", "t0", "--again").output


def test_a_refresh_does_not_make_it(done):
    tsds("-p", done, "refresh")
    assert not (done / "storage" / "selection_comparison").exists()


def test_a_stale_selection_says_so(done):
    append_records(done / "tasks" / "t0" / "query.jsonl", records("more", clustered(8, 500)[3:5]))
    assert "warning: this result is stale" in tsds("-p", done, "compare", "t0").output


@pytest.mark.parametrize(
    ("task", "message"), [("t9", 'there is no task "t9"'), ("new", 'task "new" has no result yet')]
)
def test_what_cannot_be_compared(done, task, message):
    (done / "tasks" / "new").mkdir()
    (done / "tasks" / "new" / "query.jsonl").write_text("{}\n")
    result = tsds("-p", done, "compare", task)
    assert result.exit_code == 1
    assert message in result.output
