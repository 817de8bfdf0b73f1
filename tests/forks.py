"""The `tsds` command in processes that start at once, all imports done: to be killed, starved or run side by side.

They are forked from a process that imported the package and nothing of the tests.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "duckdb",
        "faiss",
        "polars",
        "tsds_pipeline.cli",
        "tsds_pipeline.definitions",
        "tsds_pipeline.assets.checks",
    ]
)
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "sqlite3.connect")


class Fork:
    """`tsds` with ``arguments`` in a process of its own, about the project ``root``.

    It is killed (SIGKILL) as it is about to make its ``fatal``-th change below ``root``; with 0 it is not. ``first``, a
    function of a module, is called in it before the command.
    """

    def __init__(
        self, root: Path, *arguments: str, fatal: int = 0, first: Callable[[], object] | None = None
    ):
        self._output = tempfile.NamedTemporaryFile("r", encoding="utf-8", suffix=".txt")  # noqa: SIM115
        self._changes = _context.Value("q", 0, lock=False)
        options = (root, arguments, fatal, first, self._output.name, self._changes)
        self._process = _context.Process(target=_run, args=options)
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def changes(self) -> int:
        """How many changes below its folder it made, or was about to make, so far."""
        return self._changes.value

    @property
    def output(self) -> str:
        """What it said so far, on both streams."""
        return Path(self._output.name).read_text("utf-8")

    def is_running(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def wait(self, seconds: float = 300) -> int:
        """Its exit status; -9 where it was killed."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, "it hangs"
        return self._process.exitcode


def _run(
    root: Path,
    arguments: tuple[str, ...],
    fatal: int,
    first: Callable[[], object] | None,
    output: str,
    changes: Synchronized,
) -> None:
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    if first is not None:
        first()
    below = os.path.join(root, "")

    def count(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR) or isinstance(path, int):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if os.fsdecode(path).startswith(below):
            changes.value += 1
            if changes.value == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    from tsds_pipeline.cli import main

    with (
        contextlib.redirect_stdout(open(1, "w", closefd=False)),
        contextlib.redirect_stderr(open(2, "w", closefd=False)),
    ):
        # `tsds demo` names its folder itself.
        named = [] if arguments[0] == "demo" else ["-p", str(root)]
        main([*named, *arguments], prog_name="tsds")
