"""What a trainer takes: one JSONL file an epoch, and a manifest that says exactly where it came from."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from tsds_pipeline.graph import Observed
from tsds_pipeline.provenance import lineage
from tsds_pipeline.storage import Header, write_atomically

_VERSIONS_OF = ("tsds-pipeline", "numpy", "faiss-cpu", "polars", "torch", "sentence-transformers", "dagster")


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


def export_sample(folder: Path, sample: pl.DataFrame, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``epoch-<e>.jsonl`` and manifest.json into ``folder``; returns the manifest as written.

    A line holds the original record's fields as they were and, under "tsds", what the selection says of it.
    The manifest comes last and has the SHA-256 of every file, so that a reader can tell a complete export.
    """
    files = {}
    for (epoch,), rows in sample.group_by("epoch", maintain_order=True):
        text = "".join(line + "\n" for line in _lines(rows))
        name = f"epoch-{epoch}.jsonl"
        data = text.encode()
        files[name] = {"records": len(rows), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        write_atomically(folder / name, lambda path, text=text: path.write_text(text, "utf-8", newline="\n"))
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in _VERSIONS_OF}
    complete = {**manifest, "files": files, "versions": versions}
    text = json.dumps(complete, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    write_atomically(folder / "manifest.json", lambda path: path.write_text(text, "utf-8", newline="\n"))
    for path in folder.glob("epoch-*.jsonl"):
        if path.name not in files:
            path.unlink()
    return complete


def is_exported(folder: Path, version: str) -> bool:
    """Whether ``folder`` holds the whole export of the sample with the data version ``version``."""
    try:
        said = json.loads((folder / "manifest.json").read_text("utf-8"))
        sizes = {name: file["bytes"] for name, file in said["files"].items()}
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
        return said["data_version"] == version and whole
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _lines(rows: pl.DataFrame) -> Iterable[str]:
    for row in rows.iter_rows(named=True):
        said = {name: row[name] for name in ("source", "id", "content_id", "draw", "probability", "copies")}
        record = {"id": row["id"], **json.loads(row["record"]), "tsds": said}
        yield json.dumps(record, ensure_ascii=False)
