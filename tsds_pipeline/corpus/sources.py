"""The files of a source, or of a query set, as one table; and beside it what could not be used.

Formats are known to ``reading``, what makes a record to ``records``, copies and variants to ``tables``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tsds_pipeline.corpus.exclusions import (
    EVERYTHING,
    EXCLUDED_SCHEMA,
    ColumnFilter,
    TestSet,
    split_by_test_sets,
)
from tsds_pipeline.corpus.quarantine import (
    BadRecord,
    Quarantined,
    excerpt_of,
    first_reasons,
    quarantine_table,
    quarantined,
)
from tsds_pipeline.corpus.reading import read_records
from tsds_pipeline.corpus.records import RecordRules
from tsds_pipeline.corpus.tables import Rows, RowTable, collapsed, split_by_length
from tsds_pipeline.corpus.template import Template
from tsds_pipeline.errors import TsdsError


@dataclass(frozen=True)
class SourceRecords:
    """What a source holds. The same records in any order, in any files, give the same corpus."""

    corpus: pl.DataFrame
    """One row a content id, sorted by it, with the columns

    * ``content_id``; ``text``, normalised; ``count``, how many copies of it there were;
    * ``record_ids``: the ids of all copies, distinct and sorted;
    * ``variants``: the different records among the copies, each with the first ``record_id`` that has it, and
      ``record``, all its fields but id and vector as canonical JSON; in the order of ``record_id``;
    * ``vector``, an array of float32, where vectors are given.
    """
    quarantine: pl.DataFrame
    """One row a record that cannot be used: ``file``, ``line`` (from 1), ``reason``, ``excerpt``; sorted."""
    read: int
    """How many records there were: the sum of the counts and the rows of ``quarantine`` and ``excluded``."""
    excluded: pl.DataFrame
    """One row a record that is not wanted: ``file``, ``line``, ``rule``, ``reason``, ``excerpt``; sorted."""

    @property
    def judged(self) -> int:
        """How many records could be bad: all but those that are excluded."""
        return int(self.corpus["count"].sum()) + len(self.quarantine)


def read_source(
    paths: Sequence[Path],
    *,
    template: str | None,
    max_chars: int,
    vector_field: str | None,
    names: Mapping[Path, str] | None = None,
    wanted: ColumnFilter = EVERYTHING,
    test_sets: Sequence[TestSet] = (),
) -> SourceRecords:
    """Read the candidates in ``paths``; ``names`` says what messages call a file, where that is not its path.

    The text of a record is made by ``template``, or found (``fields.SHAPES``), and has at most ``max_chars``
    characters; ``vector_field`` names the field of vectors given with the data. What is wrong with a record
    is in the quarantine; what is not ``wanted``, or known to one of ``test_sets``, is excluded.
    Raises :class:`TsdsError` for a file that cannot be read as a whole, and for a template that is not understood.
    """
    named = _named(paths, names)
    rows, quarantine, excluded = _read(paths, named, template, max_chars, vector_field, wanted)
    read = len(rows) + len(quarantine) + len(excluded)
    if test_sets:
        rows, known = split_by_test_sets(rows, test_sets, named)
        excluded = pl.concat([excluded, known])
    return SourceRecords(collapsed(rows), quarantine, read, excluded.sort(*EXCLUDED_SCHEMA))


def read_queries(
    paths: Sequence[Path],
    *,
    template: str | None,
    max_chars: int,
    vector_field: str | None,
    names: Mapping[Path, str] | None = None,
) -> pl.DataFrame:
    """Read a query set: ``content_id``, ``record_id``, ``text``, ``record`` (and ``vector``), sorted.

    Copies stay rows: a query that stands twice weighs twice. Raises :class:`TsdsError` for what
    ``read_source`` refuses, for any record that cannot be used and for an empty set.
    """
    named = _named(paths, names)
    rows, quarantine, _ = _read(paths, named, template, max_chars, vector_field)
    if len(quarantine):
        n = len(quarantine)
        raise TsdsError(
            f"{n} of {n + len(rows)} query records cannot be used: {first_reasons(quarantine)}; "
            f"repair or remove {'it' if n == 1 else 'them'}: every query counts"
        )
    if rows.is_empty():
        raise TsdsError(f"{', '.join(named)}: holds no query records: add at least one")
    return rows.drop("file", "line").sort("content_id", "record_id", "record")


def read_test_set(
    paths: Sequence[Path],
    *,
    template: str | None,
    max_chars: int,
    vector_field: str | None = None,
    names: Mapping[Path, str] | None = None,
) -> pl.DataFrame:
    """A test set as ``read_queries`` gives it, which may be empty; only the first record of each content.

    Raises :class:`TsdsError` where not all of it can be read.
    """
    rows, quarantine, _ = _read(paths, _named(paths, names), template, max_chars, vector_field)
    if len(quarantine):
        raise TsdsError(
            f"{len(quarantine)} of {len(quarantine) + len(rows)} test records cannot be used: "
            f"{first_reasons(quarantine)}; repair or remove them"
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
    return (
        f'source "{name}": {bad:,} of {read:,} records ({bad / read:.1%}) cannot be used, '
        f"more than max_quarantined = {max_quarantined:g} allows: {first_reasons(records.quarantine)}; "
        f"all are listed in {table}; repair them, or raise max_quarantined in [sources.{name}] or [corpus]"
    )


def _named(paths: Sequence[Path], names: Mapping[Path, str] | None) -> list[str]:
    return [(names or {}).get(path, str(path)) for path in paths]


def _read(
    paths: Sequence[Path],
    named: Sequence[str],
    template: str | None,
    max_chars: int,
    vector_field: str | None,
    wanted: ColumnFilter = EVERYTHING,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The usable records of ``paths``, one row each, the quarantine table, and that of what is not ``wanted``."""
    rules = RecordRules(None if template is None else Template(template), max_chars, vector_field)
    table, bad = RowTable(with_vectors=vector_field is not None), []
    excluded = Rows(EXCLUDED_SCHEMA)
    for number, (path, name) in enumerate(zip(paths, named, strict=True)):
        try:
            for raw in read_records(path, max_chars):
                try:
                    if raw.reason:
                        raise BadRecord(raw.reason)
                    if why := wanted.reason(raw.fields):
                        excluded.append((name, raw.line, *why, excerpt_of(raw.fields)))
                        continue
                    table.add(number, raw.line, rules.identify(raw.fields))
                except BadRecord as error:
                    bad.append(quarantined(name, raw.line, error, raw.raw or raw.fields))
        except TsdsError as error:
            raise TsdsError(str(error).replace(str(path), name)) from None
    rows = table.frame()
    if vector_field is not None:
        rows, odd = split_by_length(rows)
        bad += [_odd_length(named, row, rows.schema["vector"].shape[0]) for row in odd.iter_rows(named=True)]
    return rows, quarantine_table(bad), excluded.frame()


def _odd_length(named: Sequence[str], row: dict[str, Any], dim: int) -> Quarantined:
    error = BadRecord(f"the vector has {len(row['vector'])} numbers, in most records it has {dim}")
    return quarantined(named[row["file"]], row["line"], error, row["record"].encode())
