"""The prompt of `tsds sql`, and how it prints results."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from tsds_pipeline.cli.terminal import complain, cut, one_line, print_table, say, width
from tsds_pipeline.errors import TsdsError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from rich.table import Table

MOST_ROWS = 1000
"""Of a table; csv and json have all."""
_AT_ONCE = 1000
_WIDEST, _NARROWEST, _BETWEEN = 60, 8, 2
_LISTED = (
    "SELECT view_name AS name, comment AS description FROM duckdb_views() WHERE NOT internal ORDER BY name"
)
_NAMES = """\
SELECT table_name FROM duckdb_columns() WHERE NOT internal
UNION SELECT column_name FROM duckdb_columns() WHERE NOT internal"""
_WRITING = ("COPY", "EXPORT", "ATTACH", "LOAD")
# PREPARE would hide one of them, and EXPLAIN ANALYZE does it.
_HIDING = ("PREPARE", "EXPLAIN")
_HELP = """\
A query ends with a semicolon and may take several lines.
.tables     what can be read
.help       this
.quit       leave, as does Ctrl-D; Ctrl-C clears the line, or stops the query
DESCRIBE x; the columns of x"""


class Shell:
    """Runs queries on ``connection`` and prints their results in ``form``: table, csv or json."""

    def __init__(self, connection: "DuckDBPyConnection", form: str = "table"):
        self._connection, self._form = connection, form

    def run(self, text: str) -> None:
        """The statements of ``text``, or a command that begins with a dot. TsdsError for what does not work."""
        import duckdb

        from tsds_pipeline.sql.lineage import sql_error
        from tsds_pipeline.sql.warehouse import run_query

        try:
            for statement in self._statements(text):
                # A database that is opened to be read still writes files.
                if (word := _writing(statement)) is not None:
                    raise TsdsError(
                        f"query: {word} is not for here, where nothing is changed: read with SELECT, "
                        "and write what comes out with --format csv or json"
                    )
                run_query(self._connection, statement)
                if self._connection.description is not None:
                    self._print([column[0] for column in self._connection.description])
        except duckdb.Error as error:
            raise sql_error("query", error) from None

    def loop(self) -> None:
        """Ask until there is an end of it."""
        _prepare_line_editing(self._connection)
        say("SQL on the results of the project: .tables lists what can be read, .help says more", dim=True)
        lines: list[str] = []
        while True:
            try:
                lines.append(input("  ... " if lines else "tsds> "))
                text = "\n".join(lines).strip()
                if text in (".quit", ".exit"):
                    return
                if text.startswith(".") or _is_complete(text):
                    lines = []
                    self.run(text)
                elif not text:
                    lines = []
            except EOFError:
                say()
                return
            except KeyboardInterrupt:
                lines = []
                say()
            except TsdsError as error:
                complain("error", str(error))

    def _statements(self, text: str) -> Iterable[Any]:
        command = text.strip().rstrip(";").strip()
        if command == ".tables":
            return self._connection.extract_statements(_LISTED)
        if command == ".help":
            say(_HELP)
            return []
        if command.startswith("."):
            raise TsdsError(f'there is no command "{command}": .help lists those that there are')
        return self._connection.extract_statements(text)

    def _print(self, columns: list[str]) -> None:
        if self._form == "table":
            self._print_table(columns)
        elif self._form == "csv":
            click.echo(_csv_lines([columns]), nl=False)
            for rows in self._batches():
                click.echo(_csv_lines(rows), nl=False)
        else:
            self._print_json(columns)

    def _print_table(self, columns: list[str]) -> None:
        rows = self._connection.fetchmany(MOST_ROWS + 1)
        shown = rows[:MOST_ROWS]
        table, left_out = _table(columns, shown)
        print_table(table)
        if left_out:
            named = ", ".join(columns[-left_out:])
            say(f"no place for {named}", dim=True)
        if len(rows) > MOST_ROWS:
            say(f"the first {MOST_ROWS:,} rows; `tsds sql --format csv` gives all of them", dim=True)
        else:
            say(f"{len(rows):,} row{'s' * (len(rows) != 1)}", dim=True)

    def _print_json(self, columns: list[str]) -> None:
        begin = "["
        for rows in self._batches():
            for row in rows:
                named = dict(zip(columns, map(_plain, row), strict=True))
                click.echo(f"{begin}\n {json.dumps(named, ensure_ascii=False)}", nl=False)
                begin = ","
        click.echo("[]" if begin == "[" else "\n]")

    def _batches(self) -> Iterator[list[tuple]]:
        while rows := self._connection.fetchmany(_AT_ONCE):
            yield rows


def _writing(statement: Any) -> str | None:
    """What in ``statement`` may write a file or read another database, if anything does."""
    import duckdb

    kind = statement.type.name
    if kind in _HIDING:
        text = statement.query.encode()
        tokens = [at for at, what in duckdb.tokenize(statement.query) if what == duckdb.token_type.keyword]
        words = [re.match(rb"\w+", text[at:]) for at in tokens]
        found = [word.group().decode().upper() for word in words if word]
        return next((word for word in found if word in _WRITING), "PREPARE" if kind == "PREPARE" else None)
    return kind if kind in _WRITING else None


def _table(columns: Sequence[str], rows: Sequence[tuple]) -> tuple["Table", int]:
    """As wide as the terminal, with the widest columns cut most, and how many columns had no place in it."""
    from rich.cells import cell_len
    from rich.table import Table

    cells = [[one_line(name) for name in columns], *([_cell(value) for value in row] for row in rows)]
    natural = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    cap, shown = _fitting(natural, width())
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(cells[0][:shown]):
        numeric = all(isinstance(row[number], int | float | Decimal | None) for row in rows)
        table.add_column(cut(name, cap), justify="right" if numeric and rows else "left", no_wrap=True)
    for row in cells[1:]:
        table.add_row(*(cut(cell, cap) for cell in row[:shown]))
    return table, len(columns) - shown


def _fitting(natural: Sequence[int], total: int) -> tuple[int, int]:
    """How wide columns may be, and how many of them there is place for, where ``natural`` are their widths."""
    for shown in range(len(natural), 0, -1):
        for cap in range(_WIDEST, _NARROWEST - 1, -1):
            if sum(min(one, cap) + _BETWEEN for one in natural[:shown]) <= total:
                return cap, shown
    return _NARROWEST, 1


def _is_complete(text: str) -> bool:
    """Whether ``text`` ends with the semicolon of a statement, not with one in a string or a comment."""
    import duckdb

    tokens = [at for at, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    return bool(tokens) and text.encode()[tokens[-1] :].startswith(b";")


def _prepare_line_editing(connection: "DuckDBPyConnection") -> None:
    """Arrow keys, a history, and names of tables and columns after a tab, where Python has readline."""
    with suppress(ImportError):
        import readline

        found = connection.execute(_NAMES)
        names = sorted(name for (name,) in found.fetchall())

        def complete(text: str, number: int) -> str | None:
            return dict(enumerate(name for name in names if name.startswith(text))).get(number)

        readline.set_completer(complete)
        readline.parse_and_bind("tab: complete")


def _csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([_field(value) for value in row] for row in rows)
    return written.getvalue()


def _field(value: Any) -> Any:
    if isinstance(value, bool | list | dict):
        return json.dumps(_plain(value), ensure_ascii=False)
    return value


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float | Decimal):
        return f"{float(value):.6g}"
    return one_line(str(_field(value)))


def _plain(value: Any) -> Any:
    """``value`` in what JSON has."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
