"""The records that the evaluation runs on, and their vectors.

A pool of the sources' records, the query sets, and held-back texts of each task. Every text is encoded once by the
packaged model and kept under its content in the work folder.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tsds_pipeline.corpus.text import content_id, normalized
from tsds_pipeline.encoders import embed, make_encoder
from tsds_pipeline.settings import EncoderSettings

PER_SOURCE, TEST_TEXTS = 2000, 500
# The sources whose labels a task's are: these are taken whole, as a class of few records is not learnt.
LABELLED = {"banking77": "banking77_train", "chemprot": "scibert_cls_train", "imdb_cf": "imdb_cf_train"}


@dataclass(frozen=True, eq=False)
class Records:
    """``texts``, normalised; ``sources`` and ``labels`` (None where there is none) of each, object arrays (n,)."""

    texts: np.ndarray
    sources: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: np.ndarray) -> "Records":
        return Records(self.texts[rows], self.sources[rows], self.labels[rows])


def read(path: Path) -> Records:
    """The records of one file, each text once."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    texts = [normalized(record["text"]) for record in found]
    first = list({text: row for row, text in reversed(list(enumerate(texts))) if text}.values())[::-1]
    return Records(
        np.array([texts[row] for row in first], dtype=object),
        np.array([found[row].get("source", "") for row in first], dtype=object),
        np.array([found[row].get("label") for row in first], dtype=object),
    )


def some(records: Records, most: int, seed: int = 0) -> Records:
    """At most so many of ``records``, in their order."""
    rows = np.random.default_rng(seed).permutation(len(records))[:most]
    return records[np.sort(rows)]


def joined(parts: list[Records]) -> Records:
    return Records(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("texts", "sources", "labels"))
    )


def vectors(texts: np.ndarray, work: Path, name: str) -> np.ndarray:
    """Unit vectors of ``texts``, float32 (n, dim); those encoded before are read from ``work``."""
    ids = [content_id(text) for text in texts]
    encoder = make_encoder(EncoderSettings(dtype="bfloat16"), work)
    table = pl.DataFrame({"content_id": ids, "text": list(texts)})
    return embed(table, encoder, work / "embedding_cache", name).vectors


def main() -> None:
    import sys
    import time

    data, work = map(Path, sys.argv[1:])
    tasks = sorted(path.name for path in (data / "tasks").iterdir())
    for task in tasks:
        queries = read(data / "tasks" / task / "query.jsonl.gz")
        test = some(read(data / "tasks" / task / "test.jsonl.gz"), TEST_TEXTS)
        vectors(queries.texts, work, task)
        vectors(test.texts, work, task)
        print(task, len(queries), len(test), time.strftime("%X"), flush=True)
    for path in sorted((data / "sources").iterdir()):
        records = some(read(path), PER_SOURCE)
        vectors(records.texts, work, path.name)
        print(path.name, len(records), time.strftime("%X"), flush=True)
    for source in LABELLED.values():
        vectors(read(data / "sources" / f"{source}.jsonl.gz").texts, work, source)
        print(source, time.strftime("%X"), flush=True)


if __name__ == "__main__":
    main()
