"""The README's code and commands run as they stand, in one folder, from top to bottom."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.projects import clustered

pytestmark = pytest.mark.readme
ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ELSEWHERE = {
    "make demo": "its recipe is `tsds demo`, see tests/cli/test_cli_demo.py",
    "tsds dev": "runs until it is stopped, see tests/cli/test_cli_dev.py",
}
QUESTIONS = [
    "How do I reset my password?",
    "My card has not arrived yet.",
    "Can I change my delivery address?",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What a reader has: candidates and queries, as records and as vectors."""
    root = tmp_path_factory.mktemp("reader")
    (root / "candidates").mkdir()
    rows = [
        {"prompt": f"{text} It is the {n}th time.", "completion": "We will."}
        for n in range(350)
        for text in QUESTIONS
    ]
    (root / "candidates" / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "queries.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in QUESTIONS))
    np.save(root / "candidates.npy", clustered(2000, seed=1))
    np.save(root / "queries.npy", clustered(20, seed=2))
    return root


@pytest.fixture(scope="module")
def commands_run(folder) -> Path:
    """The folder after all commands."""
    bin_folder = str(Path(sys.executable).parent)
    here, env = folder, {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    run = []
    for line in "".join(blocks("sh")).splitlines():
        if line in ELSEWHERE:
            continue
        if line.startswith("cd "):
            here = here / line.removeprefix("cd ")
            continue
        done = subprocess.run(
            ["bash", "-c", line], cwd=here, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stderr)
        run.append(line)
    assert {"tsds select", "tsds init", "tsds refresh", "tsds show", "tsds status"} <= {
        " ".join(line.split()[:2]) for line in run
    }
    return folder


def test_the_commands(commands_run):
    assert np.load(commands_run / "chosen.npy").size == 200
    exported = (
        (commands_run / "my-project" / "exports" / "support" / "epoch-0.jsonl").read_text().splitlines()
    )
    assert len(exported) == 1000


def test_the_code(commands_run, monkeypatch, tmp_path):
    import datasets

    monkeypatch.chdir(commands_run)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    names: dict = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    assert names["selection"].indices.shape == (1, 200)
    assert len(names["table"]) == 1000
    assert names["examples"]["id"] == names["table"]["id"].to_list()


def test_every_local_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_what_is_run_elsewhere_is_in_the_readme():
    lines = "".join(blocks("sh")).splitlines()
    assert set(ELSEWHERE) <= set(lines)
