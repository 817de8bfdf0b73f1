"""An encoder without a model, for tests whose point is what is encoded and what is kept."""

import hashlib
import time
from collections.abc import Sequence

import numpy as np
import polars as pl


def hash_vector(text: str) -> np.ndarray:
    """Eight numbers that only this text has, float32."""
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint32).astype(np.float32)


class HashEncoder:
    """Counts what it encodes; ``seconds`` of sleep a text make it slow enough to be killed at work."""

    encoded_at_once = 1024

    def __init__(self, fingerprint: str = "hash", seconds: float = 0.0):
        self.fingerprint, self.seconds, self.texts = fingerprint, seconds, []

    def encode(self, texts: Sequence[str], progress=None) -> np.ndarray:
        time.sleep(self.seconds * len(texts))
        self.texts += texts
        if progress:
            progress(len(texts), len(texts))
        return np.array([hash_vector(text) for text in texts])

    def advice(self, texts: int) -> str | None:
        return None

    def afresh(self) -> "HashEncoder":
        return HashEncoder(self.fingerprint, self.seconds)


def texts_of(start: int, stop: int) -> list[str]:
    return [f"text number {i}" for i in range(start, stop)]


def records_of(texts: Sequence[str], **columns) -> pl.DataFrame:
    ids = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
    return pl.DataFrame({"content_id": ids, "text": list(texts), **columns})
