"""Files at remote addresses, through fsspec: which there are, what identifies their content, and copies of them.

A scan only asks the server: no content is downloaded before a run needs it (:func:`fetch`). What is asked again where
it failed is in ``retries``. Credentials and everything else about a connection are for fsspec and the library of the
protocol to find in the environment (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN, ~/.netrc,
FSSPEC_S3_ANON, ...); what is found there wins over the limits that stand here.
"""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsds_pipeline.addresses import WEB, protocol_of, server_of, without_secrets
from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.dataset_folders import data_files
from tsds_pipeline.errors import TsdsError, printable
from tsds_pipeline.file_names import FORMAT_RULE, FORMATS, format_of, is_passed_over
from tsds_pipeline.retries import may_pass, persistently, status_of
from tsds_pipeline.storage import write_atomically

CONNECT_S = 5
READ_S = 15
# A server that took longer than the first to fail is not asked again for the second: every stage of a run scans.
SLOW_S = 2
FORGET_S = 60

HUB = "hf"
# datasets/owner/name
_REPOSITORY_DEPTH = 2
# The number of a shard, and what else `push_to_hub` puts at the end of its name.
_SHARD = re.compile(r"\d{4,}(-of-\d{4,})?(-[0-9a-f]{16})?(?=\.[^/]*$)")
_SETS_SHOWN = 8

_S3 = ("s3", "s3a")
_GCS = ("gs", "gcs")
# As the protocols call them, without marks and in lower case. The first that is there counts.
_OF_CONTENT = ("etag", "md5", "md5hash", "contentmd5", "digest", "sha256", "sha", "blobid", "crc32c")
_OF_CHANGE = ("lastmodified", "mtime", "modified", "modificationtime", "modify")

_NOWHERE = logging.NullHandler()
_failed_slowly: dict[str, tuple[float, str]] = {}


@dataclass(frozen=True, order=True)
class RemoteFile:
    """One remote file as it was listed."""

    address: str
    identity: str
    """Hash (32 hex characters) of the address and of what the server says identifies the content.

    That is the ETag, else a checksum, else the time of the last change together with the size: whatever the
    entries of fsspec's listing (``info``) hold. Its ``ukey`` and ``checksum`` are of no use here: over HTTP they
    hash the address alone, and in general every detail, such as the class of storage, identifying or not.
    """
    where: str
    """The key in tsds.toml that names it."""

    @property
    def name(self) -> str:
        """The address in messages."""
        return printable(self.address)

    def copy_in(self, folder: Path) -> Path:
        """Where below ``folder`` its copy is; no two versions of a file have the same."""
        return folder / content_hash(self.address) / f"{self.identity}{format_of(self.address)}"


def remote_files(where: str, address: str, problems: list[str]) -> list[RemoteFile]:
    """The files at ``address``: a file, a folder (those right inside) or a pattern with ``*``, ``?`` and ``**``.

    A dataset of the Hugging Face hub (``hf://datasets/owner/name``) means its data files, in whatever folder.
    ``problems`` gets a line for what lies there and is not read. Raises :class:`TsdsError` where the server does
    not tell, or does not tell what identifies a file.
    """
    web, pattern = protocol_of(address) in WEB, "*" in address or "?" in address
    if web and pattern:
        raise TsdsError(
            f'{where}: "{printable(address)}": a web server lists no files: name each of them, without *'
        )
    if web and not format_of(address):
        raise TsdsError(f'{where}: "{printable(address)}" is not {FORMAT_RULE}: name such a file')
    with explained(where, address, remember=True):
        path, found = persistently(lambda: _listed(where, address, pattern))
    full = address.rstrip("/")
    before = full.removesuffix(path) if full.endswith(path) else f"{protocol_of(address)}://"
    listed = []
    for name, info in found.items():
        file = before + name
        if is_passed_over(name.rpartition("/")[2]):
            continue
        if info["type"] == "directory":
            problems.append(
                f"{printable(file)}/: only files right inside {printable(full)}/ are read: move these up, "
                f'or name them: path = "{printable(full)}/**/*{FORMATS[0]}"'
            )
        elif not format_of(name):
            problems.append(f"{printable(file)}: not {FORMAT_RULE}: convert it, or move it elsewhere")
        else:
            listed.append(RemoteFile(file, identity_of(where, file, info), where))
    return listed


def _listed(where: str, address: str, pattern: bool) -> tuple[str, dict[str, dict[str, Any]]]:
    """The path of ``address`` in its file system, and what is there."""
    fs, path = opened(address)
    if pattern:
        return path, _matches(fs, path)
    found = _entries(fs, path)
    if protocol_of(address) == HUB and path.count("/") == _REPOSITORY_DEPTH:
        found = _of_repository(where, fs, path)
    return path, found


