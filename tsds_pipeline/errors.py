"""The one error class a user meets: bad input, bad settings, a missing optional package.

The command line prints its message as one line, without a traceback. Programming errors keep their
own types. The numeric core raises ``ValueError`` and knows nothing of this module.
"""


class TsdsError(ValueError):
    """A problem the user can fix. The message names the file, line or key, the value and the remedy."""
