"""Adapters that are trained here, and the vectors that their gradients give."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_models import tiny_causal_model
from tsds_pipeline.encoders import both_fingerprints, make_encoder
from tsds_pipeline.encoders.adapters import load_adapters
from tsds_pipeline.encoders.causal_model import find_causal_model, load_causal_model
from tsds_pipeline.encoders.checkpoints import MOMENTS, TRAINING, read_checkpoint
from tsds_pipeline.encoders.lora_gradients import text_losses
from tsds_pipeline.encoders.random_projection import projected
from tsds_pipeline.encoders.warmup import epoch_folders, learning_rate, warm_up
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import EncoderSettings

TEXTS = [
    f"the {animal} sat {place}"
    for animal in ("cat", "dog")
    for place in ("on the mat", "there", "in it, too")
]
POOL = [f"{text}, {number} times" for number in range(6) for text in TEXTS]
DIMENSION = 256


def settings(**more) -> EncoderSettings:
    trained = {"lora_rank": 2, "lora_alpha": 8.0, "learning_rate": 0.01, "warmup_epochs": 2}
    chosen = {"kind": "gradient", "model": "tiny", "dimension": DIMENSION}
    return EncoderSettings(**(chosen | ({} if "checkpoints" in more else trained) | more))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with a model and the checkpoints of a warm-up."""
    folder = tmp_path_factory.mktemp("gradients")
    tiny_causal_model(folder / "tiny", POOL)
    warm_up(settings(), folder, POOL, folder / "warm")
    return folder


@pytest.fixture
def checkpoints(root) -> list[Path]:
    return epoch_folders(root / "warm", settings())


def alone(root: Path, checkpoint: Path, text: str, *, adam: bool) -> torch.Tensor:
    """The gradient of one text at one checkpoint, or the step that PyTorch's own Adam takes for it, as one vector."""
    model = load_causal_model(find_causal_model(settings(), root), "float32", "cpu", None, with_head=True)
    made = read_checkpoint(checkpoint)
    adapters = load_adapters(model, [made])
    parameters = {name: layer.weight for name, layer in adapters.activate(0).items()}
    text_losses(adapters.network, *model.padded(model.tokens([text], ended=True))).sum().backward()
    if not adam:
        return torch.cat([one.grad.flatten() for one in parameters.values()])
    rate = 1e-3
    optimizer = torch.optim.AdamW(parameters.values(), lr=rate, weight_decay=0.0)
    for name, (first, second) in made.moments("cpu").items():
        state = {
            "step": torch.tensor(float(made.step)),
            "exp_avg": first.clone(),
            "exp_avg_sq": second.clone(),
        }
        optimizer.state[parameters[name]] = state
    before = [one.detach().clone() for one in parameters.values()]
    optimizer.step()
    moved = [
        (old - new.detach()).flatten() / rate for old, new in zip(before, parameters.values(), strict=True)
    ]
    return torch.cat(moved)


@pytest.mark.parametrize("role", ["candidate", "query"])
def test_a_vector_is_what_its_formula_says(root, checkpoints, role):
    found = make_encoder(settings(), root, role, checkpoints).encode(TEXTS)
    assert found.shape == (len(TEXTS), 2 * DIMENSION)
    rates = [read_checkpoint(one).learning_rate for one in checkpoints]
    for row, text in enumerate(TEXTS[:3]):
        parts = []
        for place, (checkpoint, rate) in enumerate(zip(checkpoints, rates, strict=True)):
            gradient = alone(root, checkpoint, text, adam=role == "candidate")
            short = projected(gradient[None], 0, DIMENSION, f"0 {place}")[0]
            parts.append(rate * short / short.norm())
        expected = torch.cat(parts)
        np.testing.assert_allclose(found[row], expected / expected.norm(), atol=2e-4)


def test_texts_beside_it_and_batches_change_nothing_but_rounding(root, checkpoints):
    found = make_encoder(settings(), root, "query", checkpoints).encode(TEXTS)
    single = make_encoder(settings(batch_size=1), root, "query", checkpoints)
    np.testing.assert_allclose(single.encode(TEXTS[::-1])[::-1], found, atol=1e-5)


