"""The examples run as they stand, on small models and small projects."""

import runpy
import sys

import pytest

from tests.projects import SETTINGS, make_project, records, refreshed, write_records
from tests.projects import clustered as vectors
from tests.tiny_models import tiny_causal_model

CHATS = SETTINGS + 'epochs = 2\n[export]\nlayout = "chat"\n'
ANSWER = "the answer is always the same one"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The export of a task whose sources are questions and answers."""
    root = tmp_path_factory.mktemp("examples") / "project"
    make_project(root, 1, 1, settings=CHATS)
    rows = [
        {"id": row["id"], "prompt": row["text"], "completion": ANSWER, "embedding": row["embedding"]}
        for row in records("s0", vectors(40, 10))
    ]
    write_records(root / "sources" / "s0.jsonl", rows)
    refreshed(root)
    return root / "exports" / "t0"


def test_fine_tuning_with_trl(exported, repository, tmp_path, monkeypatch):
    pytest.importorskip("trl")
    import datasets
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    before = tiny_causal_model(tmp_path / "tiny", [ANSWER])
    arguments = {"model": before, "export": exported, "output": tmp_path / "tuned"}
    arguments |= {"max-steps": 5, "learning-rate": 0.01, "batch-size": 4}
    typed = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["trl_sft.py", *typed])
    runpy.run_path(str(repository / "examples" / "trl_sft.py"), run_name="__main__")

    chat = [{"role": "user", "content": "text 3 of s0"}, {"role": "assistant", "content": ANSWER}]

    def loss(folder) -> float:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = torch.tensor([tokenizer.apply_chat_template(chat, return_dict=False)])
        with torch.no_grad():
            return AutoModelForCausalLM.from_pretrained(folder)(ids, labels=ids).loss.item()

    assert loss(tmp_path / "tuned") < loss(before) - 0.5, "it learnt to say so"
