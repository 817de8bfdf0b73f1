"""The one error class a user meets: bad input, bad settings, a missing optional package; and how it quotes.

The command line prints its message as one line, without a traceback. Programming errors keep their
own types. The numeric core raises ``ValueError`` and knows nothing of this module.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LITTLE = 2**20
_REMEDY = "make its folder writable and run the same again"
NO_SPACE = (
    "no space left on its disk: free some (`tsds gc` deletes what nothing needs) and run the same again"
)


class TsdsError(ValueError):
    """A problem the user can fix. The message names the file, line or key, the value and the remedy.

    Whatever of somebody's data is quoted in it is printable: a terminal or a log does nothing but show it.
    """

    def __init__(self, message: str):
        super().__init__("\n".join(map(printable, message.split("\n"))))


class UnusableVectorError(TsdsError):
    """A record has no usable vector: its source cannot go on as it is, the others can."""


@contextmanager
def told_of_disk(path: Path) -> Iterator[None]:
    """Turns what goes wrong inside because ``path`` cannot be written into a :class:`TsdsError`."""
    try:
        yield
    except TsdsError:
        raise
    except Exception as error:
        # What SQLite says where it has no room for the index of its log.
        unsure = any("disk I/O error" in str(one) for one in chain(error))
        there = next(place for place in (path, *path.parents) if place.exists())
        if out_of_space(error) or (unsure and shutil.disk_usage(there).free < _LITTLE):
            raise TsdsError(f"{path}: {NO_SPACE}") from None
        if reason := _refused(error, path):
            raise TsdsError(f"{path}: cannot be written ({reason}): {_REMEDY}") from None
        raise


def unwritable(path: Path | str, error: OSError) -> TsdsError:
    """The error that says why ``path`` could not be written."""
    problem = NO_SPACE if out_of_space(error) else f"cannot be written ({error.strerror}): {_REMEDY}"
    return TsdsError(f"{path}: {problem}")


def out_of_space(error: BaseException) -> bool:
    """Whether ``error`` comes of a full disk or a used up quota, as each library that writes tells it."""
    return any(
        getattr(one, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or any(words in str(one) for words in ("No space left on device", "database or disk is full"))
        for one in chain(error)
    )


def _refused(error: BaseException, path: Path) -> str | None:
    """In which words the system, or SQLite, refused to write ``path`` or what is beside or in it."""
    for one in chain(error):
        beside = str(getattr(one, "filename", None) or "").startswith(str(path.parent))
        if beside and getattr(one, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS):
            return os.strerror(one.errno)
        for words in ("attempt to write a readonly database", "unable to open database file"):
            if words in str(one):
                return words
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def printable(text: str) -> str:
    """``text`` on one line that every terminal and encoding takes, for use in a message."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
