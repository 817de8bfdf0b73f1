"""Warm-up training of LoRA adapters: a short run over a sample of the pool, whose checkpoints gradients are taken at.

As in LESS: AdamW without weight decay, batches of 32, gradients clipped to length 1, a learning rate that rises over
the first 3% of the steps and then falls to 0 linearly, a checkpoint each epoch. Unlike there, nothing is dropped out,
and the loss of a batch is the mean over its texts of the loss whose gradients are taken later (``lora_gradients``).

The same settings and texts give the same adapters on the same machine, also where training was killed and went on
from the last complete epoch.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tsds_pipeline.encoders.adapters import NEW, new_adapter
from tsds_pipeline.encoders.batches import batches, by_length
from tsds_pipeline.encoders.causal_model import CausalModel, find_causal_model, load_causal_model
from tsds_pipeline.encoders.checkpoints import (
    ADAPTER,
    Checkpoint,
    is_complete,
    read_checkpoint,
    write_checkpoint,
)
from tsds_pipeline.encoders.gradient import BETAS, EPSILON, MOST_BATCH_TOKENS
from tsds_pipeline.encoders.lora_gradients import lora_weights, text_losses
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.progress import Progress
from tsds_pipeline.settings import EncoderSettings

BATCH = 32
RISING = 0.03
LONGEST_GRADIENT = 1.0
FOLDER = "gradient_warmups"
"""Its place in a project's storage/."""


class Epoch(NamedTuple):
    """One epoch of training and the checkpoint that it ended with."""

    checkpoint: Checkpoint
    loss: float
    """Mean loss of the texts, each before the step that it took part in."""
    step: int


def epoch_folders(folder: Path, settings: EncoderSettings) -> list[Path]:
    """Where the checkpoints of a warm-up in ``folder`` are."""
    return [folder / f"epoch-{number}" for number in range(1, settings.warmup_epochs + 1)]


def warm_up(
    settings: EncoderSettings,
    root: Path,
    texts: Sequence[str],
    folder: Path,
    progress: Progress | None = None,
) -> list[Epoch]:
    """Train adapters on ``texts`` and leave a checkpoint for each epoch in ``folder``, where complete ones are kept.

    ``folder`` is to be another one for other settings or texts; ``root`` is what the path of a model is relative to.
    ``progress`` counts texts, over all epochs. Raises :class:`TsdsError` where no text has two tokens.
    """
    folders = epoch_folders(folder, settings)
    done = next((n for n, one in enumerate(folders) if not is_complete(one)), len(folders))
    if done < len(folders):
        _train(settings, root, texts, folders, done, progress)
    return [_epoch(one) for one in folders]


def _epoch(folder: Path) -> Epoch:
    checkpoint = read_checkpoint(folder)
    training = checkpoint.training
    return Epoch(checkpoint, training["loss"], training["step"])


def _train(
    settings: EncoderSettings,
    root: Path,
    texts: Sequence[str],
    folders: Sequence[Path],
    done: int,
    progress: Progress | None,
) -> None:
    """Train the epochs from ``done`` on."""
    import torch

    model = load_causal_model(
        find_causal_model(settings, root),
        settings.dtype,
        settings.device,
        settings.max_tokens,
        with_head=True,
    )
    ids = [one for one in model.tokens(texts, ended=True) if len(one) > 1]
    if not ids:
        raise TsdsError("there is nothing to train adapters on: no text has two tokens")
    network = new_adapter(model, settings)
    layers = lora_weights(network, NEW)
    parameters = {name: layer.weight for name, layer in layers.items()}
    optimizer = torch.optim.AdamW(parameters.values(), betas=BETAS, eps=EPSILON, weight_decay=0.0)
    if done:
        _restore(folders[done - 1], parameters, optimizer, model.device)
    network.eval()  # nothing is dropped out
    steps = -(-len(ids) // BATCH)
    for epoch in range(done, len(folders)):
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(ids))
        total, rates = 0.0, []
        for number in range(steps):
            rate = learning_rate(settings.learning_rate, epoch * steps + number, len(folders) * steps)
            rates.append(rate)
            batch = [ids[row] for row in order[number * BATCH : (number + 1) * BATCH]]
            total += _step(network, model, batch, settings.batch_size, parameters, optimizer, rate)
            if progress:
                progress(epoch * len(ids) + min((number + 1) * BATCH, len(ids)), len(folders) * len(ids))
        training = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * steps,
            "learning_rate": float(np.mean(rates)),
            "loss": total / len(ids),
        }
        _save(folders[epoch], network.peft_config[NEW], parameters, optimizer, training)


def _step(
    network: Any,
    model: CausalModel,
    batch: Sequence[Sequence[int]],
    size: int,
    parameters: dict[str, Any],
    optimizer: Any,
    rate: float,
) -> float:
    """One step of the optimizer; the sum of the losses of ``batch``, which goes through in parts that fit."""
    import torch

    lengths, total = [len(one) for one in batch], 0.0
    order = by_length([str(one) for one in batch], lengths)
    for rows in batches(order, lengths, size, min(model.batch_tokens, MOST_BATCH_TOKENS)):
        losses = text_losses(network, *model.padded([batch[row] for row in rows]))
        (losses.sum() / len(batch)).backward()
        total += float(losses.detach().sum())
    torch.nn.utils.clip_grad_norm_(parameters.values(), LONGEST_GRADIENT)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return total


def learning_rate(highest: float, step: int, steps: int) -> float:
    """Of step number ``step`` (from 0) of ``steps``: rising to ``highest`` over RISING of them, then falling to 0."""
    rising = int(np.ceil(RISING * steps))
    if step < rising:
        return highest * (step + 1) / rising
    return highest * (steps - step) / (steps - rising + 1)


def _save(
    folder: Path, config: Any, parameters: dict[str, Any], optimizer: Any, training: dict[str, Any]
) -> None:
    state = {name: optimizer.state[parameter] for name, parameter in parameters.items()}
    moments = {name: (one["exp_avg"], one["exp_avg_sq"]) for name, one in state.items()}
    _written_whole(folder, lambda path: write_checkpoint(path, config, parameters, moments, training))


def _restore(folder: Path, parameters: dict[str, Any], optimizer: Any, device: str) -> None:
    """Put weights and moments of the checkpoint in ``folder`` into ``parameters`` and ``optimizer``."""
    import torch
    from safetensors.torch import load_file

    checkpoint, weights = read_checkpoint(folder), load_file(folder / ADAPTER, device=device)
    moments = checkpoint.moments(device)
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(weights[name])
        first, second = moments[name]
        step = torch.tensor(float(checkpoint.step))
        optimizer.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}


def _written_whole(folder: Path, writer: Callable[[Path], None]) -> None:
    """Let ``writer`` fill a folder beside ``folder``, then rename it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".tmp", dir=folder.parent))
    try:
        writer(temporary)
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)  # what is there is not complete
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
