"""Texts a second of every dtype and backend that is there, and what each changes in the neighbours of a text.

    python benchmarks/encoding.py [DATA] [--texts 2000] [--rounds 8]

DATA has sources/*, as many texts of each are taken; without it, those of the built-in demo corpus. In each round
all variants encode the same part of them, in turn and in alternating order; the figures are medians over the rounds.
Loading and converting models is not counted. What a variant loses is against float32:

    overlap    share of a text's ten nearest among the sample that are so there, too
    Spearman   correlation of all pairwise similarities (of 1000 texts)
    distance   by how much the distance of a text to the nearest changes, on average; [pool] kernel_radius is 0.1
    alone      largest distance between what 50 texts get beside others and what each gets alone

Prints a Markdown table.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from tsds_pipeline.corpus.demo import write_demo
from tsds_pipeline.corpus.sources import read_source
from tsds_pipeline.encoders import Encoder, make_encoder
from tsds_pipeline.settings import CorpusSettings, EncoderSettings

NEAREST, PAIRED, ALONE = 10, 1000, 50


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        texts = sample(options.data or demo(root / "demo"), options.texts)
        encoders = {name: make_encoder(one, root) for name, one in variants().items()}
        seconds, vectors = encode(encoders, texts, min(options.rounds, len(texts)))
        alone = {name: moved_alone(encoders[name], texts, vectors[name]) for name in encoders}
    print(f"{len(texts):,} texts of {sum(map(len, texts)) / len(texts):.0f} characters; {machine()}\n")
    print_table(seconds, vectors, alone)


def variants() -> dict[str, EncoderSettings]:
    """The first one is what the others are compared with."""
    found = {name: EncoderSettings(dtype=name) for name in ("float32", "bfloat16")}
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
        found["onnx"] = EncoderSettings(backend="onnx")
    return found


def demo(root: Path) -> Path:
    write_demo(root)
    return root


def sample(data: Path, number: int) -> list[str]:
    """As many texts of each source, in an order that mixes them. A source's are sorted by a hash: the first are any."""
    paths = sorted((data / "sources").iterdir())
    each = -(-number // len(paths))
    read = {"template": None, "max_chars": CorpusSettings().max_chars, "vector_field": None}
    found = [read_source([path], **read).corpus.select("content_id", "text").head(each) for path in paths]
    mixed = pl.concat(found).unique("content_id").sort("content_id")
    return mixed["text"].to_list()[:number]


def encode(
    encoders: dict[str, Encoder], texts: list[str], rounds: int
) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Seconds a text in each round, and all vectors, of each variant."""
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in encoders}
    for number in range(rounds):
        part = texts[len(texts) * number // rounds : len(texts) * (number + 1) // rounds]
        for name in list(encoders)[:: 1 if number % 2 == 0 else -1]:
            encoders[name].encode(part[:8])  # loads the model
            started = time.perf_counter()
            parts[name].append(encoders[name].encode(part))
            seconds[name].append((time.perf_counter() - started) / len(part))
    return seconds, {name: np.concatenate(found) for name, found in parts.items()}


def moved_alone(encoder: Encoder, texts: list[str], vectors: np.ndarray) -> float:
    alone = np.concatenate([encoder.encode([text]) for text in texts[:ALONE]])
    return float(np.linalg.norm(alone - vectors[:ALONE], axis=1).max())


def print_table(
    seconds: dict[str, list[float]], vectors: dict[str, np.ndarray], alone: dict[str, float]
) -> None:
    first = next(iter(seconds))
    near, similar = neighbors(vectors[first]), similarities(vectors[first])
    print("| variant | texts/s | times float32 | overlap | Spearman | distance | alone |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, found in vectors.items():
        faster = statistics.median(
            one / other for one, other in zip(seconds[first], seconds[name], strict=True)
        )
        pairs = zip(near, neighbors(found), strict=True)
        overlap = np.mean([len(set(one) & set(other)) / len(one) for one, other in pairs])
        spearman = spearmanr(similar, similarities(found)).statistic
        changed = np.abs(distances(found, near[:, 0]) - distances(vectors[first], near[:, 0])).mean()
        print(
            f"| {name} | {1 / statistics.median(seconds[name]):.0f} | {faster:.2f} | {overlap:.3f} | "
            f"{spearman:.4f} | {changed:.1g} | {alone[name]:.1g} |"
        )


def neighbors(vectors: np.ndarray) -> np.ndarray:
    """The nearest of each among the others, (n, 10)."""
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1)[:, : min(NEAREST, len(vectors) - 1)]


def distances(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors - vectors[others], axis=1)


def similarities(vectors: np.ndarray) -> np.ndarray:
    some = vectors[:PAIRED]
    return (some @ some.T)[np.triu_indices(len(some), 1)]


def machine() -> str:
    import torch

    flags = Path("/proc/cpuinfo")
    words = set(flags.read_text().split()) if flags.exists() else set()
    has = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in words]
    return (
        f"{os.cpu_count()} processors ({platform.machine()} {' '.join(has)}), {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
