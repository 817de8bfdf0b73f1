"""What an encoder is, and the checks that every vector passes whichever encoder it comes from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import polars as pl

from tsds_pipeline.core.arrays import row_blocks, row_lengths
from tsds_pipeline.errors import UnusableVectorError
from tsds_pipeline.progress import Progress
from tsds_pipeline.settings import EncoderSettings

LONGEST_EXCERPT = 60
ENCODED_AT_ONCE = 1024
"""Texts in one call of most encoders: enough to sort by length, few enough to lose little when killed."""
Role = Literal["candidate", "query"]
"""Whose text it is: some encoders treat the two differently."""


class Encoder(Protocol):
    """Turns texts into vectors. ``fingerprint`` names everything that decides them, in readable text."""

    encoded_at_once: int
    """How many texts to give it in one call: a killed run loses the vectors of the last one."""

    @property
    def fingerprint(self) -> str: ...

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Vectors (n, dim) float32, in the order of ``texts``; none of them: (0, 0)."""
        ...

    def advice(self, texts: int) -> str | None:
        """What would encode so many ``texts`` faster, for the user; None where there is nothing to say."""
        ...

    def afresh(self) -> "Encoder":
        """The same encoder before it looked at any file, to be sent to another machine."""
        ...


class ModelEncoder:
    """What encoders with a model of their own have in common."""

    encoded_at_once = ENCODED_AT_ONCE

    def __init__(self, settings: EncoderSettings, root: Path, role: Role):
        """``root`` is what the path of a model folder is relative to."""
        self._settings, self._root, self._role = settings, root, role
        self._prefix = settings.query_prefix if role == "query" else settings.candidate_prefix

    def _fingerprint(self, model: str, **own: object) -> str:
        """``model`` identifies it; ``own`` is what else decides the vectors of this kind of encoder."""
        settings = self._settings
        prefix = {"prefix": self._prefix} if self._prefix else {}
        return as_fingerprint(
            kind=settings.kind,
            model=model,
            dtype=settings.dtype,
            max_tokens=settings.max_tokens,
            normalize=settings.normalize,
            **prefix,
            **own,
        )

    def advice(self, texts: int) -> str | None:
        """Nothing is known to be faster."""
        return None

    def afresh(self) -> Self:
        """See :class:`Encoder`."""
        return type(self)(self._settings, self._root, self._role)


def as_fingerprint(**values: object) -> str:
    """``values`` as one line of JSON, the same for the same values."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of ``vectors`` (n, dim) at length 1, float32, measured in float64.

    Rows that have no length (zeros) or no finite one stay as they are, for :func:`check_vectors` to name.
    """
    scaled = np.array(vectors, dtype=np.float32)
    for start, stop in row_blocks(len(vectors), vectors.shape[1] * 8):
        block = vectors[start:stop].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        usable = np.isfinite(norms) & (norms > 0)
        scaled[start:stop][usable] = block[usable] / norms[usable, None]
    return scaled


def check_vectors(
    vectors: np.ndarray, records: pl.DataFrame, name: str, remedy: str, longest: float = np.inf
) -> None:
    """Raise :class:`UnusableVectorError` when a row of ``vectors`` cannot be used, naming its record.

    It is not finite, all zeros, or longer than ``longest``. ``records`` has a row for each vector; ``name`` says whose
    they are, as in "source flan_cot".
    """
    for start, stop in row_blocks(len(vectors), vectors.shape[1] * 2):
        block = vectors[start:stop]
        finite, zero = np.isfinite(block).all(axis=1), ~block.any(axis=1)
        long = row_lengths(block) > longest if longest < np.inf else np.zeros(len(block), dtype=bool)
        bad = ~finite | zero | long
        if bad.any():
            row = int(np.argmax(bad))
            problem = "is all zeros" if zero[row] else "has a value that is not finite"
            if finite[row] and long[row]:
                problem = f"is longer than {longest:.2g}, too long for squared distances in float32"
            record = describe(records.row(start + row, named=True))
            raise UnusableVectorError(f"{name}: the vector of {record} {problem}: {remedy}")


def describe(record: dict[str, Any]) -> str:
    """``record "17" ("What is the boiling point of ...")``: the user's own id where there is one."""
    ids = record.get("record_ids") or [record.get("record_id") or record["content_id"]]
    text = " ".join(record["text"].split())
    if len(text) > LONGEST_EXCERPT:
        text = text[: LONGEST_EXCERPT - 3] + "..."
    return f'record "{ids[0]}" ("{text}")'
