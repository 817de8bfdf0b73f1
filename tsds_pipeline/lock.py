"""One refresh of a project at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.project import Project

LOCK_FILE = ".lock"


@contextmanager
def refresh_lock(project: Project, *, wait: bool = False) -> Iterator[None]:
    """Hold the project's lock; it ends with the process at the latest.

    While another process has it: TsdsError, or ``wait`` until it has not.
    """
    path = project.storage / LOCK_FILE
    try:
        project.storage.mkdir(exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise TsdsError(f"{error.filename}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = file.read(20).strip()
            process = f" (process {holder})" if holder else ""
            raise TsdsError(
                f"{project.root}: another refresh is under way{process}: wait until it has ended"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
