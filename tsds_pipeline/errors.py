"""The one error class a user meets: bad input, bad settings, a missing optional package; and how it quotes.

The command line prints its message as one line, without a traceback. Programming errors keep their
own types. The numeric core raises ``ValueError`` and knows nothing of this module.
"""


class TsdsError(ValueError):
    """A problem the user can fix. The message names the file, line or key, the value and the remedy.

    Whatever of somebody's data is quoted in it is printable: a terminal or a log does nothing but show it.
    """

    def __init__(self, message: str):
        super().__init__("\n".join(map(printable, message.split("\n"))))


class UnusableVectorError(TsdsError):
    """A record has no usable vector: its source cannot go on as it is, the others can."""


def printable(text: str) -> str:
    """``text`` on one line that every terminal and encoding takes, for use in a message."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
