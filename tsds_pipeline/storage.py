"""Artifacts: what one asset partition stores, in open formats, with what it was made from.

An artifact is a Parquet table whose metadata hold a :class:`Header` and, for vectors and search indexes,
payload files beside it (npy, FAISS) that the header names. Files are written beside and renamed, the table
last: nothing half-written is ever visible, and a table always names payloads that are complete. Which asset
stores what, and when it is stale, is not here (``stages``, ``orchestration``).
"""

import json
import os
import secrets
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from tsds_pipeline.errors import TsdsError, told_of_disk
from tsds_pipeline.seals import UNSEALED, seal, sealed_digest

SUFFIX = ".parquet"
PAYLOADS = (".npy", ".faiss")
_METADATA_KEY = "tsds"
# Of a table that is written as it is read.
_ROWS_AT_A_TIME = 2**14


@dataclass(frozen=True)
class Header:
    """What an artifact is and what it was made from."""

    version: str
    """Data version: a hash of the content and of the settings it used."""
    code: str
    """Code version of the asset that wrote it."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Data version of every input that was read, by node ("candidate_corpus|alpaca", "pool_settings")."""
    settings: dict[str, str] = field(default_factory=dict)
    """The settings among the inputs, as canonical JSON, to tell what changed."""
    problem: str | None = None
    """Why this is a stand-in (the last good version, or nothing) for content that could not be made."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Figures for people. They decide nothing."""
    payloads: dict[str, str] = field(default_factory=dict)
    """File name of each payload, beside the table."""
    checksums: dict[str, str] = field(default_factory=dict)
    """BLAKE2b hash of each payload's file, by name of the payload."""
    seal: str = UNSEALED
    """That of the table's file, see ``seals``."""


@dataclass(frozen=True)
class Draft:
    """An artifact that is to be written. ``payloads`` are arrays (npy) or FAISS indexes, by name."""

    frame: pl.DataFrame | pl.LazyFrame
    """A LazyFrame is written as it is read, a part at a time."""
    header: Header
    payloads: Mapping[str, Any] = field(default_factory=dict)
    reads: TemporaryDirectory | None = None
    """The folder that ``frame`` is read from, where that is to be gone once it is written."""

    @property
    def rows(self) -> int:
        """How many rows the table has."""
        return count_rows(self.frame)


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk. The table and the payloads are read when they are first asked for."""

    path: Path
    header: Header

    @property
    def version(self) -> str:
        return self.header.version

    @cached_property
    def frame(self) -> pl.DataFrame:
        return pl.read_parquet(self.path, glob=False)

    def scan(self) -> pl.LazyFrame:
        """The table, to be filtered before it is read."""
        return pl.scan_parquet(self.path, glob=False)

    @property
    def rows(self) -> int:
        """How many rows the table has."""
        return count_rows(self.scan())

    @property
    def files(self) -> list[Path]:
        """The table and its payloads."""
        return [self.path, *map(self.file, self.header.payloads)]

    def file(self, payload: str) -> Path:
        """Where a payload is; another version of it has another name."""
        return self.path.with_name(self.header.payloads[payload])

    @cached_property
    def vectors(self) -> np.ndarray:
        """The payload "vectors", (n, dim) float32, mapped from disk."""
        return self._open("vectors", lambda path: np.load(path, mmap_mode="r", allow_pickle=False))

    @cached_property
    def index(self) -> Any:
        """The payload "index", a FAISS index, mapped from disk where its type allows it."""
        import faiss

        return self._open("index", lambda path: faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))

    def _open(self, name: str, reader: Callable[[Path], Any]) -> Any:
        path = self.file(name)
        try:
            return reader(path)
        except (OSError, ValueError, RuntimeError) as error:
            raise TsdsError(
                f"{path}: cannot be read ({_first_line(error)}); delete {self.path} and run `tsds refresh`"
            ) from None


def artifact_path(base: Path, asset: str, partition: str | None = None) -> Path:
    """Where ``asset`` stores ``partition`` ("a" or "source|task"): ``base/asset/source/task.parquet``."""
    if partition is None:
        return base / (asset + SUFFIX)
    # Of the name alone, as text: a look at each folder on the way was most of what `tsds status` took.
    folder = os.path.join(base, asset)
    path = os.path.join(folder, *partition.split("|"))
    if not os.path.normpath(path).startswith(os.path.normpath(folder) + os.sep):
        raise TsdsError(f'{asset}: the partition "{partition}" would be stored outside of {folder}')
    return Path(path + SUFFIX)


def write_artifact(path: Path, draft: Draft) -> Artifact:
    """Store ``draft`` under ``path``, payloads first, and drop the payloads of what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names, checksums = {}, {}
    for name, payload in draft.payloads.items():
        extension, writer = _payload_writer(payload)
        names[name] = f"{path.stem}.{name}-{draft.header.version[:16]}{extension}"
        write_atomically(path.with_name(names[name]), writer)
        with path.with_name(names[name]).open("rb") as file:
            checksums[name] = sealed_digest(file)
    header = replace(draft.header, payloads=names, checksums=checksums)
    made = write_table(path, lambda p: _write_frame(p, draft.frame, header))
    if draft.reads is not None:
        draft.reads.cleanup()
    for stale in path.parent.glob(f"{path.stem}.*-*"):
        if stale.name not in names.values() and stale.suffix in PAYLOADS:
            stale.unlink(missing_ok=True)
    return made


def _write_frame(path: Path, frame: pl.DataFrame | pl.LazyFrame, header: Header) -> Header:
    if isinstance(frame, pl.LazyFrame):
        frame.sink_parquet(path, metadata=file_metadata(header), row_group_size=_ROWS_AT_A_TIME)
    else:
        frame.write_parquet(path, metadata=file_metadata(header))
    return header


