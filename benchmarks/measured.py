"""Measuring one process: what it is told and tells through files, its peak memory, the seconds of its stages."""

import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_POLL_SECONDS = 0.02


def run(script: str, spec: dict, folder: Path, show: bool = False) -> dict:
    """``script`` of this folder in a fresh process; what it reports, and ``peak`` and ``own_peak`` in bytes.

    ``peak`` is the most memory that was resident, ``own_peak`` the most without what is mapped from files, as often
    looked at. Where it fails, the report is ``failed``: why. ``folder`` is made, for what it is told and tells;
    with ``show`` what it prints is seen.
    """
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(spec))
    # The package beside this folder, whichever is installed.
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / script), str(folder)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
            stdout=None if show else log,
            stderr=log,
        )
        peak = own_peak = 0
        while process.poll() is None:
            memory = _memory(process.pid)
            peak, own_peak = max(peak, memory["VmHWM"]), max(own_peak, memory["RssAnon"])
            time.sleep(_POLL_SECONDS)
    report = _report(folder, process.returncode)
    return {"peak": peak, "own_peak": own_peak} | report


def _report(folder: Path, code: int) -> dict:
    if code == 0:
        return json.loads((folder / "report.json").read_text())
    if code < 0:
        return {"failed": f"ended by signal {-code}" + (", as for want of memory" if code == -9 else "")}
    lines = (folder / "log.txt").read_text("utf-8", "replace").strip().splitlines()
    return {"failed": lines[-1] if lines else f"exit code {code}"}


def _memory(process: int | str) -> Counter:
    """Of a process, in bytes; nothing where the system has no /proc, or the process has ended.

    Not getrusage: its peak of a child begins with what the parent had before.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return Counter()
    fields = (line.split() for line in lines if line.startswith(("VmHWM:", "RssAnon:")))
    return Counter({name.rstrip(":"): int(size) * 1024 for name, size, _ in fields})


# In the measured process.


def spec() -> dict:
    return json.loads((Path(sys.argv[1]) / "spec.json").read_text())


def peak() -> int:
    """Of this process so far, in bytes."""
    return _memory("self")["VmHWM"]


def report(result: dict) -> None:
    (Path(sys.argv[1]) / "report.json").write_text(json.dumps(result))


class StageClock:
    """Seconds of the main thread by stage; a stage within another counts for itself only."""

    def __init__(self) -> None:
        self._seconds: Counter = Counter()
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def take(self) -> dict[str, float]:
        """The seconds since it was asked last."""
        taken, self._seconds = dict(self._seconds), Counter()
        return taken

    def watch(self, owner: Any, function: str, stage: str) -> None:
        """From now on, the time in ``owner.function`` counts as ``stage``."""
        original: Callable = getattr(owner, function)

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return original(*args, **kwargs)
            with self.stage(stage):
                return original(*args, **kwargs)

        setattr(owner, function, timed)

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now