def fetch(file: RemoteFile, copy: Path) -> None:
    """Make ``copy`` (of :meth:`RemoteFile.copy_in`) hold what ``file`` holds, if it does not yet.

    Copies of its other versions are dropped. Raises :class:`TsdsError`, also where the file is no longer, or did
    not stay, the one that was listed.
    """
    if not copy.exists():
        with explained(file.where, file.address):
            write_atomically(copy, lambda beside: persistently(lambda: _download(file, beside)))
    for other in copy.parent.iterdir():
        if other != copy and other.suffix != ".tmp":  # which may be under way elsewhere
            other.unlink(missing_ok=True)


def _download(file: RemoteFile, target: Path) -> None:
    fs, path = opened(file.address)
    fs.get_file(path, str(target))
    fs.invalidate_cache()
    info = _info(fs, path)
    whole = info.get("size") in (None, target.stat().st_size)
    if not whole or identity_of(file.where, file.address, info) != file.identity:
        raise TsdsError(
            f'{file.where}: "{file.name}": changed while it was downloaded: run `tsds refresh` again'
        )


def opened(address: str) -> tuple[Any, str]:
    """The file system of ``address``, which remembers no listing, and the path in it."""
    import fsspec
    from fsspec.config import apply_config

    protocol = protocol_of(address)
    environment = apply_config(fsspec.get_filesystem_class(protocol), {})
    fs, path = fsspec.core.url_to_fs(address, **(_limits(protocol) | environment))
    if protocol in _S3:
        fs.retries = 2  # each of them with the attempts of botocore
    if protocol == HUB:
        _without_bars()
    if protocol in _GCS:
        logging.getLogger("gcsfs").addHandler(_NOWHERE)  # it logs a traceback for what it raises anyway
    fs.invalidate_cache()
    return fs, path


def _without_bars() -> None:
    """A download says nothing of its own, whatever it is from."""
    from huggingface_hub.utils import disable_progress_bars

    for name in ("http_get", "xet_get"):
        disable_progress_bars(f"huggingface_hub.{name}")


def _limits(protocol: str) -> dict[str, Any]:
    if protocol in WEB:
        import aiohttp

        return {
            "client_kwargs": {
                "timeout": aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=READ_S),
                "trust_env": True,
                # The bytes of the file and not a compressed form of them, which has another ETag.
                "headers": {"Accept-Encoding": "identity"},
            }
        }
    if protocol in _S3:
        attempts = {"total_max_attempts": 2}
        return {"config_kwargs": {"connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": attempts}}
    return {"requests_timeout": READ_S} if protocol in _GCS else {}


def _info(fs: Any, path: str) -> dict[str, Any]:
    try:
        return fs.info(path)
    except FileNotFoundError as error:
        if protocol_of(path) in WEB and error.__cause__:
            raise error.__cause__ from None  # fsspec says "not found" whatever went wrong
        raise


