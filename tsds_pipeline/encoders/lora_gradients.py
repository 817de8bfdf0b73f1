"""Gradients of a language model's loss with respect to LoRA adapters: one for each text of a batch, in one pass.

The loss of a text is the mean of -log p over its tokens, from the second one on. Nothing in a text alone tells a
prompt from an answer, so all tokens count, where LESS counts those of the answer.

A LoRA layer adds s B A x to a linear layer. Once the loss is the sum over the texts of a batch, of which none sees
another, the gradient of each text is there in what autograd computes anyway: with x_t and h_t = A x_t the inputs of A
and B at token t, and a_t, b_t the gradients of the loss with respect to their outputs, it is

    G_A = sum_t a_t x_t'        G_B = sum_t b_t h_t'

summed over the text's tokens, instead of over all those of the batch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tsds_pipeline.errors import TsdsError

if TYPE_CHECKING:
    import torch


def text_losses(network: Any, tokens: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """The loss of each text (texts,): mean -log p of its tokens from the second one on; 0 where there is none.

    ``tokens`` and ``mask`` (texts, tokens) are padded at the end.
    """
    import torch

    logits = network(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    counted = mask[:, 1:].to(logits.dtype)
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return (each * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def lora_weights(network: Any, adapter: str) -> dict[str, Any]:
    """The linear layers that hold the weights of ``adapter`` in the PEFT model ``network``, by name of the weight.

    A name is that of the weight in the files of PEFT. Raises :class:`TsdsError` for an adapter with other weights
    than those of plain LoRA on linear layers.
    """
    import torch

    found = {}
    for name, parameter in network.named_parameters():
        if f".{adapter}." not in name and not name.endswith(f".{adapter}"):
            continue
        path = name.removesuffix(".weight")
        layer = network.get_submodule(path) if path != name else None
        plain = ".lora_A." in name or ".lora_B." in name
        if not plain or type(layer) is not torch.nn.Linear or layer.bias is not None:
            shown = name.replace(f".{adapter}", "")
            raise TsdsError(
                f"[encoder] the adapter trains {shown} {tuple(parameter.shape)}: gradients are those of plain LoRA on "
                "linear layers; make it without embeddings, biases, modules_to_save and DoRA"
            )
        found[name.replace(f".{adapter}.", ".")] = layer
    return found


def per_text_gradients(
    network: Any, weights: Mapping[str, Any], tokens: "torch.Tensor", mask: "torch.Tensor"
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """For each of ``weights`` (see ``lora_weights``) its name and the gradients (texts, rows, columns) of each text.

    They come one after another, float32 or wider, as those of all weights together may not fit into memory.
    """
    import torch

    with _captured(weights) as calls:
        loss = text_losses(network, tokens, mask).sum()
        if idle := [name for name, of_layer in calls.items() if not of_layer]:
            raise TsdsError(
                f"[encoder] {idle[0]} is not called as a linear layer: leave it out of lora_targets"
            )
        outputs = [output for of_layer in calls.values() for _, output in of_layer]
        found = iter(torch.autograd.grad(loss, outputs))
    for name, of_layer in calls.items():
        total = None
        for taken, _ in of_layer:
            gradient = next(found)
            if gradient.ndim != 3 or len(gradient) != len(tokens):
                raise TsdsError(
                    f"[encoder] {name} takes {tuple(taken.shape)} for {len(tokens)} texts: a layer that mixes the "
                    "texts of a batch, as those of experts do, has no gradient for each: leave it out of lora_targets"
                )
            wide = torch.promote_types(gradient.dtype, torch.float32)
            own = torch.bmm(gradient.to(wide).transpose(1, 2), taken.to(wide))
            total = own if total is None else total + own
        yield name, total


@contextmanager
def _captured(weights: Mapping[str, Any]) -> Iterator[dict[str, list[tuple[Any, Any]]]]:
    """What each layer takes and gives, as pairs, while the block runs; a layer may be called more than once."""
    calls: dict[str, list[tuple[Any, Any]]] = {name: [] for name in weights}

    def keep(name: str) -> Any:
        return lambda _, inputs, output: calls[name].append((inputs[0].detach(), output))

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in weights.items()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
