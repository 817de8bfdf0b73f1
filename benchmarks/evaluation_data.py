"""The records that the evaluation runs on, and their vectors.

DATA holds sources/NAME.jsonl.gz and, for each task, tasks/NAME/query.jsonl.gz and test.jsonl.gz: one JSON object a
line, with ``text`` and perhaps ``label``. Every text is encoded once, by the packaged model, and its vector kept in the
work folder under the text's content id.
"""

import gzip
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from tsds_pipeline.corpus.text import content_id, normalized
from tsds_pipeline.encoders import embed, make_encoder
from tsds_pipeline.settings import EncoderSettings


@dataclass(frozen=True, eq=False)
class Records:
    """``texts``, normalised, and the ``labels`` they have, None where there is none; object arrays (n,)."""

    texts: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: np.ndarray) -> "Records":
        return Records(self.texts[rows], self.labels[rows])

    def some(self, most: int, *seed: int) -> "Records":
        """At most so many, chosen by ``seed``, in their order."""
        return self[np.sort(np.random.default_rng(seed or 0).permutation(len(self))[:most])]


def joined(parts: list[Records]) -> Records:
    """All of them; a text that several have is taken from the first."""
    both = (np.concatenate([getattr(part, name) for part in parts]) for name in ("texts", "labels"))
    return _distinct(*both)


def _distinct(texts: np.ndarray, labels: np.ndarray) -> Records:
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        if text:
            first.setdefault(text, row)
    rows = np.array(list(first.values()), dtype=np.int64)
    return Records(texts[rows], labels[rows])


def read(path: Path) -> Records:
    """The records of one file, each text once."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    texts = np.array([normalized(record["text"]) for record in found], dtype=object)
    return _distinct(texts, np.array([record.get("label") for record in found], dtype=object))


@dataclass(frozen=True, eq=False)
class Task:
    """Queries to select with, and held-back test records, which only measure."""

    name: str
    queries: Records
    test: Records

    @property
    def classifies(self) -> bool:
        """Whether its records have labels."""
        return len(set(self.test.labels)) > 1

    def labels_of(self, source: Records) -> bool:
        """Whether at least a quarter of the records of ``source`` have one of the task's labels."""
        return self.classifies and float(np.mean(np.isin(source.labels, list(set(self.test.labels))))) >= 0.25


class Data:
    """What is in the folder ``data``; vectors are kept in ``work``."""

    def __init__(self, data: Path, work: Path):
        self.data, self.work = data, work

    @cached_property
    def sources(self) -> dict[str, Records]:
        return {path.name.partition(".")[0]: read(path) for path in sorted((self.data / "sources").iterdir())}

    @cached_property
    def tasks(self) -> dict[str, Task]:
        folders = sorted(path for path in (self.data / "tasks").iterdir() if path.is_dir())
        return {
            folder.name: Task(folder.name, read(folder / "query.jsonl.gz"), read(folder / "test.jsonl.gz"))
            for folder in folders
        }

    def vectors(self, texts: np.ndarray, name: str) -> np.ndarray:
        """Unit vectors of ``texts``, float32 (n, dim); ``name`` is whose they are."""
        encoder = make_encoder(EncoderSettings(dtype="bfloat16"), self.work)
        table = pl.DataFrame({"content_id": [content_id(text) for text in texts], "text": list(texts)})
        return embed(table, encoder, self.work / "embedding_cache", name).vectors
