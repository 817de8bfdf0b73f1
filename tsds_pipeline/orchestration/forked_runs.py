"""Runs of a code server start as copies of a process that has imported Dagster.

Dagster starts a new Python for each run, which imports everything again: seconds of processor time, many times what
most runs take. A process that only has imported, and started no threads, can be copied in milliseconds.
"""

import multiprocessing
import sys

PRELOADED = (
    "dagster._cli.api",
    "dagster._grpc.impl",
    "dagster._core.storage.event_log",
    "dagster._core.storage.runs",
    "dagster._core.storage.schedules",
)
"""Modules that start no threads: those of numpy and Polars do, and are left to each run."""


def fork_runs() -> None:
    """Let the code server that imports the definitions in this process start its runs that way; else do nothing."""
    server = sys.modules.get("dagster._grpc.server")
    if server is None or "forkserver" not in multiprocessing.get_all_start_methods():
        return
    start = server.DagsterApiServer.StartRun
    if start.__module__ != server.__name__:
        return
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(list(PRELOADED))

    def start_run(self, request, context):
        self._mp_ctx = forking
        return start(self, request, context)

    server.DagsterApiServer.StartRun = start_run
