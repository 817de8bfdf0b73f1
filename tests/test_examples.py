"""The examples run as they stand, on small models and small projects."""

import json
import runpy
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.tiny_models import tiny_causal_model
from tsds_pipeline.settings import ExportSettings
from tsds_pipeline.stages.export import export_sample

ANSWER = "the answer is always the same one"


@pytest.fixture
def exported(tmp_path) -> Path:
    """The export of two epochs of questions and answers, as chats."""
    ids = [f"s0-{n}" for n in range(40)]
    sample = pl.DataFrame(
        {
            "epoch": [n // 20 for n in range(40)],
            "draw": [n % 20 for n in range(40)],
            "source": "s0",
            "id": ids,
            "text": [f"text {n} of s0\n\n{ANSWER}" for n in range(40)],
            "probability": 1 / 40,
            "content_id": ids,
            "copies": [[{"source": "s0", "id": i}] for i in ids],
            "record": [json.dumps({"prompt": f"text {n} of s0", "completion": ANSWER}) for n in range(40)],
        }
    )
    export_sample(tmp_path / "t0", sample, {"epochs": 2}, ExportSettings(layout="chat"))
    return tmp_path / "t0"


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
