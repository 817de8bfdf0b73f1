"""The gradients of a batch are those of its texts one by one."""

import pytest
import torch

from tsds_pipeline.encoders.adapters import NEW, new_adapter
from tsds_pipeline.encoders.causal_model import CausalModel
from tsds_pipeline.encoders.lora_gradients import lora_weights, per_text_gradients, text_losses
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import EncoderSettings

LENGTHS = (7, 2, 5, 1, 7)


def network(kind: str) -> torch.nn.Module:
    """A model of two layers in float64 with an adapter that no longer is at its start."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=20,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=16,
        )
        base, targets = LlamaForCausalLM(config), ("q_proj", "v_proj", "o_proj", "up_proj")
    else:
        base = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
            )
        )
        targets = ("c_attn", "c_proj")
    base.requires_grad_(False).eval()
    settings = EncoderSettings(
        kind="gradient", model="m", lora_rank=3, lora_alpha=6.0, lora_targets=list(targets)
    )
    made = new_adapter(CausalModel(base, None, 16, "cpu"), settings).double().eval()
    for layer in lora_weights(made, NEW).values():
        torch.nn.init.normal_(layer.weight, std=0.3)
    return made


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of LENGTHS; what stands in the padding must not matter."""
    torch.manual_seed(1)
    tokens = torch.randint(20, (len(LENGTHS), max(LENGTHS)))
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return tokens, mask


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_they_are_those_that_autograd_finds_for_each_text_alone(kind):
    made = network(kind)
    layers, (tokens, mask) = lora_weights(made, NEW), padded()
    assert {layer.weight for layer in layers.values()} == {p for p in made.parameters() if p.requires_grad}
    found = dict(per_text_gradients(made, layers, tokens, mask))
    losses = text_losses(made, tokens, mask)
    for row, length in enumerate(LENGTHS):
        if length < 2:
            assert losses[row] == 0
            assert all((of_weight[row] == 0).all() for of_weight in found.values())
            continue
        alone = tokens[row : row + 1, :length]
        output = made(alone, labels=alone)
        torch.testing.assert_close(losses[row].float(), output.loss)  # the library's own, float32
        scores = torch.log_softmax(output.logits[0, :-1], dim=1)
        loss = -scores[range(length - 1), alone[0, 1:]].mean()
        expected = torch.autograd.grad(loss, [layer.weight for layer in layers.values()])
        for name, one in zip(layers, expected, strict=True):
            torch.testing.assert_close(found[name][row], one, rtol=1e-9, atol=1e-12)
            # The first of two tokens attends to itself alone: no query or key matters.
            assert length == 2 or one.abs().max() > 1e-6, name


def test_no_gradients_stay_behind():
    made = network("llama")
    layers = lora_weights(made, NEW)
    list(per_text_gradients(made, layers, *padded()))
    assert all(p.grad is None for p in made.parameters())
    assert not any(layer._forward_hooks for layer in layers.values())


def test_a_layer_that_is_called_twice():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.layer = torch.nn.Embedding(20, 20), torch.nn.Linear(20, 20, bias=False)

        def forward(self, input_ids, attention_mask, use_cache):
            class Output:
                logits = self.layer(self.layer(self.embedding(input_ids)))

            return Output

    torch.manual_seed(0)
    made, (tokens, mask) = Twice().double(), padded()
    found = dict(per_text_gradients(made, {"layer": made.layer}, tokens, mask))["layer"]
    for row in range(len(tokens)):
        loss = text_losses(made, tokens[row : row + 1], mask[row : row + 1]).sum()
        (expected,) = torch.autograd.grad(loss, [made.layer.weight])
        torch.testing.assert_close(found[row], expected)


def test_other_adapters_are_refused():
    import peft

    config = peft.LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    dora = peft.get_peft_model(_plain(), config)
    with pytest.raises(
        TsdsError, match=r"the adapter trains .*lora_magnitude_vector.* plain LoRA on linear layers"
    ):
        lora_weights(dora, "default")


def _plain() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=8, max_position_embeddings=8, **sizes))
