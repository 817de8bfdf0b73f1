"""The one error class a user meets: bad input, bad settings, a missing optional package; and how it quotes.

The command line prints its message as one line, without a traceback. Programming errors keep their
own types. The numeric core raises ``ValueError`` and knows nothing of this module.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_SPACE = "no space left on its disk: free some (`tsds gc` deletes what nothing needs), then run the same command again"


class TsdsError(ValueError):
    """A problem the user can fix. The message names the file, line or key, the value and the remedy."""


class UnusableVectorError(TsdsError):
    """A record has no usable vector: its source cannot go on as it is, the others can."""


@contextmanager
def told_of_full_disk(path: Path) -> Iterator[None]:
    """Turns what goes wrong inside because the disk of ``path`` is full into a :class:`TsdsError`."""
    try:
        yield
    except TsdsError:
        raise
    except Exception as error:
        if out_of_space(error):
            raise TsdsError(f"{path}: {NO_SPACE}") from error
        raise


def out_of_space(error: BaseException | None) -> bool:
    """Whether ``error`` comes of a full disk or a used up quota, as each library that writes tells it."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in ("No space left on device", "database or disk is full")):
            return True
        error = error.__cause__ or error.__context__
    return False


def printable(text: str) -> str:
    """``text`` on one line that every terminal and encoding takes, for use in a message."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
