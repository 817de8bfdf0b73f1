"""Leaks of a task: flagged, dropped or allowed, from its settings to its sample."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.projects import (
    SETTINGS,
    append_records,
    clustered,
    made,
    make_project,
    records,
    refreshed,
    write_records,
)
from tsds_pipeline.results import load_result, load_selection

EVERYTHING = SETTINGS.replace("alpha = 0.6\nsize = 12", "alpha = 0.0\nfraction = 1.0\nleak_distance = 1e-6")
PIECE = " ".join(f"word{i}" for i in range(13))


@pytest.fixture(scope="module")
def leaking(tmp_path_factory) -> Path:
    """A refreshed project in which candidates give away queries and test records, as the names of their ids say."""
    folder = tmp_path_factory.mktemp("leaks") / "p"
    make_project(folder, sources=2, tasks=1, n=30, settings=SETTINGS)
    queries, tests = records("t0", clustered(7, 100)), records("held", clustered(5, 300))
    tests[1]["text"] = f"{PIECE} of a test record"
    write_records(folder / "tasks" / "t0" / "test.jsonl", tests)
    near_query = [{**queries[3], "id": "same-query"}, {**queries[4], "id": "near-query", "text": "another 4"}]
    near_test = [
        {**tests[1], "id": "piece", "text": f"Before: {PIECE.upper()}, after"},
        {**tests[2], "id": "near-test", "text": "another 2"},
        {**tests[3], "id": "same-test"},
    ]
    append_records(folder / "sources" / "s1.jsonl", near_query + near_test)
    write_records(folder / "sources" / "s2.jsonl", [{**near_test[2], "id": "same-test-again"}])
    (folder / "tsds.toml").write_text(EVERYTHING)
    made(refreshed(folder))
    return folder


def leaks_of(root: Path) -> dict[str, tuple]:
    table = pl.read_parquet(root / "storage" / "leaks" / "t0.parquet", glob=False)
    return {row["id"]: (row["why"], row["of"], row["record_id"], row["dropped"]) for row in table.to_dicts()}


BY_WORDS = {
    "same-query": ("text", "query", "t0-3"),
    "piece": ("piece", "test", "held-1"),
    "same-test": ("text", "test", "held-3"),
}
BY_DISTANCE = {"near-query": ("distance", "query", "t0-4"), "near-test": ("distance", "test", "held-2")}


def test_leaks_are_flagged_or_dropped_in_a_plan_that_is_solved_without_them(leaking, tmp_path):
    root = Path(shutil.copytree(leaking, tmp_path / "p"))
    everything = BY_WORDS | BY_DISTANCE
    assert leaks_of(root) == {name: (*why, False) for name, why in everything.items()}
    problem = load_result(root, "sampled_subset", "t0").header.notes["failed_checks"]["no_query_text"]
    for part in (
        "1 example within leak_distance of a query record (s1: near-query)",
        "1 example with the text of a test record (s1: same-test)",
        "1 example with 13 words in a row of a test record (s1: piece)",
        "storage/leaks/t0.parquet lists them",
    ):
        assert part in problem
    drawn = load_selection(root, "t0")["id"].to_list()
    assert set(everything) <= set(drawn)

    settings = (root / "tsds.toml").read_text()
    (root / "tsds.toml").write_text(settings + 'leaks = "drop"\n')
    steps = made(refreshed(root))
    assert [step for step in steps if "subset" in step or "prob" in step] == [
        "selection_probabilities|t0",
        "sampled_subset|t0",
    ]
    assert leaks_of(root) == {name: (*why, True) for name, why in everything.items()}
    solved = load_result(root, "selection_probabilities", "t0")
    assert solved.header.notes["leaks_left_out"] == 5
    assert not set(everything) & set(solved.frame["id"])
    assert "same-test-again" not in solved.frame["id"]
    assert solved.frame["probability"].sum() == pytest.approx(1)
    # At alpha 0 the plan is a_j / S, and S is that of the rest.
    weights = solved.frame["count"] / solved.frame["density"]
    assert (solved.frame["probability"] - weights / weights.sum()).abs().max() < 1e-12
    sample = load_result(root, "sampled_subset", "t0")
    assert "failed_checks" not in sample.header.notes
    assert sorted(sample.frame["id"]) == sorted(set(drawn) - set(everything))

    (root / "tsds.toml").write_text(settings + 'leaks = "allow"\n')
    made(refreshed(root))
    assert leaks_of(root) == {}
    assert "failed_checks" not in load_result(root, "sampled_subset", "t0").header.notes
    (root / "tasks" / "t0" / "test.jsonl").write_text("{broken")
    (root / "tsds.toml").write_text(settings + 'leaks = "drop"\n')
    steps = {step.node: step for step in refreshed(root)}
    assert steps["selection_probabilities|t0"].outcome == "failed", "what a plan must not hold is not known"


def test_only_candidates_with_mass_are_looked_at_until_none_of_them_leaks(leaking, tmp_path):
    root = Path(shutil.copytree(leaking, tmp_path / "p"))
    (root / "tsds.toml").write_text(SETTINGS.replace("alpha = 0.6", 'alpha = 0.95\nleaks = "drop"'))
    made(refreshed(root))
    solved = load_result(root, "selection_probabilities", "t0")
    assert not set(BY_WORDS) & set(solved.frame["id"])
    assert "near-query" in solved.frame["id"], "without leak_distance only words count"
    listed = leaks_of(root)
    assert "same-query" in listed
    assert listed.items() <= {name: (*why, True) for name, why in BY_WORDS.items()}.items()


def test_a_damaged_table_of_leaks_is_told_with_what_to_do(leaking, tmp_path):
    root = Path(shutil.copytree(leaking, tmp_path / "p [1]"))
    settings = SETTINGS + 'leaks = "drop"\n'
    (root / "tsds.toml").write_text(settings)
    made(refreshed(root))
    dropped, path = leaks_of(root), root / "storage" / "leaks" / "t0.parquet"
    assert dropped
    path.write_bytes(b"damaged")
    (root / "tsds.toml").write_text(settings + "seed = 5\n")
    (failed,) = [step for step in refreshed(root) if step.outcome == "failed"]
    made_with = root / "storage" / "selection_probabilities" / "t0.parquet"
    assert failed.reasons[0].startswith(f"{path}: is damaged (")
    assert f"delete it and {made_with}, and run `tsds refresh`" in failed.reasons[0]
    path.unlink()
    made_with.unlink()
    made(refreshed(root))
    assert leaks_of(root) == dropped
