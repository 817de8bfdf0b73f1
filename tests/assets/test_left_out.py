"""What a project leaves out on purpose, from its settings to its sample."""

from pathlib import Path

import polars as pl
import pytest

from tests.projects import SETTINGS, clustered, made, make_project, records, refreshed, write_records
from tsds_pipeline.discovery import scan
from tsds_pipeline.graph import node_path
from tsds_pipeline.project import Project
from tsds_pipeline.storage import read_artifact


@pytest.fixture
def root(tmp_path) -> Path:
    make_project(tmp_path / "p", sources=2, tasks=1, n=30, settings=SETTINGS)
    return tmp_path / "p"


def set_up(root: Path, *more: str) -> None:
    (root / "tsds.toml").write_text("\n".join([SETTINGS, *more]))


def corpora(root: Path) -> list[str]:
    """Bring the two corpora up to date; those that were made."""
    return made(refreshed(root, nodes=["candidate_corpus|s0", "candidate_corpus|s1"]))


def corpus(root: Path, source: str) -> pl.DataFrame:
    return read_artifact(node_path(root / "storage", f"candidate_corpus|{source}")).frame


def test_columns_and_test_sets_leave_records_out_of_their_source_alone(root):
    corpora(root)
    write_records(root / "held" / "out.jsonl", [{"id": "x", "q": "Text 4 of S0!"}])
    held_back = '[exclude.mine]\npath = "held/*"\ntext = "{q}"'
    set_up(root, '[sources.s1]\nkeep = {label = ["l0", "l1"]}', held_back)
    assert len(corpora(root)) == 2
    assert "text 4 of s0" not in corpus(root, "s0")["text"].to_list()
    assert (len(corpus(root, "s0")), len(corpus(root, "s1"))) == (29, 20)
    [(file, *listed)] = pl.read_parquet(root / "storage" / "excluded" / "s0.parquet").rows()
    assert file.endswith("sources/s0.jsonl")
    reason = 'has the text of record "x" of the test set'
    assert listed == [5, "exclude.mine", reason, "text 4 of s0"]
    notes = read_artifact(node_path(root / "storage", "candidate_corpus|s1")).header.notes
    assert notes == {"records_read": 30, "quarantined": 0, "excluded": {"keep.label": 10}}
    assert corpora(root) == []
    set_up(root, '[sources.s1]\nkeep = {label = ["l0"]}', held_back)
    assert corpora(root) == ["candidate_corpus|s1"]


def test_without_its_test_set_no_source_is_read_and_the_last_content_stays(root):
    corpora(root)
    before = corpus(root, "s0")
    write_records(root / "sources" / "s0.jsonl", records("s0", clustered(35, 10)))
    set_up(root, '[exclude.mine]\npath = "held/out.jsonl"')
    steps = {step.node: step for step in refreshed(root, nodes=["candidate_corpus|s0"])}
    assert steps["candidate_corpus|s0"].outcome == "failed"
    assert "[exclude.mine]" in steps["candidate_corpus|s0"].reasons[0]
    assert corpus(root, "s0").equals(before)
    assert any("held/out.jsonl" in problem for problem in scan(Project.load(root)).all_problems())
    write_records(root / "held" / "out.jsonl", [{"text": "nothing like it"}])
    corpora(root)
    assert len(corpus(root, "s0")) == 35
