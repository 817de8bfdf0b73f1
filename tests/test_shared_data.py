"""The main job on real sources and tasks: twenty sources, nine tasks, the packaged model."""

import gzip
import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.projects import made, refreshed
from tsds_pipeline.graph import observe
from tsds_pipeline.project import Project
from tsds_pipeline.results import load_result, load_selection

pytestmark = pytest.mark.long  # the demo and the README are the real input of `make test`
TASK = "gsm8k"
SETTINGS = """
[pool]
kernel_radius = 0.3

[tasks.nl2bash]
report = true

[selection]
alpha = 0.6
size = "auto"
report = false
"""
MARKS = ".!;,"


def copy_data(data: Path, root: Path, most: int | None) -> None:
    """A project out of the example data, with at most ``most`` records of each source."""
    (root / "sources").mkdir(parents=True)
    for path in sorted((data / "sources").glob("*.jsonl.gz")):
        with gzip.open(path, "rb") as lines:
            (root / "sources" / path.name.removesuffix(".gz")).write_bytes(b"".join(islice(lines, most)))
    for path in sorted((data / "tasks").glob("*/query.jsonl.gz")):
        (root / "tasks" / path.parent.name).mkdir(parents=True)
        shutil.copy(path, root / "tasks" / path.parent.name)
    (root / "tsds.toml").write_text(SETTINGS)


@pytest.fixture(
    scope="module",
    params=[pytest.param(40, id="40 records a source"), pytest.param(None, id="all records")],
)
def project(request, shared_data, tmp_path_factory) -> Path:
    """The example data, brought up to date once."""
    root = tmp_path_factory.mktemp("shared") / "project"
    copy_data(shared_data, root, request.param)
    observed = observe(Project.load(root))
    sources, tasks = len(observed.sources), len(observed.tasks)
    assert (sources, tasks) == (20, 9)
    assert len(made(refreshed(root))) == 4 * sources + 2 + tasks * (4 + sources) + 1
    return root


def tasks_of(root: Path) -> tuple[str, ...]:
    return observe(Project.load(root)).tasks


def test_every_row_of_the_plan_gives_its_share(project):
    for task in tasks_of(project):
        result = load_result(project, "selection_probabilities", task)
        notes, table = result.header.notes, result.frame
        assert not notes["truncated"]
        assert notes["background"] == 0
        entries = table.select(pl.col("plan").explode()).unnest("plan")
        rows = entries.group_by("query").agg(pl.col("mass").sum())
        assert sorted(rows["query"]) == list(range(notes["queries"]))
        np.testing.assert_allclose(rows["mass"].to_numpy(), 1 / notes["queries"], rtol=1e-9)
        assert table["probability"].sum() == pytest.approx(1, abs=1e-9)
        columns = table.with_columns(
            total=pl.col("plan").list.eval(pl.element().struct.field("mass")).list.sum()
        )
        np.testing.assert_allclose(columns["total"].to_numpy(), columns["probability"].to_numpy(), rtol=1e-9)


def test_the_results_say_what_they_promise(project):
    for task in tasks_of(project):
        sample = load_selection(project, task)
        size = load_result(project, "selection_probabilities", task).header.notes["auto_size"]
        assert len(sample) == size
        assert sample["content_id"].n_unique() == size
        assert {"source", "id", "epoch", "draw", "probability", "text"} <= set(sample.columns)
        probabilities = load_result(project, "selection_probabilities", task).frame
        assert {"source", "id", "probability", "density", "nearest_query", "distance"} <= set(
            probabilities.columns
        )
        assert (probabilities["density"] >= probabilities["count"]).all()
        exported = [json.loads(line) for line in (project / "exports" / task / "epoch-0.jsonl").open()]
        assert [record["tsds"]["content_id"] for record in exported] == sample["content_id"].to_list()
        manifest = json.loads((project / "exports" / task / "manifest.json").read_text())
        assert manifest["files"]["epoch-0.jsonl"]["records"] == size
        assert manifest["settings"][f"draw_settings|{task}"]["seed"] == 0
        assert f"query_files|{task}" in manifest["inputs"]


