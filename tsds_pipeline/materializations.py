"""The log of every result that was stored, when and what it cost: storage/materializations/<year>-<month>.jsonl.

It decides nothing, and no result depends on it but the models that read it.
"""

import json
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tsds_pipeline.graph import describe, keys_of
from tsds_pipeline.logs import log
from tsds_pipeline.sql.relations import MATERIALIZATIONS as FOLDER
from tsds_pipeline.storage import Artifact


def log_materialization(
    storage: Path,
    node: str,
    made: Artifact,
    rows: int,
    *,
    seconds: float,
    peak_memory: int,
    made_because: str,
    run_id: str,
) -> None:
    """Add a line for ``made``, the artifact with so many ``rows`` that is stored for ``node`` now.

    ``peak_memory`` is in bytes.
    """
    now = datetime.now(UTC)
    source, task = keys_of(node)
    line = {
        "made_at": now.replace(tzinfo=None).isoformat(),
        "asset": node.partition("|")[0],
        "source": source,
        "task": task,
        "version": made.version,
        "seconds": seconds,
        "peak_memory": peak_memory,
        "rows": rows,
        "made_because": made_because,
        "run_id": run_id,
    }
    # A full disk, or another process that replaces a file, must not undo what was stored.
    with suppress(OSError):
        line["bytes"] = sum(path.stat().st_size for path in made.files)
        _append(storage / FOLDER / f"{now:%Y-%m}.jsonl", json.dumps(line, ensure_ascii=False))
    said = {name: line.get(name) for name in ("seconds", "peak_memory", "rows", "bytes", "made_because")}
    log(logging.INFO, f"{describe(node)}: made in {seconds:.1f} s", node=node, run_id=run_id, **said)


def _append(path: Path, line: str) -> None:
    """In one write, so that lines of several processes do not mix; after a torn line on a new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(file).st_size
        torn = size and os.pread(file, 1, size - 1) != b"\n"
        os.write(file, ("\n" * bool(torn) + line + "\n").encode())
    finally:
        os.close(file)
