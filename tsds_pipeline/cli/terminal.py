"""Printing for people: text that no terminal chokes on, tables as wide as the terminal, a line that says what goes on.

Data is never trusted: what comes out of files loses control characters and escape sequences before it is shown.
"""

import codecs
import logging
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tsds_pipeline import logs
from tsds_pipeline.errors import TsdsError

if TYPE_CHECKING:
    from rich.table import Table

WIDTH_ELSEWHERE = 120
"""Columns where the output is no terminal and COLUMNS does not say."""
NARROWEST = 60
"""A narrower terminal wraps lines: better than columns without anything in them."""
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d).*?(?:\x07|\x1b\\|\x9c|$)|\x1b.")
_PLAIN = {"█": "#", "…": "~", "“": '"', "”": '"', "–": "-", "’": "'"}
_COLORS = {
    "error": "red",
    "failed": "red",
    "problem": "red",
    "waiting": "yellow",
    "warning": "yellow",
    "hint": "cyan",
}
_LEVELS = {"waiting": logging.WARNING, "warning": logging.WARNING, "hint": logging.INFO}


def one_line(text: str) -> str:
    """``text`` on one line, without control characters, escape sequences and what else has no shape."""
    text = _ESCAPES.sub("", text)
    return " ".join("".join(c if c.isprintable() else " " * c.isspace() for c in text).split())


def cut(text: str, width: int) -> str:
    """``text`` as one safe line of at most ``width`` columns."""
    from rich.cells import cell_len, set_cell_size

    text = one_line(text)
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)).rstrip() + "…"


def say(text: str = "", **style: Any) -> None:
    """A line on standard output, never cut."""
    click.echo(click.style(text, **style) if style else text)


def tell(text: str) -> None:
    """A line about how work goes on: on standard output, or in the log where that is JSON."""
    if logs.is_json():
        logs.log(logging.INFO, one_line(text))
    else:
        say(text)


def complain(kind: str, text: str, **fields: Any) -> None:
    """``kind: text`` on standard error; further lines of ``text`` are indented.

    ``fields`` say what it is about where the log is JSON, which it goes to then.
    """
    if logs.is_json():
        logs.log(_LEVELS.get(kind, logging.ERROR), text, kind=kind, **fields)
        return
    first, *more = [one_line(line) for line in text.splitlines()] or [""]
    click.echo(f"{click.style(kind, fg=_COLORS[kind])}: {first}", err=True)
    for line in more:
        click.echo(f"  {line}", err=True)


def check_output(option: str, path: Path) -> None:
    """TsdsError unless ``path`` is, or can become, a regular file: what is written takes the place of what is there."""
    target = path.resolve()
    if not target.parent.is_dir() or (target.exists() and not target.is_file()):
        raise TsdsError(f"{option} {path}: must be a file in a folder that exists")


def width() -> int:
    """How many columns a table on standard output may have."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return max(shutil.get_terminal_size().columns if known else WIDTH_ELSEWHERE, NARROWEST)


def print_table(table: "Table") -> None:
    """``table`` on standard output, as wide as the terminal."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False, width=width())
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def plain_table(*columns: str, label: str = "", label_width: int = 0) -> "Table":
    """A table without lines, two columns in from the left.

    A column whose name begins with ">" is set right; the last one is cut to what is left. With ``label_width``
    there is a column before them whose name is ``label``.
    """
    from rich.table import Table

    named = bool(label) or any(name.lstrip(">") for name in columns)
    table = Table(
        box=None, show_header=named, header_style="dim", pad_edge=False, expand=True, padding=(0, 2, 0, 0)
    )
    table.add_column("", width=0)
    if label_width:
        table.add_column(label, width=label_width, header_style="bold")
    for name in columns[:-1]:
        justify = "right" if name.startswith(">") else "left"
        table.add_column(name.lstrip(">"), justify=justify, no_wrap=True, overflow="ellipsis")
    table.add_column(columns[-1], no_wrap=True, overflow="ellipsis", ratio=1, min_width=8)
    return table


def plain_streams() -> None:
    """Let output in an encoding that lacks a character replace it instead of failing."""
    codecs.register_error("tsds-plain", _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="tsds-plain")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c, "?") for c in lost), error.end


class Ticker:
    """One line on the terminal that says what is going on; elsewhere nothing.

    The cursor stays below it, where a progress bar may come and go.
    """

    def __init__(self) -> None:
        self.live = not logs.is_json() and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line."""
        self.clear()
        if self.live:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
            click.echo(cut(text, max(columns - 1, 10)), err=True)
            self._shown = True

    def clear(self) -> None:
        """Take the line away before something else is printed."""
        if self._shown:
            # Not through click, which takes such sequences out where colours are not wanted.
            sys.stderr.write("\x1b[1A\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False
