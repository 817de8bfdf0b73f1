"""A small project of texts made of words, with vectors that an encoder for tests gives, and the encoder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.projects import write_records
from tsds_pipeline.graph import BY_SOURCE, nodes, observe
from tsds_pipeline.orchestration.refresh import Refresh
from tsds_pipeline.project import Project

DIM = 24
SETTINGS = """
[encoder]
kind = "precomputed"

[pool]
kernel_radius = 0.05

[selection]
size = 12
"""
TOPICS = 4
NEEDED = (*BY_SOURCE, "query_examples", "query_embeddings", "query_neighbors")
"""What is looked at: no samples, no reports."""


class BagOfWords:
    """The mean of a vector for each word, with a little of their order, at unit length."""

    fingerprint = "bag of words, for tests"
    encoded_at_once = 1024

    def encode(self, texts: Sequence[str], progress=None) -> np.ndarray:
        return np.array([bag_vector(text) for text in texts], dtype=np.float32)

    def advice(self, texts: int) -> str | None:
        return None


def word_vector(word: str) -> np.ndarray:
    """Words of a topic are somewhat alike."""
    return _hashed(word.partition("word")[0]) + _hashed(word)


def _hashed(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=DIM)


def bag_vector(text: str) -> np.ndarray:
    words = text.casefold().replace(".", " .").split()
    vector = sum((1 + 0.02 * place / len(words)) * word_vector(word) for place, word in enumerate(words))
    return vector / np.linalg.norm(vector)


def sentences(n: int, seed: int, topics: int = TOPICS) -> list[str]:
    """Texts of 6, 30 and 70 words, each on one of the first ``topics``."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        topic = rng.integers(topics)
        words = [f"t{topic}word{rng.integers(40)}" for _ in range((6, 30, 70)[number % 3])]
        made.append(" ".join(words))
    return made


def as_records(key: str, texts: Sequence[str]) -> list[dict]:
    return [
        {"id": f"{key}-{n}", "text": text, "embedding": bag_vector(text).astype(np.float32).tolist()}
        for n, text in enumerate(texts)
    ]


A = sentences(90, 1)
B = [*sentences(58, 2), A[1], A[2] + " t0word1"]
"""With a copy of a text of the other source, and an edit of another."""


def make_text_project(root: Path) -> None:
    """Two sources, a task and one with a single query, with neighbours and without samples."""
    write_records(root / "sources" / "a.jsonl", as_records("a", A))
    write_records(root / "sources" / "b.jsonl", as_records("b", B))
    write_records(root / "tasks" / "many" / "query.jsonl", as_records("q", sentences(9, 3, topics=1)))
    write_records(root / "tasks" / "one" / "query.jsonl", as_records("o", sentences(1, 4)))
    (root / "tsds.toml").write_text(SETTINGS)
    observed = observe(Project.load(root))
    wanted = [node for node in nodes(observed) if node.startswith(NEEDED)]
    assert not [
        step for step in Refresh(Project.load(root), nodes=wanted).steps() if step.outcome == "failed"
    ]
