"""What a SELECT reads, from its own text. Nothing is bound or run, so files that are not there are no obstacle."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.wording import shortened

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# These read files by themselves, which no lineage sees.
_FILE_READERS = re.compile(r"read_.*|.*_scan|parquet_.*|glob|sniff_csv|query|query_table")
_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Table:
    """A table that a statement reads: not one that it defines itself (WITH)."""

    name: str
    """In lower case, as names mean the same however they are written."""
    line: int


@dataclass(frozen=True)
class Select:
    """One SELECT: its text up to the semicolon, with all lines before it, and what it reads, in order."""

    text: str
    tables: tuple[Table, ...]


@lru_cache(maxsize=1024)
def parse_select(file: str, text: str) -> Select:
    """The only statement of ``text``, the content of ``file``. TsdsError where it is not exactly one SELECT."""
    import duckdb

    connection = _parser()
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise sql_error(file, error) from None
    if not statements:
        raise TsdsError(f"{file}: is empty: write one SELECT")
    if len(statements) > 1:
        line = text[: text.rindex(statements[1].query.strip())].count("\n") + 1
        raise TsdsError(f"{file}:{line}: a second statement begins here: one SELECT a file")
    (document,) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
    document = json.loads(document)
    if document["error"]:
        kind = statements[0].type.name
        # PIVOT comes in several statements.
        what = "PIVOT without IN" if kind == "MULTI" else kind
        raise TsdsError(f"{file}: is no SELECT but {what}: write one SELECT")
    encoded = text.encode()
    tables = sorted(set(_tables(document, frozenset(), file, encoded)))
    return Select(_without_semicolon(encoded), tuple(Table(name, _line(encoded, at)) for at, name in tables))


def sql_error(file: str, error: Exception) -> TsdsError:
    """What DuckDB says of the text of ``file``, with the line where it tells one."""
    said, _, place = str(error).partition("\n\nLINE ")
    line = re.match(r"\d+", place)
    message = shortened(" ".join(said.split()), _LONGEST_MESSAGE)
    return TsdsError(f"{file}:{line[0]}: {message}" if line else f"{file}: {message}")


@lru_cache(maxsize=1)
def _parser() -> "DuckDBPyConnection":
    import duckdb

    return duckdb.connect(config={"threads": 1, "enable_external_access": False, "lock_configuration": True})


def _tables(node: Any, known: frozenset[str], file: str, text: bytes) -> Iterator[tuple[int, str]]:
    """(place, name) of every table under ``node`` that is not one of WITH; those in scope are ``known``."""
    if isinstance(node, list):
        for one in node:
            yield from _tables(one, known, file, text)
    if not isinstance(node, dict):
        return
    for entry in (node.get("cte_map") or {}).get("map", ()):
        name = entry["key"].lower()
        # In its own definition the name is what it was before, unless it is recursive.
        inside = known | {name} if _is_recursive(entry["value"]) else known
        yield from _tables(entry["value"], inside, file, text)
        known = known | {name}
    if node.get("type") == "BASE_TABLE":
        name = ".".join(part for part in (node["catalog_name"], node["schema_name"]) if part)
        table = node["table_name"].lower()
        if name or table not in known:
            yield _place(node), f"{name}.{table}".lower() if name else table
    function = node["function"].get("function_name", "") if node.get("type") == "TABLE_FUNCTION" else ""
    if _FILE_READERS.fullmatch(function.lower()):
        raise TsdsError(
            f"{file}:{_line(text, _place(node))}: {function} reads what no lineage sees: read relations and models only"
        )
    if node.get("type") == "SHOW_REF":
        raise TsdsError(f"{file}: DESCRIBE, SHOW and SUMMARIZE are for the prompt: write one SELECT")
    for key, value in node.items():
        if key != "cte_map":
            yield from _tables(value, known, file, text)


def _is_recursive(value: dict[str, Any]) -> bool:
    """Whether the entry ``value`` of WITH may read itself."""
    node = value.get("query_node") or value.get("query", {}).get("node") or {}
    return node.get("type") == "RECURSIVE_CTE_NODE"


def _place(node: dict[str, Any]) -> int:
    """In bytes. The parser gives the largest integer where it knows none."""
    return node.get("query_location", 0)


def _line(text: bytes, place: int) -> int:
    return text[:place].count(b"\n") + 1 if place < len(text) else 1


def _without_semicolon(text: bytes) -> str:
    import duckdb

    tokens = [at for at, kind in duckdb.tokenize(text.decode()) if kind != duckdb.token_type.comment]
    last = tokens[-1]
    return (text[:last] if text[last : last + 1] == b";" else text).decode()
