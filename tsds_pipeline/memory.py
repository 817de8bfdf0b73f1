"""How much memory this process takes at most while it makes something."""

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

_SELF = Path("/proc/self")


def forget_peak() -> None:
    """Let :func:`peak_memory` count from here on, where the system can; elsewhere it is that of the process so far."""
    with suppress(OSError):
        (_SELF / "clear_refs").write_text("5")


def peak_memory() -> int:
    """The most memory that this process had at one time, in bytes (resident, with mapped files)."""
    with suppress(OSError):
        if found := re.search(r"^VmHWM:\s*(\d+) kB", (_SELF / "status").read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
