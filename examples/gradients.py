"""Make a project that selects by gradients: what a text would teach a model counts, not what it says.

    pip install "tsds-pipeline[gradients]"
    python gradients.py my-project
    tsds refresh --project my-project
    tsds show arithmetic --project my-project

There are two sources, sums and sentences about animals, and a task of four sums. `tsds refresh` trains adapters of a
language model on a sample of both sources, takes the gradients of every example and selects. The model is a tiny one
with random weights, made on the spot; with --model Qwen/Qwen3-0.6B, or a folder, it is a real one.
"""

import argparse
import json
import random
from pathlib import Path

SETTINGS = """\
[encoder]
kind = "gradient"
model = "{model}"
# So little is enough for the tiny model; leave this out with a real one.
lora_rank = 4
lora_alpha = 16
learning_rate = 0.01
warmup_epochs = 2
dimension = 512

[selection]
size = 12
report = false
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a project that selects by gradients.")
    parser.add_argument("project", type=Path, help="a new folder")
    parser.add_argument("--model", help="a folder or a hub name; by default a tiny model with random weights")
    arguments = parser.parse_args()

    rng = random.Random(0)
    sums = [a_sum(*divmod(number, 10)) for number in rng.sample(range(100), 64)]
    animals = [a_sentence(rng) for _ in range(60)]
    write(arguments.project / "sources" / "sums.jsonl", sums[4:])
    write(arguments.project / "sources" / "animals.jsonl", animals)
    write(arguments.project / "tasks" / "arithmetic" / "query.jsonl", sums[:4])
    if arguments.model is None:
        make_tiny_model(arguments.project / "model", [*sums, *animals])
    (arguments.project / "tsds.toml").write_text(SETTINGS.format(model=arguments.model or "model"))


def a_sum(a: int, b: int) -> str:
    return f"what is {a} plus {b} ? {a} plus {b} is {a + b} ."


def a_sentence(rng: random.Random) -> str:
    one, other = rng.sample(["cat", "dog", "cow", "fox", "owl"], 2)
    place, time = rng.choice(["house", "barn", "forest"]), rng.choice(["night", "noon", "dawn"])
    return f"the {one} and the {other} sleep near the {place} at {time} ."


def write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def make_tiny_model(folder: Path, texts: list[str]) -> None:
    """A Llama of two layers that nobody trained, with a tokenizer of the words of ``texts``."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<end>", "<unknown>", *sorted({word for text in texts for word in text.split()})]
    of_words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unknown>"))
    of_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=of_words, eos_token="<end>", unk_token="<unknown>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