def count_rows(frame: pl.DataFrame | pl.LazyFrame) -> int:
    """How many rows ``frame`` has; of files only the metadata are read."""
    return len(frame) if isinstance(frame, pl.DataFrame) else frame.select(pl.len()).collect().item()


def write_table(path: Path, writer: Callable[[Path], Header]) -> Artifact:
    """Store under ``path`` the Parquet file that ``writer`` makes where it is told; it returns the file's header.

    For what is too large for a :class:`Draft`. The file has ``file_metadata`` of the header.
    """
    found: list[Header] = []

    def write(temporary: Path) -> None:
        header = writer(temporary)
        found.append(replace(header, seal=seal(temporary)))

    write_atomically(path, write)
    _end_attempt(path, stands_in=found[0].problem is not None)
    return Artifact(path, found[0])


def file_metadata(header: Header) -> dict[str, str]:
    """The metadata of a Parquet file with this ``header``, to be sealed."""
    fields = asdict(replace(header, seal=UNSEALED))
    return {_METADATA_KEY: json.dumps(fields, ensure_ascii=False, sort_keys=True)}


def read_artifact(path: Path) -> Artifact:
    """The artifact at ``path``. FileNotFoundError where there is none, TsdsError where it is damaged."""
    try:
        metadata = pl.read_parquet_metadata(path)
        return Artifact(path, Header(**json.loads(metadata[_METADATA_KEY])))
    except FileNotFoundError:
        raise
    except (OSError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise TsdsError(
            f"{path}: not an artifact ({_first_line(error)}); delete it and run `tsds refresh`"
        ) from None


def find_artifact(path: Path) -> Artifact | None:
    """The artifact at ``path`` if there is a sound one; a damaged one is as good as none."""
    try:
        artifact = read_artifact(path)
    except (FileNotFoundError, TsdsError):
        return None
    return artifact if all(file.is_file() for file in artifact.files) else None


def damage_of(path: Path, digest: Callable[[Path], str]) -> str | None:
    """Why the artifact at ``path`` is not what was written; None where it is, or there is none.

    ``digest`` gives the ``sealed_digest`` of a file. What older versions wrote without checksums passes as sound.
    """
    looked_at = path
    try:
        artifact = read_artifact(path)
        if (said := artifact.header.seal) != UNSEALED and digest(path) != said:
            return f"{path}: its bytes are not those that were written"
        for name, file in artifact.header.payloads.items():
            looked_at, said = path.with_name(file), artifact.header.checksums.get(name)
            if not looked_at.is_file():
                return f"{looked_at}: is gone"
            if said and digest(looked_at) != said:
                return f"{looked_at}: its bytes are not those that were written"
    except FileNotFoundError:
        return None
    except TsdsError as error:
        return str(error).partition("; delete it")[0]
    except OSError as error:
        return f"{looked_at}: cannot be read ({error.strerror or error})"
    return None


@dataclass(frozen=True)
class Attempt:
    """The note, beside an artifact, that it was tried to make it again and no sound one came of it so far."""

    inputs: dict[str, str]
    """Data version of every input, and of the code, at that time."""
    tries: int = 1
    """How often it was tried with these inputs."""
    ended: bool = False
    """False while it is under way, and after its process was killed."""
    problem: str | None = None
    """Why it failed; None where it did not, or left a stand-in that says so itself."""
    traceback: str | None = None


def begin_attempt(path: Path, inputs: Mapping[str, str]) -> None:
    """Note that the artifact at ``path``, which stays as it is, is about to be made again from ``inputs``."""
    last = read_attempt(path)
    tries = last.tries + 1 if last is not None and last.inputs == inputs else 1
    _write_attempt(path, Attempt(dict(inputs), tries))


def record_failure(path: Path, error: BaseException) -> None:
    """Note beside the artifact at ``path``, which stays as it is, that it could not be made again and why."""
    known = isinstance(error, TsdsError)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    trace = None if known else "".join(traceback.format_exception(error))
    last = read_attempt(path) or Attempt({})
    _write_attempt(path, replace(last, ended=True, problem=text, traceback=trace))


def read_attempt(path: Path) -> Attempt | None:
    """The last attempt to make the artifact at ``path``; None where it gave a sound one, or there was none.

    A damaged note is as good as none.
    """
    try:
        return Attempt(**json.loads(attempt_path(path).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _end_attempt(path: Path, *, stands_in: bool) -> None:
    last = read_attempt(path)
    if last is not None and stands_in:
        _write_attempt(path, replace(last, ended=True, problem=None, traceback=None))
    elif last is not None:
        attempt_path(path).unlink(missing_ok=True)


def _write_attempt(path: Path, attempt: Attempt) -> None:
    text = json.dumps(asdict(attempt), indent=1, ensure_ascii=False)
    write_atomically(attempt_path(path), lambda p: p.write_text(text, "utf-8"))


def attempt_path(path: Path) -> Path:
    """Where the note on attempts to make the artifact at ``path`` is."""
    return path.with_suffix(".attempt.json")


def write_atomically(path: Path, writer: Callable[[Path], Any]) -> None:
    """Let ``writer`` make a file beside ``path``, then rename it to ``path``. TsdsError where the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with told_of_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            writer(temporary)
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _payload_writer(payload: Any) -> tuple[str, Callable[[Path], Any]]:
    if isinstance(payload, np.ndarray):
        return ".npy", lambda path: _write_npy(path, payload)
    return ".faiss", lambda path: _write_index(path, payload)


def _write_npy(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as handle:
        np.save(handle, array, allow_pickle=False)


def _write_index(path: Path, index: Any) -> None:
    import faiss

    faiss.write_index(index, str(path))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
