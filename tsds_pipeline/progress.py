"""How long work says how far it is: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tsds_pipeline.logs import is_json

Progress = Callable[[int, int], None]
"""Called with (done, total). Work with nothing to do does not call it."""

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_bar(description: str, log: Callable[[str], None]) -> Iterator[Progress]:
    """A :data:`Progress` that draws a bar on standard error when that is a terminal, else writes lines to it.

    The lines go to ``log`` too, the log of the run. Nothing is shown before the first call, nor, without a
    terminal, for work shorter than ten seconds.
    """
    if is_json() or not sys.stderr.isatty():
        yield _lines(description, log)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        # What was done is said when a step ends; a bar for each of many partitions would only pile up.
        transient=True,
    )
    task = bar.add_task(description, total=None, rate="")
    rate = _Rate()

    def show(done: int, total: int) -> None:
        bar.start()
        now = rate(done)
        bar.update(task, completed=done, total=total, rate="" if now is None else _per_second(now))

    try:
        yield show
    finally:
        bar.stop()


def _lines(description: str, log: Callable[[str], None]) -> Progress:
    written = time.monotonic()
    rate = _Rate()

    def show(done: int, total: int) -> None:
        nonlocal written
        now = rate(done)
        if time.monotonic() - written < SECONDS_BETWEEN_LINES:
            return
        written = time.monotonic()
        left = f", about {_duration((total - done) / now)} left" if now and done < total else ""
        pace = "" if now is None else f" ({_per_second(now)}{left})"
        line = f"{description}: {done:,} of {total:,}{pace}"
        log(line)
        if not is_json():
            print(line, file=sys.stderr, flush=True)

    return show


class _Rate:
    """How much is done in a second since the first call, or None: what came before it was loading a model."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int) -> float | None:
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        since, before = self._first
        return (done - before) / (now - since) if done > before and now > since else None


def _per_second(rate: float) -> str:
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds:02}s" if minutes else f"{seconds}s"
