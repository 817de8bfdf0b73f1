"""One refresh of a project at a time, and one `tsds dev`. A lock ends with its process at the latest."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from tsds_pipeline.errors import TsdsError, unwritable
from tsds_pipeline.object_storage import held
from tsds_pipeline.project import Project

LOCK_FILE = ".lock"


@contextmanager
def refresh_lock(project: Project, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of the project's only refresh. While another process has it: TsdsError, or ``wait``.

    Where results are kept on object storage that of other machines too, whose results are here inside.
    """
    with _lock_file(project.storage / LOCK_FILE) as file:
        if not _taken(file, wait):
            raise TsdsError(
                f"{project.root}: another refresh is under way{_holder(file)}: wait until it has ended"
            )
        hold(file, os.getpid())
        with held(project, wait=wait):
            yield


@contextmanager
def dev_lock(project: Project) -> Iterator[TextIO]:
    """Hold the lock of the project's only `tsds dev`; TsdsError while another process has it.

    A process that inherits the file that it gives holds the lock too; :func:`hold` names it.
    """
    with _lock_file(project.dagster_home / LOCK_FILE) as file:
        if not _taken(file, wait=False):
            raise TsdsError(f"{project.root}: another `tsds dev` is running{_holder(file)}: end that first")
        hold(file, os.getpid())
        yield file


def is_refreshing(project: Project) -> bool:
    """Whether a process holds :func:`refresh_lock` at this moment."""
    return _is_held(project.storage / LOCK_FILE)


def is_developing(project: Project) -> bool:
    """Whether a process holds :func:`dev_lock` at this moment."""
    return _is_held(project.dagster_home / LOCK_FILE)


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    with _lock_file(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder_of(path: Path) -> str | None:
    """The process that holds the lock file ``path``, empty where it does not say; None where nobody does.

    Unlike everything else here it makes no file.
    """
    try:
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(20).strip()
    except FileNotFoundError:
        pass
    return None


def _taken(file: TextIO, wait: bool) -> bool:
    """Whether the lock could be had; a few tries, as whoever only looks has it for an instant."""
    for _ in range(5):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


def _holder(file: TextIO) -> str:
    file.seek(0)
    holder = file.read(20).strip()
    return f" (process {holder})" if holder else ""


def hold(file: TextIO, process: int) -> None:
    """Let the lock's ``file`` name the ``process`` that holds it, where the disk has room for that."""
    os.ftruncate(file.fileno(), 0)
    with suppress(OSError):
        os.write(file.fileno(), str(process).encode())


def _lock_file(path: Path) -> TextIO:
    try:
        path.parent.mkdir(exist_ok=True)
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise unwritable(error.filename, error) from None