def test_the_projection_keeps_cosines(root, checkpoints):
    found = make_encoder(settings(), root, "query", checkpoints[:1]).encode(TEXTS)
    exact = torch.stack([alone(root, checkpoints[0], text, adam=False) for text in TEXTS]).numpy()
    exact /= np.linalg.norm(exact, axis=1)[:, None]
    cosines = exact @ exact.T
    deviation = np.sqrt((1 + cosines**2) / DIMENSION)
    assert (np.abs(found @ found.T - cosines) < 4 * deviation).all()
    assert cosines.min() < 0.9, "there is something to keep"


def test_fingerprints(root, checkpoints, tmp_path):
    def fingerprint(role="candidate", folders=checkpoints, **more) -> str:
        return make_encoder(settings(**more), root, role, folders).fingerprint

    shutil.copytree(checkpoints[0], tmp_path / "plain")
    (tmp_path / "plain" / MOMENTS).unlink()
    prints = [
        fingerprint(),
        fingerprint("query"),
        fingerprint(folders=checkpoints[:1]),
        fingerprint(folders=[tmp_path / "plain"]),
        fingerprint(dimension=64),
        fingerprint(seed=1),
        fingerprint(max_tokens=9),
        fingerprint(normalize=False),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(batch_size=1) == prints[0]
    assert fingerprint("query", folders=[tmp_path / "plain"]) == prints[3], "without moments both are plain"
    shutil.copytree(checkpoints[0], tmp_path / "moved")
    assert fingerprint(folders=[tmp_path / "moved"]) == prints[2]
    said = json.loads(both_fingerprints(settings(), root))
    assert (said["gradient"], said["query_gradient"]) == ("adam", "plain")
    assert said["warmup"]["epochs"] == 2


def test_a_text_that_teaches_nothing_has_no_direction(root, checkpoints, tmp_path):
    # Without a mark of the end, a single token is all there is, and nothing is to be predicted.
    shutil.copytree(root / "tiny", tmp_path / "tiny")
    config = tmp_path / "tiny" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token": None}))
    for batch_size in (1, 4):
        encoder = make_encoder(settings(batch_size=batch_size), tmp_path, "candidate", checkpoints)
        found = encoder.encode(["a", TEXTS[0]])
        assert not found[0].any()
        assert abs(np.linalg.norm(found[1]) - 1) < 1e-6


def test_training_is_the_same_again_and_goes_on_after_it_was_killed(root, checkpoints, tmp_path):
    def killed(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warm_up(settings(), root, POOL, tmp_path / "warm", killed)
    assert [one.name for one in (tmp_path / "warm").iterdir()] == ["epoch-1"]
    calls = []
    epochs = warm_up(settings(), root, POOL, tmp_path / "warm", lambda *call: calls.append(call))
    assert calls[0][0] > len(POOL), "the first epoch is not trained again"
    for ours, before in zip(epoch_folders(tmp_path / "warm", settings()), checkpoints, strict=True):
        for file in before.iterdir():
            assert (ours / file.name).read_bytes() == file.read_bytes(), file
    assert epochs[1].loss < epochs[0].loss
    assert [one.step for one in epochs] == [2, 4]
    warm_up(settings(), root, POOL, tmp_path / "warm", lambda *_: pytest.fail("all is there"))
    other = warm_up(settings(seed=1), root, POOL, tmp_path / "other")
    assert other[0].checkpoint.identity != epochs[0].checkpoint.identity


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate(2.0, step, 100) for step in range(100)]
    np.testing.assert_allclose(rates[:3], [2 / 3, 4 / 3, 2.0])
    assert max(rates) == 2.0
    assert (np.diff(rates[2:]) < 0).all()
    assert 0 < rates[-1] < 0.03
    assert learning_rate(2.0, 0, 1) == 2.0


def test_a_batch_may_go_through_in_parts(root, checkpoints):
    # Parts of a batch add up to the same step.
    folder = root / "in parts"
    epochs = warm_up(settings(batch_size=8), root, POOL, folder)
    for ours, before in zip(epochs, checkpoints, strict=True):
        whole = read_checkpoint(before).moments("cpu")
        for name, (first, second) in ours.checkpoint.moments("cpu").items():
            torch.testing.assert_close(first, whole[name][0], rtol=1e-3, atol=1e-6)
            torch.testing.assert_close(second, whole[name][1], rtol=1e-3, atol=1e-9)


def test_checkpoints_of_the_user(root, checkpoints, tmp_path):
    ours = make_encoder(settings(), root, "candidate", checkpoints).encode(TEXTS)
    named = settings(checkpoints=[str(one.relative_to(root)) for one in checkpoints])
    np.testing.assert_array_equal(make_encoder(named, root, "candidate").encode(TEXTS), ours)
    # As a trainer leaves them: no moments, the learning rates in its log.
    for number, one in enumerate(checkpoints):
        folder = shutil.copytree(one, tmp_path / f"checkpoint-{number}")
        (folder / MOMENTS).unlink()
        (folder / TRAINING).unlink()
        logged = [{"epoch": 1 + number - 0.5 * back, "learning_rate": 0.1 * (2 + back)} for back in (2, 1, 0)]
        (folder / "trainer_state.json").write_text(json.dumps({"epoch": 1.0 + number, "log_history": logged}))
        assert read_checkpoint(folder).learning_rate == pytest.approx(0.25), "that of the last epoch"
    theirs = settings(checkpoints=[str(tmp_path / f"checkpoint-{number}") for number in (0, 1)])
    plain = make_encoder(theirs, root, "candidate").encode(TEXTS)
    np.testing.assert_array_equal(make_encoder(theirs, root, "query").encode(TEXTS), plain)
    first = make_encoder(settings(), root, "query", checkpoints[:1]).encode(TEXTS)
    np.testing.assert_allclose(plain[:, :DIMENSION], first / 2**0.5, atol=1e-6)


def test_checkpoints_that_do_not_do(root, checkpoints, tmp_path):
    def error(*folders: Path) -> str:
        encoder = make_encoder(settings(checkpoints=list(map(str, folders))), root, "query")
        with pytest.raises(TsdsError) as caught:
            encoder.encode(TEXTS)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def copied(name: str) -> Path:
        return shutil.copytree(checkpoints[0], tmp_path / name)

    assert error(tmp_path / "none").endswith("name folders that PEFT wrote, with safetensors weights")
    (silent := copied("silent") / TRAINING).unlink()
    assert "nothing says the learning rate of" in error(silent.parent, checkpoints[0])
    wrong = copied("wrong")
    (wrong / TRAINING).write_text('{"learning_rate": 0}')
    assert error(wrong).startswith(f"{wrong / TRAINING}: says no learning rate above 0")
    broken = copied("broken") / "adapter_config.json"
    broken.write_text("[]")
    assert error(broken.parent) == f"[encoder] checkpoints: {broken} is not a configuration of PEFT"
    cut = copied("cut") / "adapter_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:100])
    assert "cannot be loaded as an adapter of this model" in error(cut.parent)
    config = json.loads((checkpoints[0] / "adapter_config.json").read_text())
    for name, change in (("larger", {"r": 3}), ("elsewhere", {"target_modules": ["up_proj"]})):
        other = copied(name) / "adapter_config.json"
        other.write_text(json.dumps({**config, **change}))
        assert f"{other.parent} " in error(other.parent)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"lora_targets": ["c_attn"]},
            r'no layer "c_attn": its linear layers are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj$',
        ),
        ({"max_tokens": 1}, "max_tokens = 1: this model takes from 2 to 256"),
    ],
)
def test_training_that_cannot_be(root, tmp_path, more, message):
    with pytest.raises(TsdsError, match=message):
        warm_up(settings(**more), root, POOL, tmp_path / "warm")
    assert not (tmp_path / "warm").exists()


def test_without_peft(root, checkpoints, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        TsdsError, match=r'kind = "gradient" needs a package .*pip install "tsds-pipeline\[gradients\]"'
    ):
        warm_up(settings(), root, POOL, tmp_path / "warm")


def test_before_the_warm_up_nothing_is_encoded(root):
    encoder = make_encoder(settings(), root)
    assert "warmup" in encoder.fingerprint
    with pytest.raises(TsdsError, match="the adapters for gradients are not trained yet: run `tsds refresh`"):
        encoder.encode(TEXTS)
    assert make_encoder(settings(), root).encode([]).shape == (0, 0)