def _entries(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """The file ``path``, or what is right inside the folder ``path``."""
    info = _info(fs, path)
    if info["type"] != "directory":
        return {path: info}
    found, folder = _inside(fs, path), path.rstrip("/")
    names = {name.rpartition("/")[2] for name in found}
    saved = data_files(f"{folder}/", names, lambda name: fs.cat_file(f"{folder}/{name}"))
    return found if saved is None else {name: found[name] for name in (f"{folder}/{one}" for one in saved)}


def _of_repository(where: str, fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """The data files of the dataset ``path`` of the hub, wherever in it; they must be shards of one set."""
    files = {
        name: info
        for name, info in fs.find(path, detail=True).items()
        if format_of(name) and not any(is_passed_over(part) for part in name.split("/"))
    }
    sets = sorted({_SHARD.sub("*", name) for name in files})
    if len(sets) > 1:
        inner = ", ".join(printable(name.removeprefix(f"{path}/")) for name in sets[:_SETS_SHOWN])
        more = f" and {len(sets) - _SETS_SHOWN} more" if len(sets) > _SETS_SHOWN else ""
        raise TsdsError(
            f'{where}: "hf://{printable(path)}" holds several sets of files ({inner}{more}): name those that '
            f'count, as in path = "hf://{printable(sets[0])}"'
        )
    return files


def _inside(fs: Any, folder: str) -> dict[str, dict[str, Any]]:
    listed = {info["name"].rstrip("/"): info for info in fs.ls(folder, detail=True)}
    listed.pop(folder, None)  # object stores mark an empty folder by an object of its name
    return listed


def _matches(fs: Any, pattern: str) -> dict[str, dict[str, Any]]:
    """The files that ``pattern`` fits. ``fs.glob`` would leave out in silence what it cannot list."""
    parts = pattern.split("/")
    wild = next(i for i, part in enumerate(parts) if "*" in part or "?" in part)
    deep = parts.index("**") if "**" in parts else len(parts)
    fits = re.compile(_expression(parts))
    folders, found = ["/".join(parts[:wild])], {}
    for folder in folders:
        for name, info in _inside(fs, folder).items():
            depth = name.count("/") + 1
            if info["type"] != "directory":
                found |= {name: info} if fits.fullmatch(name) else {}
            elif depth > deep or (depth < len(parts) and re.fullmatch(_expression(parts[:depth]), name)):
                folders.append(name)
    return found


def _expression(parts: list[str]) -> str:
    """The regular expression of a pattern. ``**`` is any number of folders; "[" is a character like any other."""
    *folders, last = parts
    folders = [r"(?:[^/]+/)*" if part == "**" else _segment(part) + "/" for part in folders]
    return "".join(folders) + (".*" if last == "**" else _segment(last))


def _segment(part: str) -> str:
    return "".join({"*": "[^/]*", "?": "[^/]"}.get(c) or re.escape(c) for c in part)


def identity_of(where: str, address: str, info: dict[str, Any]) -> str:
    said = {re.sub(r"[^a-z0-9]", "", key.lower()): str(value) for key, value in info.items() if value}
    for key in _OF_CONTENT:
        if key in said:
            return content_hash(address, key, said[key])
    for key in _OF_CHANGE:
        if key in said and "size" in said:
            return content_hash(address, key, said[key], said["size"])
    raise TsdsError(
        f'{where}: "{printable(address)}": the server gives no ETag, checksum or time of change, so no change '
        "would be noticed: copy the file to the project folder and name that"
    )


class UnreachableError(TsdsError):
    """The server did not answer, or said that it cannot now. How that is worded may be another at each look."""


@contextmanager
def explained(where: str, address: str, remember: bool = False, doing: str = "read") -> Iterator[None]:
    """Turns whatever goes wrong with ``address`` into a :class:`TsdsError`."""
    name, server = f'{where}: "{printable(address)}"', server_of(address)
    since, reason = _failed_slowly.get(server, (0.0, ""))
    if reason and remember and time.monotonic() - since < FORGET_S:
        raise UnreachableError(f"{name}: {reason}")
    started = time.monotonic()
    try:
        yield
    except TsdsError:
        raise
    except Exception as error:  # each protocol has a library with errors of its own
        _disconnect(address)
        reason = _reason(error, address, doing)
        passing = may_pass(error) or not _is_answer(error)
        if remember and time.monotonic() - started > SLOW_S and passing:
            _failed_slowly[server] = (time.monotonic(), reason)
        raise (UnreachableError if passing else TsdsError)(f"{name}: {reason}") from None


def _disconnect(address: str) -> None:
    """So that the next look has the credentials and the server that there are then: fsspec keeps its connections."""
    import fsspec

    with suppress(ImportError, ValueError):
        fsspec.get_filesystem_class(protocol_of(address)).clear_instance_cache()


def _is_answer(error: Exception) -> bool:
    """Whether it is about this one address, and not about the server."""
    about_it = isinstance(error, FileNotFoundError | PermissionError | ImportError)
    return about_it or status_of(error) is not None


def _reason(error: Exception, address: str, doing: str) -> str:
    """What went wrong and what to do about it."""
    status = status_of(error)
    words = printable(without_secrets((str(error).strip() or type(error).__name__).splitlines()[0]))
    if isinstance(error, ImportError):
        missing = (_missing_module(error) or "the package").partition(".")[0]
        return f"needs a package that is not installed ({words}): pip install {missing}"
    if status in (401, 403) or isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        said = f"status {status}" if status else words
        return f"access is refused ({said}): give credentials in the environment, or correct the address"
    if status in (404, 410):
        return f"there is no such file (status {status}): correct the address"
    if isinstance(error, FileNotFoundError):
        if protocol_of(address) == HUB:
            said = words.partition(". ")[0]  # then the library's own advice
            return f"there is nothing ({said}): correct the address, or give HF_TOKEN in the environment"
        said = "" if words in address else f" ({words})"
        return f"there is nothing{said}: correct the address"
    if status:
        return f"the server answers with status {status}: try again later, or correct the address"
    if isinstance(error, TimeoutError):
        words = "no answer in time"
    return (
        f"cannot be {doing} ({words}): see whether the address is right and the server up, then refresh again"
    )


def _missing_module(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return error.name
        error = error.__cause__ or error.__context__
    return None
