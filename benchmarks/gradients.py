"""Gradient features of texts a second, against one backward pass for each text and against hidden states.

    python benchmarks/gradients.py [DATA] [--texts 200] [--hidden 384] [--layers 6] [--rounds 3]

DATA as for encoding.py. The model is a Llama with random weights and the vocabulary of the packaged MiniLM, which is as
fast as a trained one. "one by one" is the loop that autograd gives by itself: a loss, a backward pass, the gradients
of the adapter's weights, projected in the same way. "overlap" is the share of the ten nearest texts that both agree on,
"causal" the mean-pooled hidden states of the same model.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from encoding import demo, encode, machine, neighbors, sample
from tsds_pipeline.encoders import make_encoder
from tsds_pipeline.encoders.adapters import load_adapters
from tsds_pipeline.encoders.causal_model import find_causal_model, load_causal_model
from tsds_pipeline.encoders.checkpoints import read_checkpoint
from tsds_pipeline.encoders.lora_gradients import text_losses
from tsds_pipeline.encoders.models import find_model
from tsds_pipeline.encoders.random_projection import projected
from tsds_pipeline.encoders.warmup import epoch_folders, warm_up
from tsds_pipeline.settings import EncoderSettings


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        texts = sample(options.data or demo(root / "demo"), options.texts)
        size = make_model(root / "model", options.hidden, options.layers)
        trained = {"lora_rank": 16, "lora_alpha": 32.0, "warmup_epochs": 1}
        settings = EncoderSettings(kind="gradient", model="model", **trained)
        started = time.perf_counter()
        warm_up(settings, root, texts, root / "warm")
        training = (time.perf_counter() - started) / len(texts)
        folders = epoch_folders(root / "warm", settings)
        ways = {
            "gradient": make_encoder(settings, root, "query", folders),
            "one by one": OneByOne(settings, root, folders[0]),
            "causal": make_encoder(EncoderSettings(kind="causal", model="model", pooling="mean"), root),
        }
        seconds, vectors = encode(ways, texts, options.rounds)
    mean = sum(map(len, texts)) / len(texts)
    print(f"{len(texts):,} texts of {mean:.0f} characters; {size / 1e6:.0f} million weights; {machine()}")
    print(f"warm-up: {1 / training:.1f} texts/s\n")
    print("| way | texts/s | times one by one | overlap |")
    print("| --- | ---: | ---: | ---: |")
    slow = seconds["one by one"]
    near = neighbors(vectors["one by one"])
    for name in ways:
        faster = statistics.median(one / other for one, other in zip(slow, seconds[name], strict=True))
        found = neighbors(vectors[name])
        same = np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(near, found, strict=True)])
        print(f"| {name} | {1 / statistics.mean(seconds[name]):.1f} | {faster:.2f} | {same:.3f} |")


def make_model(folder: Path, hidden: int, layers: int) -> int:
    """Save a Llama with random weights; how many it has."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(find_model(EncoderSettings().model, folder).folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=512,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.num_parameters()


class OneByOne:
    """Encodes with a backward pass for each text."""

    def __init__(self, settings: EncoderSettings, root: Path, folder: Path):
        found, limits = find_causal_model(settings, root), (settings.device, settings.max_tokens)
        self.model = load_causal_model(found, settings.dtype, *limits, with_head=True)
        self.adapters = load_adapters(self.model, [read_checkpoint(folder)])
        self.settings = settings

    def encode(self, texts: list[str]) -> np.ndarray:
        import torch

        rows, weights = [], [layer.weight for layer in self.adapters.activate(0).values()]
        for ids in self.model.tokens(texts, ended=True):
            loss = text_losses(self.adapters.network, *self.model.padded([ids])).sum()
            flat = torch.cat([one.flatten() for one in torch.autograd.grad(loss, weights)])
            row = projected(flat[None], 0, self.settings.dimension, f"{self.settings.seed} 0")
            rows.append((row / row.norm()).numpy())
        return np.concatenate(rows)


if __name__ == "__main__":
    main()
