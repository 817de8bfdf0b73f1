"""The evaluation runs at a size of seconds, goes on where it was stopped, and says what it measured."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evaluation_report

WORDS = [
    "red",
    "green",
    "blue",
    "card",
    "bank",
    "lost",
    "sum",
    "apples",
    "buys",
    "each",
    "day",
    "find",
    "list",
    "files",
]


def write(path: Path, number: int, labels: list[str] | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for row in range(number):
            record: dict = {"text": " ".join(rng.choice(WORDS, rng.integers(3, 9))) + f" {row}"}
            if labels:
                record["label"] = labels[row % len(labels)]
                record["text"] = f"{record['label']} {record['text']}"
            file.write(json.dumps(record) + "\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for seed, (name, labels) in enumerate(
        {"plain": None, "intents": ["lost", "day"], "others": ["x"]}.items()
    ):
        write(folder / "sources" / f"{name}.jsonl.gz", 24, labels, seed)
    for seed, (name, labels) in enumerate({"gsm8k": None, "banking": ["lost", "day"]}.items(), start=9):
        for part, number in (("query", 3), ("test", 6)):
            write(folder / "tasks" / name / f"{part}.jsonl.gz", number, labels, seed * number)
    return folder


def evaluate(repository: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    line = [sys.executable, repository / "benchmarks" / "evaluation.py", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_a_small_run(repository: Path, tmp_path: Path, data: Path):
    work, out = tmp_path / "work", tmp_path / "out"
    command = [data, "--work", work, "--out", out, "--seeds", "1", "--small"]
    done = evaluate(repository, *command)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (work / "results.jsonl").read_text().splitlines()]
    axes = [line["axis"] for line in lines]
    assert {axis: axes.count(axis) for axis in axes} == {
        "level": 3,
        "copies": 3 * 2,
        "labels": 1,
        "transformer": 1,
    }
    results = [result for line in lines for result in line.get("results", [])]
    assert all(np.isfinite(value) for one in results for value in one.values() if isinstance(value, float))
    assert {"round_robin_deduplicated", "knn_kde", "knn_kde, h = 0.1"} <= {one["method"] for one in results}
    table = (out / "evaluation.md").read_text()
    assert "| knn_kde | " in table
    assert (out / "evaluation.png").stat().st_size > 0
    # Again, after a line was lost: only that one is measured.
    (work / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    again = evaluate(repository, *command)
    assert again.stdout.split()[:2] == ["transformer", "0"]
    assert len(again.stdout.splitlines()) == 1
    assert (out / "evaluation.md").read_text() == table


def test_what_cannot_be_done_is_said(repository: Path, tmp_path: Path):
    done = evaluate(repository, tmp_path, "--work", tmp_path)
    assert done.returncode != 0
    assert "no sources/ in there" in done.stderr


def test_a_difference_below_the_spread_is_a_tie():
    found = {
        ("clean", 9, "knn_kde"): {0: 1.0, 1: 2.0, 2: 3.0},
        ("clean", 9, "worse"): {0: 1.5, 1: 2.5, 2: 3.6},
        ("clean", 9, "better"): {0: 0.5, 1: 1.5, 2: 2.4},
        ("clean", 9, "alike"): {0: 1.5, 1: 1.5, 2: 3.1},
    }
    marks = [
        evaluation_report.compared(found, ("clean", 9), name) for name in ("worse", "better", "alike", "none")
    ]
    assert marks == ["+", "−", "=", "?"]
    names = ["knn_kde", "worse", "better", "alike"]
    assert evaluation_report.leaders(found, ("clean", 9), names) == ["better"]
