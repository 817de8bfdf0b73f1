"""The files of a source, or of a query set, as one table; and beside it what could not be used.

Formats are known to ``reading``, what makes a record to ``records``, copies and variants to ``tables``.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

import polars as pl

from tsds_pipeline.content_hashes import TableHash, content_hash
from tsds_pipeline.corpus.chat_template import ChatTemplate
from tsds_pipeline.corpus.exclusions import (
    EVERYTHING,
    ColumnFilter,
    Excluded,
    TestSet,
    split_by_test_sets,
)
from tsds_pipeline.corpus.quarantine import (
    BadRecord,
    Quarantined,
    add_bad,
    first_reasons,
    quarantine_table,
    quarantined,
)
from tsds_pipeline.corpus.reading import read_records
from tsds_pipeline.corpus.records import RecordRules
from tsds_pipeline.corpus.tables import RowTable, collapsed, split_by_length
from tsds_pipeline.corpus.template import Template
from tsds_pipeline.corpus.vector_files import VectorFiles
from tsds_pipeline.corpus.vectors import FieldVectors, Vectors
from tsds_pipeline.errors import TsdsError, printable

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class SourceRecords:
    """What a source holds. The same records in any order, in any files, give the same corpus."""

    table: pl.DataFrame | pl.LazyFrame
    """One row a content id, sorted by it, with the columns

    * ``content_id``; ``text``, normalised; ``count``, how many copies of it there were;
    * ``record_ids``: the ids of all copies, distinct and sorted;
    * ``variants``: the different records among the copies, each with the first ``record_id`` that has it, and
      ``record``, all its fields but id and vector as canonical JSON; in the order of ``record_id``;
    * ``vector``, an array of float32, where vectors are given.

    A LazyFrame, over files in ``folder``, where it is too large for memory.
    """
    version: str
    """The content hash of the table."""
    copies: int
    """How many usable records there were: the sum of the counts."""
    quarantine: pl.DataFrame
    """One row a record that cannot be used: ``file``, ``line`` (from 1), ``reason``, ``excerpt``; sorted."""
    excluded: Excluded
    """The records that are not wanted."""
    folder: TemporaryDirectory | None = None
    """Where the files of ``table`` are, for as long as it is there."""

    @property
    def corpus(self) -> pl.DataFrame:
        """The table, in memory."""
        return self.table.lazy().collect()

    @property
    def judged(self) -> int:
        """How many records could be bad: all but those that are excluded."""
        return self.copies + len(self.quarantine)

    @property
    def read(self) -> int:
        """How many records there were: those that are judged and those that are excluded."""
        return self.judged + len(self.excluded)


def _named_in_errors(read: Callable[P, R]) -> Callable[P, R]:
    """``read`` whose errors call the files what its argument ``names`` does."""

    @functools.wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return read(*args, **kwargs)
        except TsdsError as error:
            message = str(error)
            for path, name in (kwargs.get("names") or {}).items():
                message = message.replace(printable(str(path)), name)
            raise TsdsError(message) from None

    return reading


@_named_in_errors
def read_source(
    paths: Sequence[Path],
    *,
    template: str | None,
    max_chars: int,
    vector_field: str | None,
    names: Mapping[Path, str] | None = None,
    wanted: ColumnFilter = EVERYTHING,
    test_sets: Sequence[TestSet] = (),
    chat_template: ChatTemplate | None = None,
    vector_files: Sequence[Path] = (),
    spill: Path | None = None,
) -> SourceRecords:
    """Read the candidates in ``paths``; ``names`` says what messages call a file, where that is not its path.

    The text of a record is made by ``template``, else, of a chat, by ``chat_template``, else found
    (``fields.SHAPES``), and has at most ``max_chars`` characters; ``vector_field`` names the field of vectors given
    with the data, or the column of those in ``vector_files``. What is wrong with a record is in the quarantine; what
    is not ``wanted``, or known to one of ``test_sets``, is excluded.

    What is too much for memory waits in files in the folder ``spill``; without one, everything stays in memory.
    Raises :class:`TsdsError` for a file that cannot be read as a whole, and for a template that is not understood.
    """
    named = _named(paths, names)
    rules = _rules(template, max_chars, vector_field, chat_template, vector_files, spill, names)
    rows, bad, excluded = _read(paths, named, rules, spill, wanted)

    def parts() -> Iterator[pl.DataFrame]:
        for part in _usable(rows, bad, named):
            if test_sets:
                part, known = split_by_test_sets(part, test_sets, named)
                excluded.add_table(known)
            yield collapsed(part)

    if rows.folder is None:
        (table,) = parts()
        version, copies = content_hash(table), int(table["count"].sum())
    else:
        table, version, copies = _stored(parts(), Path(rows.folder.name))
    return SourceRecords(table, version, copies, quarantine_table(bad), excluded, rows.folder)


def _stored(parts: Iterable[pl.DataFrame], folder: Path) -> tuple[pl.LazyFrame, str, int]:
    """The table that ``parts`` add up to, written to ``folder``, its content hash and the sum of its counts."""
    hashed, copies, paths = TableHash(folder), 0, []
    for number, part in enumerate(parts):
        paths.append(folder / f"part-{number:05}.parquet")
        part.write_parquet(paths[-1])
        hashed.add(part)
        copies += int(part["count"].sum())
    return pl.scan_parquet(paths, glob=False), hashed.hexdigest(), copies


@_named_in_errors
def read_queries(
    paths: Sequence[Path],
    *,
    template: str | None,
    max_chars: int,
    vector_field: str | None,
    names: Mapping[Path, str] | None = None,
    chat_template: ChatTemplate | None = None,
    vector_files: Sequence[Path] = (),
) -> pl.DataFrame:
    """Read a query set: ``content_id``, ``record_id``, ``text``, ``record`` (and ``vector``), sorted.

    Copies stay rows: a query that stands twice weighs twice. Raises :class:`TsdsError` for what
    ``read_source`` refuses, for any record that cannot be used and for an empty set.
    """
    named = _named(paths, names)
    rules = _rules(template, max_chars, vector_field, chat_template, vector_files, names=names)
    rows, quarantine = _read_whole(paths, named, rules)
    if len(quarantine):
        n = len(quarantine)
        raise TsdsError(
            f"{n} of {n + len(rows)} query records cannot be used: {first_reasons(quarantine)}; "
            f"repair or remove {'it' if n == 1 else 'them'}: every query counts"
        )
    if rows.is_empty():
        raise TsdsError(f"{', '.join(named)}: holds no query records: add at least one")
    return rows.drop("file", "line").sort("content_id", "record_id", "record")


@_named_in_errors
def read_test_set(
    paths: Sequence[Path],
    *,
    template: str | None,
    max_chars: int,
    vector_field: str | None = None,
    names: Mapping[Path, str] | None = None,
    chat_template: ChatTemplate | None = None,
) -> pl.DataFrame:
    """A test set as ``read_queries`` gives it; only the first record of each content.

    Raises :class:`TsdsError` where not all of it can be read, and for an empty one, which would guard nothing.
    """
    named = _named(paths, names)
    rules = _rules(template, max_chars, vector_field, chat_template)
    rows, quarantine = _read_whole(paths, named, rules)
    if len(quarantine):
        raise TsdsError(
            f"{len(quarantine)} of {len(quarantine) + len(rows)} test records cannot be used: "
            f"{first_reasons(quarantine)}; repair or remove them"
        )
    if rows.is_empty():
        raise TsdsError(
            f"{', '.join(named)}: holds no test records, so nothing is kept out: restore or remove it"
        )
    ordered = rows.drop("file", "line").sort("content_id", "record_id", "record")
    return ordered.unique("content_id", keep="first", maintain_order=True)


def empty_corpus(vector_field: str | None) -> pl.DataFrame:
    """The corpus of a source that holds no records."""
    return read_source([], template=None, max_chars=1, vector_field=vector_field).corpus


def quarantine_problem(
    records: SourceRecords, max_quarantined: float, name: str, table: str | Path
) -> str | None:
    """What to say where more than the share ``max_quarantined`` of a source's records is bad.

    ``name`` is the source's, and ``table`` where the user finds the table of all bad records.
    """
    bad, read = len(records.quarantine), records.judged
    if not bad or bad / read <= max_quarantined:
        return None
    told = bad_records(records, table, f", more than max_quarantined = {max_quarantined:g} allows")
    return f'source "{name}": {told}; repair them, or raise max_quarantined in [sources.{name}] or [corpus]'


def bad_records(records: SourceRecords, table: str | Path, verdict: str = "") -> str:
    """How many records of a source are bad, the first reasons, and where the ``table`` of all of them is."""
    bad, read = len(records.quarantine), records.judged
    return (
        f"{bad:,} of {read:,} records ({bad / read:.1%}) cannot be used{verdict}: {first_reasons(records.quarantine)}; "
        f"all are listed in {table}"
    )


def _named(paths: Sequence[Path], names: Mapping[Path, str] | None) -> list[str]:
    return [(names or {}).get(path, str(path)) for path in paths]


def _rules(
    template: str | None,
    max_chars: int,
    vector_field: str | None,
    chat_template: ChatTemplate | None,
    vector_files: Sequence[Path] = (),
    scratch: Path | None = None,
    names: Mapping[Path, str] | None = None,
) -> RecordRules:
    vectors: Vectors | None = None
    if vector_field is not None and vector_files:
        vectors = VectorFiles(vector_files, vector_field, scratch, names)
    elif vector_field is not None:
        vectors = FieldVectors(vector_field)
    return RecordRules(None if template is None else Template(template), max_chars, vectors, chat_template)


def _read_whole(
    paths: Sequence[Path], named: Sequence[str], rules: RecordRules
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The usable records of ``paths``, one row each, and the quarantine table."""
    rows, bad, _ = _read(paths, named, rules, None)
    (table,) = _usable(rows, bad, named)
    return table, quarantine_table(bad)