def test_the_records_are_the_original_ones(project):
    originals = {}
    for path in (project / "sources").iterdir():
        for line in path.open(encoding="utf-8"):
            record = json.loads(line)
            originals[path.stem, record["id"]] = record
    for task in tasks_of(project):
        for line in (project / "exports" / task / "epoch-0.jsonl").open(encoding="utf-8"):
            record = json.loads(line)
            said = record.pop("tsds")
            assert record == originals[said["source"], said["id"]]


def test_a_task_finds_the_sources_of_its_kind(project):
    near = {
        "banking77": {"banking77_train"},
        "gsm8k": {"gsm8k_train", "flan_cot"},
        "nl2bash": {"nl2bash"},
        "imdb_cf": {"imdb_cf_train", "movie_reviews", "sentence_polarity"},
        "chemprot": {"scibert_cls_train", "biomed_sentences"},
    }
    for task, sources in near.items():
        mass = load_result(project, "selection_probabilities", task).header.notes["mass_by_source"]
        assert sum(mass.get(source, 0) for source in sources) > 0.5, (task, mass)


def changed(root: Path, tmp_path: Path, change: Callable[[Path], None], **wanted: str) -> Path:
    """A copy of the project in ``root`` with ``change``, brought up to date."""
    copy = shutil.copytree(root, tmp_path / "changed")
    change(copy)
    made(refreshed(copy, **wanted))
    return copy


def mass_of(root: Path, texts: set[str]) -> float:
    """Probability of the candidates whose text, without what ``edited`` did, is one of ``texts``."""
    table = load_result(root, "selection_probabilities", TASK).frame
    found = [
        pl.read_parquet(
            root / "storage" / "candidate_corpus" / f"{source}.parquet", columns=["content_id", "text"]
        )
        for source in table["source"].unique()
    ]
    table = table.join(pl.concat(found).unique("content_id"), on="content_id")
    original = pl.col("text").str.strip_chars_end(f" {MARKS}")
    return table.filter(original.is_in(list(texts)))["probability"].sum()


def edited(record: dict, copy: int) -> dict:
    """``record`` with a few more marks at its end: another text, next to the same vector."""
    marks = MARKS[copy % len(MARKS)] * (1 + copy // len(MARKS))
    return {**record, "id": f"{record['id']}-copy-{copy}", "text": f"{record['text']} {marks}"}


def test_near_copies_share_the_mass_of_one(project, tmp_path):
    """Twenty edited copies of a selected text: together they keep about what it had; without densities not."""
    best = (
        load_result(project, "selection_probabilities", TASK)
        .frame.filter(source="gsm8k_train")
        .row(0, named=True)
    )
    source = project / "sources" / "gsm8k_train.jsonl"
    record = next(r for r in map(json.loads, source.open()) if r["id"] == best["id"])

    def add_copies(root: Path) -> None:
        with (root / "sources" / "gsm8k_train.jsonl").open("a") as file:
            file.writelines(json.dumps(edited(record, copy)) + "\n" for copy in range(20))

    text = {record["text"].rstrip(f" {MARKS}")}
    before = mass_of(project, text)
    copied = changed(project, tmp_path, add_copies, task=TASK)
    assert mass_of(copied, text) < 1.6 * before
    (copied / "tsds.toml").write_text(SETTINGS + 'algorithm = "knn_uniform"\n')
    made(refreshed(copied, task=TASK))
    assert mass_of(copied, text) > 4 * before


def test_the_same_seed_gives_the_same_bytes_twice(project, tmp_path):
    def forget(root: Path) -> None:
        for folder in ("selection_probabilities", "sampled_subset", "query_neighbors", "kde_densities"):
            shutil.rmtree(root / "storage" / folder)
        shutil.rmtree(root / "exports")

    again = changed(project, tmp_path, forget)
    for task in tasks_of(project):
        for name in (f"exports/{task}/epoch-0.jsonl", f"storage/sampled_subset/{task}.parquet"):
            assert (again / name).read_bytes() == (project / name).read_bytes()
