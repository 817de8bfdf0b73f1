"""`tsds show`: the figures that it prints are those of the stored plan."""

import re
import shutil

import numpy as np
import polars as pl
import pytest

from tests.commands import tsds
from tests.projects import append_records, clustered, make_project, records, refreshed
from tsds_pipeline.core import problem
from tsds_pipeline.explain import Explainer
from tsds_pipeline.orchestration.refresh import Refresh
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_result


def test_a_few_queries_by_default(done_once):
    result = tsds("-p", done_once, "show", "t0")
    assert result.exit_code == 0
    assert len(re.findall(r"^query \d of 7", result.output, re.MULTILINE)) == 3
    assert "12 of 60 candidates drawn for 7 queries; alpha 0.6" in result.output
    assert "with mass have near-duplicates and weigh as" in result.output
    assert "prob: selection probability" in result.output


def test_queries_by_number_by_id_or_all(done_once):
    by_id = tsds("-p", done_once, "show", "t0", "--query", "t0-3", "--limit", "2").output
    number = re.search(r"^query (\d) of 7  t0-3$", by_id, re.MULTILINE)[1]
    assert "text 3 of t0" in by_id
    assert tsds("-p", done_once, "show", "t0", "--query", number, "--limit", "2").output == by_id
    assert (
        len(
            re.findall(r"^query ", tsds("-p", done_once, "show", "t0", "--query", "all").output, re.MULTILINE)
        )
        == 7
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["t0", "--query", "8"], 'task t0 has no query "8": name a number from 1 to 7'),
        (["t0", "--query", "t0-33"], '(did you mean "t0-3"?)'),
        (["t9"], 'there is no task "t9"'),
    ],
)
def test_what_is_not_there(done_once, arguments, message):
    result = tsds("-p", done_once, "show", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_before_the_first_refresh(tmp_path):
    make_project(tmp_path, sources=1, tasks=1)
    result = tsds("-p", tmp_path, "show", "t0")
    assert result.exit_code == 1
    assert 'error: task "t0" has no result yet: run `tsds refresh`' in result.stderr


def test_a_stale_result_says_so(done):
    append_records(done / "sources" / "s0.jsonl", records("more", clustered(3, 7)))
    result = tsds("-p", done, "show", "t0")
    assert result.exit_code == 0
    assert "warning: this result is stale (comes after" in result.stderr


def test_queries_that_were_not_solved_for(done):
    append_records(done / "tasks" / "t0" / "query.jsonl", records("more", clustered(3, 7)))
    for step in Refresh(Project.load(done), task="t0").steps():
        if step.node == "query_embeddings|t0":
            break
    result = tsds("-p", done, "show", "t0")
    assert result.exit_code == 1
    assert result.stderr == "error: task t0: its queries changed after it was solved: run `tsds refresh`\n"


def test_a_sample_of_before_the_last_solution(done):
    with (done / "tsds.toml").open("a") as file:
        file.write("\n[tasks.t0]\nalpha = 0.9\nsize = 1000\n")
    assert tsds("-p", done, "refresh").exit_code == 1
    result = tsds("-p", done, "show", "t0")
    assert result.exit_code == 0
    assert "warning: what is drawn (*) comes from an earlier solution than the probabilities" in result.stderr
    assert "this result is failed" in result.stderr
    assert "earlier solution" not in tsds("-p", done, "show", "t1").stderr


def test_a_source_that_is_gone(done):
    shutil.rmtree(done / "storage" / "candidate_corpus")
    assert "(no longer in its source)" in tsds("-p", done, "show", "t0").stdout


@pytest.mark.parametrize("background", [0.0, 1.0])
@pytest.mark.parametrize("settings", ["alpha = 0.6", "alpha = 0.0", 'alpha = 0.2\nalgorithm = "knn_tv"'])
def test_shares_distances_and_draws(tmp_path, monkeypatch, settings, background):
    if background:  # as in a pool of millions
        monkeypatch.setattr(problem, "MAX_KNOWN_PAIRS", 0)
        monkeypatch.setattr(problem, "MAX_EXPLICIT_PAIRS", 0)
    widest = "0.6" not in settings
    settings = f'[encoder]\nkind = "precomputed"\n[selection]\nsize = 12\nepochs = 2\n{settings}\n'
    make_project(tmp_path, sources=2, tasks=1, n=30, settings=settings)
    refreshed(tmp_path)
    explainer = Explainer(Project.load(tmp_path), "t0")
    found = explainer.explain(range(7), 1000)
    notes = load_result(tmp_path, "selection_probabilities", "t0").header.notes
    assert notes["background"] == (background if widest else 0.0)
    assert explainer.neighborhood_sizes.tolist() == [one.with_mass for one in found]
    by_query = pl.concat(one.candidates for one in found)
    for one in found:
        assert one.candidates["share"].sum() == pytest.approx(1.0)
        assert one.candidates["distance"].is_sorted()
    for (_, _), rows in by_query.group_by("source", "id"):
        assert rows["share"].sum() / 7 == pytest.approx(rows["probability"][0])
    drawn = pl.read_parquet(tmp_path / "storage" / "sampled_subset" / "t0.parquet")
    marked = by_query.unique(["source", "id"]).filter(pl.col("drawn") > 0)
    assert set(drawn["text"]) <= set(marked["text"])
    queries = dict(zip((f"t0-{i}" for i in range(7)), clustered(7, 100), strict=True))
    row = found[2].candidates.row(0, named=True)
    source, _, place = row["id"].partition("-")
    vector = clustered(30, 10 + int(source[1]))[int(place)]
    assert row["distance"] == pytest.approx(np.linalg.norm(vector - queries[found[2].record_id]), abs=1e-6)
