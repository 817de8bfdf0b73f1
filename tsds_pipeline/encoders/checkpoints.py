"""LoRA checkpoints on disk: the adapter as PEFT stores it and, where they are known, Adam's moments beside it.

    adapter_config.json, adapter_model.safetensors     as PEFT writes them
    optimizer.safetensors                              "exp_avg.WEIGHT" and "exp_avg_sq.WEIGHT" for each weight
    training.json                                      "learning_rate" (mean of the epoch) and "step" (steps so far)

The warm-up here (``warmup``) writes all of them. What trainers of transformers write lacks the last two: its optimizer
state is a pickle, which is never read; the learning rate is found in its trainer_state.json.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsds_pipeline.encoders.models import file_hash
from tsds_pipeline.errors import TsdsError

ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MOMENTS, TRAINING = "optimizer.safetensors", "training.json"
_FIRST, _SECOND = "exp_avg.", "exp_avg_sq."


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint folder; see the module."""

    folder: Path
    identity: str
    """Another one for other weights, moments, configuration or learning rate; the same wherever the folder is."""
    learning_rate: float | None
    """The mean learning rate of the epoch that ended with this checkpoint; None where nobody says."""

    @property
    def has_moments(self) -> bool:
        return (self.folder / MOMENTS).is_file()

    @property
    def training(self) -> dict[str, Any]:
        """What training.json says."""
        return json.loads((self.folder / TRAINING).read_text("utf-8"))

    @property
    def step(self) -> int:
        """How many optimizer steps led to the moments."""
        return int(self.training["step"])

    def moments(self, device: str) -> dict[str, tuple[Any, Any]]:
        """Adam's first and second moment of each weight, by its name, on ``device``."""
        from safetensors.torch import load_file

        tensors = load_file(self.folder / MOMENTS, device=device)
        names = [name.removeprefix(_FIRST) for name in tensors if name.startswith(_FIRST)]
        return {name: (tensors[_FIRST + name], tensors[_SECOND + name]) for name in names}


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` is there with all files of a checkpoint."""
    return all((folder / name).is_file() for name in (CONFIG, ADAPTER, MOMENTS, TRAINING))


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in ``folder``; :class:`TsdsError` where there is none, or not all of it can be read."""
    for name in (CONFIG, ADAPTER):
        if not (folder / name).is_file():
            raise TsdsError(
                f"[encoder] checkpoints: {folder} has no {name}: name folders that PEFT wrote, with safetensors weights"
            )
    rate = _learning_rate(folder)
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        config.pop("base_model_name_or_path", None)
    except (ValueError, AttributeError, TypeError):
        raise TsdsError(f"[encoder] checkpoints: {folder / CONFIG} is not a configuration of PEFT") from None
    parts = [json.dumps([config, rate], sort_keys=True)]
    parts += [file_hash(path) for path in (folder / ADAPTER, folder / MOMENTS) if path.is_file()]
    return Checkpoint(folder, f"sha256:{hashlib.sha256(' '.join(parts).encode()).hexdigest()}", rate)


def _learning_rate(folder: Path) -> float | None:
    for name, read in ((TRAINING, lambda said: said["learning_rate"]), ("trainer_state.json", _logged)):
        if (path := folder / name).is_file():
            try:
                rate = float(read(json.loads(path.read_text("utf-8"))))
                if 0 < rate < float("inf"):
                    return rate
            except (ValueError, KeyError, TypeError, ZeroDivisionError):
                pass
            raise TsdsError(f"{path}: says no learning rate above 0: correct it, or leave the checkpoint out")
    return None


def _logged(state: Mapping[str, Any]) -> float:
    """The mean of the learning rates that a trainer logged in its last epoch."""
    logged = [(one["epoch"], one["learning_rate"]) for one in state["log_history"] if "learning_rate" in one]
    last = [rate for epoch, rate in logged if epoch > state["epoch"] - 1]
    return sum(last) / len(last)


def checkpoint_weights(checkpoints: Sequence[Checkpoint]) -> list[float]:
    """What each counts for: its learning rate, divided by the sum of all. Of one, nothing needs to be known."""
    if len(checkpoints) == 1:
        return [1.0]
    rates = [one.learning_rate for one in checkpoints]
    for one, rate in zip(checkpoints, rates, strict=True):
        if rate is None:
            raise TsdsError(
                f"[encoder] checkpoints: nothing says the learning rate of {one.folder}: put a file {TRAINING} in it, "
                'with {"learning_rate": 2e-05}, or the trainer_state.json of its trainer'
            )
    return [rate / sum(rates) for rate in rates]


def write_checkpoint(
    folder: Path,
    config: Any,
    weights: Mapping[str, Any],
    moments: Mapping[str, tuple[Any, Any]],
    training: Mapping[str, Any],
) -> None:
    """Write into ``folder``, which is there, a checkpoint with all of its files."""
    from safetensors.torch import save_file

    config.save_pretrained(str(folder))
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / ADAPTER
    )
    tensors = {_FIRST + name: first for name, (first, _) in moments.items()}
    tensors |= {_SECOND + name: second for name, (_, second) in moments.items()}
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / MOMENTS
    )
    (folder / TRAINING).write_text(json.dumps(training, indent=1) + "\n", "utf-8")
