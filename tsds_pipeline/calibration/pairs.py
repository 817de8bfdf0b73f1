"""Pairs of near-duplicates and how far apart their vectors are: given in a file, or made by small edits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tsds_pipeline.calibration.edits import EDITS, edited, word_count
from tsds_pipeline.calibration.texts import PoolTexts, length_group
from tsds_pipeline.core.arrays import pair_distances
from tsds_pipeline.corpus.reading import read_records
from tsds_pipeline.corpus.text import content_id, normalized
from tsds_pipeline.encoders import PrecomputedVectors, embed
from tsds_pipeline.encoders.cache import FOLDER
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.file_names import FORMAT_RULE
from tsds_pipeline.progress import Progress
from tsds_pipeline.project import Project
from tsds_pipeline.stages.gradient_warmup import encoder_of

FIELDS = ("a", "b")


@dataclass(frozen=True, eq=False)
class Pairs:
    """``distances`` (P,), plain L2; ``weights`` (P,), what each stands for; ``groups`` (P,), lengths by number."""

    distances: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    kinds: tuple[str, ...]
    """What was done to each text, of those made by edits; otherwise empty."""


def edited_pairs(
    project: Project, pool: PoolTexts, sample: pl.DataFrame, key: int, progress: Progress | None = None
) -> Pairs | None:
    """Each text of ``sample`` (see ``PoolTexts.sample``) and an edit of it, the kinds of edits taking turns.

    The edits are encoded by the project's encoder and kept with its other vectors. None where vectors are given with
    the records: there is nothing to encode with.
    """
    encoder = encoder_of(project, "candidate")
    if isinstance(encoder, PrecomputedVectors):
        return None
    rng, names, rows = np.random.default_rng(key), list(EDITS), []
    for number, text in enumerate(sample["text"]):
        kind = names[number % len(names)]
        changed = edited(text, kind, rng)
        if changed is not None and normalized(changed) != text:
            rows.append((number, kind, normalized(changed)))
    if not rows:
        return Pairs(*np.empty((3, 0)), ())
    numbers, kinds, texts = (list(column) for column in zip(*rows, strict=True))
    kept = sample[numbers]
    vectors = _embedded(project, texts, "the edited texts", progress)
    distances = _distances(pool.vectors(kept), vectors)
    return Pairs(distances, kept["weight"].to_numpy(), kept["group"].to_numpy(), tuple(kinds))


def given_pairs(project: Project, pool: PoolTexts, path: Path, progress: Progress | None = None) -> Pairs:
    """The pairs in ``path``: records with the fields "a" and "b", two texts.

    Where vectors are given with the records, each of the two is the id of a record of the pool, or its text. TsdsError
    for a file, or a record in it, that cannot be used.
    """
    left, right, lines = _read(path, project.settings.corpus.max_chars)
    if project.settings.encoder.vector_field is None:
        vectors = _embedded(project, left + right, str(path), progress)
        left_vectors, right_vectors = vectors[: len(left)], vectors[len(left) :]
        words = [word_count(text) for text in left]
    else:
        found = [_looked_up(pool, side, path, lines) for side in (left, right)]
        left_vectors, right_vectors = (pool.vectors(rows) for rows in found)
        words = found[0]["words"].to_list()
    groups = np.array([length_group(count) for count in words])
    return Pairs(_distances(left_vectors, right_vectors), np.ones(len(left)), groups, ())


def _distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    rows = np.arange(len(left))
    return pair_distances(left, right, rows, rows)


def _embedded(project: Project, texts: Sequence[str], name: str, progress: Progress | None) -> np.ndarray:
    records = pl.DataFrame({"content_id": [content_id(text) for text in texts], "text": texts})
    encoder = encoder_of(project, "candidate")
    return embed(records, encoder, project.storage / FOLDER, name, progress).vectors


def _read(path: Path, max_chars: int) -> tuple[list[str], list[str], list[int]]:
    left, right, lines = [], [], []
    if not path.is_file():
        raise TsdsError(
            f"{path}: no such file: --pairs takes records ({FORMAT_RULE}) with two fields, a and b"
        )
    for record in read_records(path, max_chars):
        if record.reason:
            raise TsdsError(f"{path}:{record.line}: {record.reason}: repair or remove it")
        values = [record.fields.get(name) for name in FIELDS]
        texts = [normalized(str(value)) if isinstance(value, str | int) else "" for value in values]
        if not all(texts):
            lacking = FIELDS[texts.index("")]
            raise TsdsError(
                f'{path}:{record.line}: the field "{lacking}" holds no text: a pair has two texts, "a" and "b"'
            )
        for side, text in zip((left, right), texts, strict=True):
            side.append(text)
        lines.append(record.line)
    if not lines:
        raise TsdsError(f'{path}: holds no pairs: put records with two texts, "a" and "b", in it')
    return left, right, lines


def _looked_up(pool: PoolTexts, names: Sequence[str], path: Path, lines: Sequence[int]) -> pl.DataFrame:
    """The rows of ``pool.table`` of the records with these ids or texts."""
    known: dict[str, str] = {}
    wanted = pl.Series("name", list(set(names)))
    for node, artifact in pool.made.items():
        if not node.startswith("candidate_corpus|"):
            continue
        table = artifact.scan().select("content_id", "text", "record_ids")
        by_id = table.select("content_id", name="record_ids").explode("name")
        by_text = table.select("content_id", name="text")
        found = pl.concat([by_text, by_id]).filter(pl.col("name").is_in(wanted.to_list())).collect()
        known = dict(found.select("name", "content_id").iter_rows()) | known
    for name, line in zip(names, lines, strict=True):
        if name not in known:
            raise TsdsError(
                f'{path}:{line}: no record of the pool has the id or text "{name[:60]}": with [encoder] kind = '
                '"precomputed" a pair names two records of the sources'
            )
    ids = pl.DataFrame({"content_id": [known[name] for name in names]})
    return ids.join(pool.table, on="content_id", how="left", maintain_order="left")
