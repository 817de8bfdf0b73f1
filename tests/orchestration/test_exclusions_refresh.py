"""What is left out of the sources on purpose, from tsds.toml to what is stored."""

import polars as pl
import pytest

from tests.commands import tsds
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
from tsds_pipeline.results import load_selection
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
    write_records(tmp_path / "tests" / "a.jsonl", [{"text": "text 7 of s0"}])
    assert made(refreshed(tmp_path, nodes=["candidate_corpus|s0"])) == ["candidate_corpus|s0"]
    before = corpora(tmp_path)["s0"]
    (tmp_path / "tests" / "a.jsonl").write_text("")
    [step] = refreshed(tmp_path, nodes=["candidate_corpus|s0"])
    assert step.outcome == "failed"
    assert "[exclude.tests]: tests/a.jsonl: holds no test records" in step.reasons[0]
    assert corpora(tmp_path)["s0"].equals(before), "what it kept out before stays out"
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


def test_drop_with_a_field_that_nobody_has_is_told(tmp_path):
    make_project(tmp_path, sources=2, tasks=0, n=12)
    settings = tmp_path / "tsds.toml"
    plain = settings.read_text()

    def told(text: str) -> str:
        settings.write_text(plain + text)
        said = tsds("-p", tmp_path, "refresh").stderr.splitlines()
        return "\n".join(line for line in said if not line.startswith("hint: "))

    said = told('[sources.s0]\ndrop = {lable = ["l1"]}\n')
    assert (
        'warning: candidate_corpus[s0]: check known_fields: no record has anything in lable, in which "drop"'
        in said
    )
    # Of what is dropped from all sources some need not have it.
    wanted = '[corpus]\ndrop = {lable = ["l1"], label = ["l9"]}\n'
    assert told(wanted).splitlines() == [
        'warning: tsds.toml: [corpus] drop: no record has anything in "lable", so nothing is left out: correct the '
        "name, or remove it"
    ]
    append_records(
        tmp_path / "sources" / "s1.jsonl", [{"text": "another", "lable": 0, "embedding": [1.0] * 12}]
    )
    assert told(wanted) == ""


def test_a_source_of_which_nothing_is_left_is_told(tmp_path):
    make_project(tmp_path, sources=2, tasks=0, n=12)
    with (tmp_path / "tsds.toml").open("a") as file:
        file.write('[sources.s0]\nkeep = {label = ["L0"]}\n')
    (tmp_path / "sources" / "s1.jsonl").write_text("")
    said = tsds("-p", tmp_path, "refresh").stderr
    assert (
        "candidate_corpus[s0]: check has_records: there are no records: all 12 are excluded (storage/" in said
    )
    assert "candidate_corpus[s1]: check has_records: there are no records: mend its files" in said


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("exclude", '["s0"]', '["s00"]'),
        ("sources", '["s1"]', '["s1", "s00"]'),
        ("caps", "{s0 = 0.1}", "{s00 = 0.1}"),
        ("floors", "{s1 = 6}", "{s1 = 3, s00 = 2}"),
    ],
)
def test_a_setting_about_a_source_that_is_not_there_costs_no_sample(tmp_path, name, good, bad):
    make_project(tmp_path, sources=2, tasks=2, n=12, settings=SETTINGS.replace("size = 12", "size = 6"))
    with (tmp_path / "tsds.toml").open("a") as file:
        file.write(f"[tasks.t0]\nalpha = 0.1\n{name} = {good}\n")
    refreshed(tmp_path)
    before = load_selection(tmp_path, "t0")
    assert set(before["source"]) == {"s1"}
    settings = tmp_path / "tsds.toml"
    settings.write_text(settings.read_text().replace(good, bad))
    steps = {step.node: step for step in refreshed(tmp_path)}
    node = "selection_probabilities|t0" if name in ("exclude", "sources") else "sampled_subset|t0"
    assert steps[node].outcome == "failed"
    assert (
        steps[node]
        .reasons[0]
        .startswith(f'tsds.toml: [tasks.t0] {name}: "s00" is not a source (did you mean "s0"?)')
    )
    assert steps["sampled_subset|t1"].outcome == "fresh"
    assert load_selection(tmp_path, "t0").equals(before)
