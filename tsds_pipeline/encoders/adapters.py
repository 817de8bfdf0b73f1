"""LoRA adapters of PEFT on a causal language model: new ones to train, and those of checkpoints."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from tsds_pipeline.encoders.causal_model import CausalModel
from tsds_pipeline.encoders.checkpoints import ADAPTER, Checkpoint
from tsds_pipeline.encoders.loading import reason
from tsds_pipeline.encoders.lora_gradients import lora_weights
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import EncoderSettings

NEW = "new"
"""The name of an adapter that is trained here."""


class Adapters:
    """Several adapters of one model, of which one is active at a time."""

    def __init__(self, network: Any, checkpoints: Sequence[Checkpoint], device: str):
        self.network, self._checkpoints, self._device = network, checkpoints, device
        self._weights = [lora_weights(network, _name(place)) for place in range(len(checkpoints))]

    def activate(self, place: int) -> dict[str, Any]:
        """Have the model run with the checkpoint at ``place``; its layers by the names of their weights."""
        self.network.set_adapter(_name(place))
        return self._weights[place]

    @cache  # noqa: B019 - as long-lived as the model
    def moments(self, place: int) -> dict[str, tuple[Any, Any]]:
        """Adam's moments of the checkpoint at ``place``; TsdsError where they are not those of its weights."""
        found = self._checkpoints[place].moments(self._device)
        shapes = {name: layer.weight.shape for name, layer in self._weights[place].items()}
        if shapes != {name: first.shape for name, (first, _) in found.items()}:
            raise TsdsError(f"{self._checkpoints[place].folder}: optimizer.safetensors is not of its adapter")
        return found


def load_adapters(model: CausalModel, checkpoints: Sequence[Checkpoint]) -> Adapters:
    """``model`` with the adapters of ``checkpoints``. TsdsError for those that are not of this model."""
    peft, network = _peft(), model.network
    from safetensors import SafetensorError, safe_open

    for place, checkpoint in enumerate(checkpoints):
        options = {"adapter_name": _name(place), "is_trainable": True, "torch_device": model.device}
        try:
            if place:
                network.load_adapter(str(checkpoint.folder), **options)
            else:
                network = peft.PeftModel.from_pretrained(network, str(checkpoint.folder), **options)
            with safe_open(checkpoint.folder / ADAPTER, framework="pt") as file:
                stored = set(file.keys())
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
            raise TsdsError(
                f"[encoder] checkpoints: {checkpoint.folder} cannot be loaded as an adapter of this model: "
                f"{reason(error)}"
            ) from error
        # PEFT would go on with random weights.
        if differing := sorted(stored ^ set(lora_weights(network, _name(place)))):
            raise TsdsError(
                f"[encoder] checkpoints: {checkpoint.folder} is not of this model: {differing[0]} is not in both"
            )
    network.eval()
    return Adapters(network, checkpoints, model.device)


def new_adapter(model: CausalModel, settings: EncoderSettings) -> Any:
    """``model`` with a fresh adapter NEW, as a PEFT model; the same one for the same ``settings.seed``.

    Raises :class:`TsdsError` where the model has no layer of ``settings.lora_targets``.
    """
    import torch

    peft = _peft()
    layers = _linear_layers(model.network)
    lacking = [name for name in settings.lora_targets if name not in layers]
    if lacking:
        raise TsdsError(
            f'[encoder] lora_targets: the model has no layer "{lacking[0]}": its linear layers are {", ".join(layers)}'
        )
    config = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=list(settings.lora_targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        fan_in_fan_out=all(layers[name] for name in settings.lora_targets),
    )
    # PEFT draws from the global generator.
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = peft.get_peft_model(model.network, config, adapter_name=NEW)
    network.peft_config[NEW].base_model_name_or_path = settings.model
    return network


def _linear_layers(network: Any) -> dict[str, bool]:
    """The layers that an adapter can be put on, but for the head: last part of the name, and whether it is a Conv1D.

    That is GPT-2's linear layer, with its weight the other way round.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    head = network.get_output_embeddings()
    return {
        name.rpartition(".")[2]: isinstance(layer, Conv1D)
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Linear | Conv1D) and layer is not head
    }


def _name(place: int) -> str:
    return f"checkpoint{place}"


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise TsdsError(
            f'[encoder] kind = "gradient" needs a package that is not installed ({error}): '
            'pip install "tsds-pipeline[gradients]"'
        ) from None
    return peft
