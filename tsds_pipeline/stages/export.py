"""What a trainer takes: the drawn examples in files, a manifest that says exactly where they came from, and a card."""

import hashlib
import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from tsds_pipeline.corpus.chats import chat_of
from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.errors import TsdsError, printable
from tsds_pipeline.graph import Observed
from tsds_pipeline.provenance import lineage
from tsds_pipeline.settings import ExportSettings
from tsds_pipeline.stages.dataset_card import CARD, Part, dataset_card
from tsds_pipeline.stages.typed_columns import common_type, typed_column
from tsds_pipeline.storage import Header, write_atomically
from tsds_pipeline.wording import changes

MANIFEST = "manifest.json"
WEIGHTED = "weighted"
_VERSIONS_OF = ("tsds-pipeline", "numpy", "faiss-cpu", "polars", "torch", "sentence-transformers", "dagster")
_WEIGHT = "tsds:weight"  # a name that no field of a record takes by accident
_SAID = ("source", "id", "content_id", "draw", "probability", "copies")
_SAID_OF_MIXTURES = (*_SAID, "task")
_DATA_FILE = re.compile(rf"(epoch-\d+|{WEIGHTED})(-\d{{5}}-of-\d{{5}})?\.(jsonl|parquet)")


def manifest(observed: Observed, sample: Header, solution: Mapping[str, Any]) -> dict[str, Any]:
    """Where a sample comes from: all settings, and the data version of everything it was made from."""
    inputs, settings = lineage(observed.project.storage, sample)
    return {
        "data_version": sample.version,
        "inputs": inputs,
        "settings": {name: json.loads(text) for name, text in settings.items()},
        "solution": solution,
        **sample.notes,
    }


def export_sample(
    folder: Path,
    sample: pl.DataFrame,
    manifest: Mapping[str, Any],
    settings: ExportSettings,
    candidates: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """Write the files of each epoch, weights if there are ``candidates``, manifest.json and a dataset card.

    A row holds the original record's fields as they were, or the record as a chat, and under "tsds" what the selection
    says of it. ``candidates`` are all examples with mass, each once, with the columns of ``sample`` but epoch and draw.
    Returns the manifest as written: it comes last and has the SHA-256 of every file, so that a reader can tell a
    complete export. TsdsError where a record cannot be a chat; nothing is written then.
    """
    tables: dict[str, list[dict[str, Any]]] = {}
    said = _SAID_OF_MIXTURES if "mixture" in manifest else _SAID
    for (epoch,), rows in sample.group_by("epoch", maintain_order=True):
        tables[f"epoch-{epoch}"] = _rows(rows, settings.layout, said)
    types = dict.fromkeys(tables, _types([row for rows in tables.values() for row in rows]))
    if candidates is not None:
        tables[WEIGHTED] = _rows(with_weights(candidates), settings.layout, said)
        types[WEIGHTED] = _types(tables[WEIGHTED])
    files, parts = {}, []
    for name, rows in tables.items():
        of_part = dict(_write(folder / name, rows, types[name], settings))
        files |= of_part
        parts.append(Part(name, tuple(of_part), types[name]))
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in _VERSIONS_OF}
    asked = settings.model_dump(mode="json")
    complete = {**manifest, "export": asked, "files": files, "versions": versions}
    _write_text(folder / CARD, dataset_card(folder.name, complete, parts, sample))
    _write_text(folder / MANIFEST, json.dumps(complete, ensure_ascii=False, indent=2, sort_keys=True) + "\n")
    for path in folder.iterdir():
        if _DATA_FILE.fullmatch(path.name) and path.name not in files:
            path.unlink()
    return complete


def with_weights(candidates: pl.DataFrame) -> pl.DataFrame:
    """``candidates``, most probable first, each with a weight: its probability times their number, 1 on average.

    The mean of a loss that counts by it is, in expectation, the mean over a sample with replacement; the learning rate
    need not change.
    """
    p = pl.col("probability")
    ordered = candidates.sort("probability", "content_id", descending=[True, False])
    return ordered.with_columns((p * len(candidates) / p.sum()).alias(_WEIGHT))


def why_not_exported(folder: Path, version: str, settings: ExportSettings) -> str | None:
    """What is missing for ``folder`` to hold the whole export of the sample with the data version ``version``."""
    try:
        said = json.loads((folder / MANIFEST).read_text("utf-8"))
        sizes = {name: file["bytes"] for name, file in said["files"].items()}
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
        asked, now = said["export"], settings.model_dump(mode="json")
        if said["data_version"] != version or not whole or not (folder / CARD).is_file():
            return "its export is gone or incomplete"
        changed = ", ".join(changes(asked, now, now))
        return f"[export] {changed}" if changed else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its export is gone or incomplete"


def _rows(table: pl.DataFrame, layout: str, said: Sequence[str]) -> list[dict[str, Any]]:
    return [_row(row, layout, said) for row in table.iter_rows(named=True)]


def _row(row: Mapping[str, Any], layout: str, said: Sequence[str]) -> dict[str, Any]:
    record = json.loads(row["record"])
    if layout == "chat":
        try:
            record = {"messages": chat_of(record, row["text"])}
        except BadRecord as error:
            raise TsdsError(
                f"source {row['source']}: record {printable(row['id'])} cannot be a chat: {error}; repair or remove "
                'it, or set [export] layout = "original"'
            ) from None
    weight = {"weight": row[_WEIGHT]} if _WEIGHT in row else {}
    ours = {name: row[name] for name in said if name in row}
    return {"id": row["id"], **record, **weight, "tsds": ours}


def _types(rows: Sequence[Mapping[str, Any]]) -> dict[str, pl.DataType | None]:
    """The type of each field of ``rows``, ours last; None where its values have none in common."""
    names = dict.fromkeys(name for row in rows for name in row)
    ours = [name for name in ("weight", "tsds") if name in names]
    ordered = [*(name for name in names if name not in ours), *ours]
    return {name: common_type([row.get(name) for row in rows]) for name in ordered}


def _write(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    types: Mapping[str, pl.DataType | None],
    settings: ExportSettings,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write ``rows`` to files that are called like ``path``; the name of each, and what the manifest says of it."""
    size = settings.shard_rows or len(rows)
    shards = [rows[start : start + size] for start in range(0, len(rows), size)]
    for number, shard in enumerate(shards):
        part = f"-{number:05}-of-{len(shards):05}" if settings.shard_rows else ""
        for extension in settings.format:
            file = path.with_name(f"{path.name}{part}.{extension}")
            if extension == "jsonl":
                _write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in shard))
            else:
                columns = [
                    typed_column(n, [row.get(n) for row in shard], dtype) for n, dtype in types.items()
                ]
                write_atomically(file, pl.DataFrame(columns).write_parquet)
            yield file.name, {"records": len(shard), **_fingerprint(file)}


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda target: target.write_text(text, "utf-8", newline="\n"))
