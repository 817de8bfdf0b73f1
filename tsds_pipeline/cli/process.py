"""`tsds` as a process of its own: its start and its end, which would take longer than many a command."""

import atexit
import gc
import os
import sys
import threading

from tsds_pipeline.cli.app import tsds

_GARBAGE = (50_000, 20, 50)
"""For ``gc.set_threshold``: nearly all of what an import allocates stays, and looking through it takes a second."""


def run() -> None:
    """The console script.

    It ends when its work and what was registered for its end are done: to take apart what Dagster imported would take
    another second.
    """
    gc.set_threshold(*_GARBAGE)
    try:
        tsds()
    except SystemExit as end:
        others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        if not all(thread.daemon for thread in others):
            raise  # which waits for them
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)
