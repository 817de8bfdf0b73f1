"""A causal language model of transformers and its tokenizer: loading, tokens, padding.

What is computed with it is in ``causal`` (hidden states) and ``lora_gradients``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsds_pipeline.encoders.loading import found_device, quiet, reason
from tsds_pipeline.encoders.models import Model, find_model
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import EncoderSettings

if TYPE_CHECKING:
    import torch

MOST_TOKENS = 2048
"""Where neither the settings nor the model say less, as LESS and RDS+ read."""
# A batch is cut to this many tokens: what fits into caches on a CPU, and beside the logits on an accelerator.
CPU_BATCH_TOKENS = 1024
ACCELERATOR_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class CausalModel:
    """A loaded model; texts of more than ``max_tokens`` tokens are cut at their end."""

    network: Any
    tokenizer: Any
    max_tokens: int
    device: str

    @property
    def batch_tokens(self) -> int:
        """How many tokens, with padding, a batch may have."""
        return CPU_BATCH_TOKENS if self.device.startswith("cpu") else ACCELERATOR_BATCH_TOKENS

    def tokens(self, texts: Sequence[str], *, ended: bool = False) -> list[list[int]]:
        """The token ids of each text, with the marks that its tokenizer puts around it.

        ``ended`` adds the mark of the end, where the model has one, to texts that were not cut: to say that a text is
        over is part of what a model learns from it.
        """
        encoded = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        end = self.tokenizer.eos_token_id
        if not ended or end is None:
            return encoded
        return [ids if len(ids) == self.max_tokens or ids[-1:] == [end] else [*ids, end] for ids in encoded]

    def padded(self, ids: Sequence[Sequence[int]]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """(tokens, mask), both (texts, longest) int64; padding stands at the end, where no token sees it."""
        import torch

        tokens = torch.zeros((len(ids), max(map(len, ids))), dtype=torch.int64)
        mask = torch.zeros_like(tokens)
        for row, one in enumerate(ids):
            tokens[row, : len(one)] = torch.tensor(one, dtype=torch.int64)
            mask[row, : len(one)] = 1
        return tokens.to(self.device), mask.to(self.device)


def find_causal_model(settings: EncoderSettings, root: Path) -> Model:
    """The files of ``settings.model``; ``root`` is what the path of a folder is relative to."""
    return find_model(settings.model, root, owner=None)


def load_causal_model(
    model: Model, dtype: str, device: str | None, max_tokens: int | None, *, with_head: bool
) -> CausalModel:
    """The model in ``model.folder``, with the head that predicts tokens or without it.

    Raises :class:`TsdsError` for a folder that is not that of a causal language model with safetensors weights, a
    device that is not there and ``max_tokens`` that the model does not take. No code of the folder is run.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    device = found_device(device)
    kind = AutoModelForCausalLM if with_head else AutoModel
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                str(model.folder), trust_remote_code=False, local_files_only=True
            )
            network, found = kind.from_pretrained(
                str(model.folder),
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise TsdsError(f"{_no_causal_model(model)}: {reason(error)}") from error
    # transformers would go on with random weights.
    if lacking := sorted(found["missing_keys"]):
        raise TsdsError(
            f"{_no_causal_model(model)}: {len(lacking)} of them are missing, such as {lacking[0]}"
        )
    network.requires_grad_(False).eval().to(device)
    limit = _limit(network, tokenizer)
    if max_tokens is not None and not 2 <= max_tokens <= limit:
        raise TsdsError(f"[encoder] max_tokens = {max_tokens}: this model takes from 2 to {limit}")
    return CausalModel(network, tokenizer, max_tokens or min(limit, MOST_TOKENS), device)


def _no_causal_model(model: Model) -> str:
    return f"[encoder] model: {model.folder} cannot be loaded as a causal language model with safetensors weights"


def _limit(network: Any, tokenizer: Any) -> int:
    """How many tokens the model reads; tokenizers that do not know say 10**30."""
    positions = getattr(network.config, "max_position_embeddings", None)
    return min(positions or 2**31 - 1, tokenizer.model_max_length, 2**31 - 1)