def _read(
    paths: Sequence[Path],
    named: Sequence[str],
    rules: RecordRules,
    spill: Path | None,
    wanted: ColumnFilter = EVERYTHING,
) -> tuple[RowTable, list[Quarantined], Excluded]:
    """The records of ``paths``, one row each, what cannot be used, and what is not ``wanted``."""
    table, bad, excluded = RowTable(rules.vectors is not None, spill), [], Excluded(wanted)
    for number, (path, name) in enumerate(zip(paths, named, strict=True)):
        for raw in read_records(path, rules.max_chars):
            try:
                if raw.reason:
                    raise BadRecord(raw.reason)
                if excluded.takes(name, raw.line, raw.fields):
                    rules.skip(raw.fields)
                    continue
                table.add(number, raw.line, rules.identify(raw.fields))
            except BadRecord as error:
                add_bad(bad, quarantined(name, raw.line, error, raw.raw or raw.fields))
    if isinstance(rules.vectors, VectorFiles):
        for vector in rules.vectors.unused():
            add_bad(bad, vector)
    return table, bad, excluded


def _usable(table: RowTable, bad: list[Quarantined], named: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The parts of ``table`` but for rows whose vector is of another length, which are added to ``bad``."""
    for rows in table.parts():
        if "vector" in rows.columns:
            rows, odd = split_by_length(rows, table.dim)
            for row in odd.iter_rows(named=True):
                add_bad(bad, _odd_length(named, row, table.dim))
        yield rows


def _odd_length(named: Sequence[str], row: dict[str, Any], dim: int) -> Quarantined:
    error = BadRecord(f"the vector has {len(row['vector'])} numbers, in most records it has {dim}")
    return quarantined(named[row["file"]], row["line"], error, row["record"].encode())
