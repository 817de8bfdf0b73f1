"""What is left out of the sources on purpose, from tsds.toml to what is stored."""

import polars as pl

from tests.projects import (
    SETTINGS,
    append_records,
    made,
    make_project,
    refreshed,
    write_records,
)
from tsds_pipeline.graph import observe
from tsds_pipeline.project import Project
from tsds_pipeline.storage import read_artifact

RULES = """
[corpus]
drop = {label = ["l0"]}

[sources.s1]
drop = {}

[exclude.tests]
path = "tests/*.jsonl"
"""


def corpora(root) -> dict[str, pl.DataFrame]:
    return {
        path.stem: pl.read_parquet(path) for path in (root / "storage/candidate_corpus").glob("*.parquet")
    }


def excluded(root, source: str) -> list[tuple]:
    table = pl.read_parquet(root / "storage" / "excluded" / f"{source}.parquet")
    return table.select("line", "rule", "reason").rows()


def sources_only(root) -> list[str]:
    return made(refreshed(root, nodes=["candidate_corpus|s0", "candidate_corpus|s1"]))


def test_what_is_excluded_is_not_searched_and_is_listed(tmp_path):
    make_project(tmp_path, sources=2, tasks=1, n=12, settings=SETTINGS + RULES)
    write_records(tmp_path / "tests" / "a.jsonl", [{"id": "q", "text": "Text 5 of s1!"}])
    assert sources_only(tmp_path) == ["candidate_corpus|s0", "candidate_corpus|s1"]
    found = corpora(tmp_path)
    kept = {f"text {i} of s0" for i in range(12) if i % 3}
    assert set(found["s0"]["text"]) == kept
    assert set(found["s1"]["text"]) == {f"text {i} of s1" for i in range(12) if i != 5}
    assert excluded(tmp_path, "s0") == [(i + 1, "drop.label", 'label is "l0"') for i in range(0, 12, 3)]
    assert excluded(tmp_path, "s1") == [(6, "exclude.tests", 'has the text of record "q" of the test set')]

    # A changed test set concerns all sources; where nothing else goes, the corpus is what it was.
    before = found
    append_records(tmp_path / "tests" / "a.jsonl", [{"text": "text 7 of s0"}])
    assert sources_only(tmp_path) == ["candidate_corpus|s0", "candidate_corpus|s1"]
    found = corpora(tmp_path)
    assert found["s1"].equals(before["s1"])
    assert set(found["s0"]["text"]) == kept - {"text 7 of s0"}
    assert sources_only(tmp_path) == []


def test_a_test_set_that_cannot_be_read_stops_every_source(tmp_path):
    make_project(
        tmp_path, sources=1, tasks=1, n=12, settings=SETTINGS + RULES.replace("[sources.s1]\ndrop = {}", "")
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.jsonl").write_text("no JSON\n")
    steps = refreshed(tmp_path, nodes=["candidate_corpus|s0"])
    assert [step.outcome for step in steps] == ["failed"]
    assert "[exclude.tests]: 1 of 1 test records cannot be used" in steps[0].reasons[0]
    (tmp_path / "tests" / "a.jsonl").unlink()
    problems = observe(Project.load(tmp_path)).scan.all_problems()
    assert any("[exclude.tests] path: no file" in problem for problem in problems)


def test_keep_with_a_field_that_nobody_has_is_a_mistake(tmp_path):
    make_project(tmp_path, sources=1, tasks=1, n=12)
    made(refreshed(tmp_path, nodes=["candidate_corpus|s0"]))
    before, settings = corpora(tmp_path), tmp_path / "tsds.toml"
    settings.write_text(settings.read_text() + '[sources.s0]\nkeep = {lable = ["l1"]}\n')
    refreshed(tmp_path, nodes=["candidate_corpus|s0"])
    problem = read_artifact(tmp_path / "storage" / "candidate_corpus" / "s0.parquet").header.problem
    assert problem.startswith(
        'source "s0": none of its 12 records has anything in the field "lable" that keep names'
    )
    assert problem.endswith("(its last good content, 12 records, stays in use)")
    assert corpora(tmp_path)["s0"].equals(before["s0"])
    assert len(excluded(tmp_path, "s0")) == 12
