"""Records that could be used and are not wanted: for the value of a field, or because a test set holds their text.

They are listed like those in quarantine, but nothing is wrong with them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tsds_pipeline.corpus.fields import found_value, value_text
from tsds_pipeline.corpus.quarantine import BadRecord, excerpt_of
from tsds_pipeline.corpus.tables import Rows
from tsds_pipeline.leaks import WORDS_IN_A_ROW, HeldBackTexts

EXCLUDED_SCHEMA = {
    "file": pl.String,
    "line": pl.Int64,
    "rule": pl.String,
    "reason": pl.String,
    "excerpt": pl.String,
}
"""``rule`` names the setting: "keep.language", "drop.license", "exclude.gsm8k"."""
MOST_LISTED = 200_000
"""How many of a source's excluded records are listed, about 100 MB; all are counted."""
_NOTHING = "missing or empty"
Values = Mapping[str, Sequence[str | int | float | bool]]


@dataclass(frozen=True)
class ColumnFilter:
    """Which records are wanted, by the values of their fields; a name with dots leads into nested objects.

    ``keep`` wants one of the values in each of its fields, ``drop`` in none of them. Values are compared as texts:
    numbers, true and false as in JSON, a field that is null or missing as the empty text. Of a list any item counts;
    an object is none of the values.
    """

    keep: Values = field(default_factory=dict)
    drop: Values = field(default_factory=dict)

    def reason(self, fields: dict[str, Any]) -> tuple[str, str] | None:
        """(rule, reason) why the record with these ``fields`` is not wanted; None where it is."""
        for name, wanted in self.keep.items():
            held = list(_texts(fields, name))
            if not {value_text(name, value) for value in wanted} & set(held):
                return f"keep.{name}", f"{name} is {_shown(held)}"
        for name, unwanted in self.drop.items():
            for value in _texts(fields, name):
                if value in {value_text(name, one) for one in unwanted}:
                    return f"drop.{name}", f"{name} is {_shown([value])}"
        return None


EVERYTHING = ColumnFilter()


class Excluded:
    """The records of a source that are not ``wanted``: counted by rule, and the first that were read listed."""

    def __init__(self, wanted: ColumnFilter):
        self.counts: Counter[str] = Counter()
        self.unseen = {name for name, values in wanted.drop.items() if "" not in values}
        """The fields in which "drop" looks for something and of which no record so far has anything."""
        self._wanted, self._without_anything = wanted, 0
        self._rows, self._listed = Rows(EXCLUDED_SCHEMA), 0

    def takes(self, file: str, line: int, fields: dict[str, Any]) -> bool:
        """Whether the record with these ``fields`` is one of them; it is put down then."""
        self.unseen = {name for name in self.unseen if not _has(fields, name)}
        if (why := self._wanted.reason(fields)) is None:
            return False
        rule, reason = why
        self.counts[rule] += 1
        self._without_anything += reason.endswith(_NOTHING)
        if self._listed < MOST_LISTED:
            self._rows.append((file, line, rule, reason, excerpt_of(fields)))
            self._listed += 1
        return True

    def add_table(self, known: pl.DataFrame) -> None:
        """What test sets know, as from :func:`split_by_test_sets`."""
        self.counts.update(dict(known["rule"].value_counts().iter_rows()))
        for row in known.head(MOST_LISTED - self._listed).iter_rows():
            self._rows.append(row)
            self._listed += 1

    def __len__(self) -> int:
        return self.counts.total()

    def table(self) -> pl.DataFrame:
        """Those that are listed, in order of file and line, with the columns of EXCLUDED_SCHEMA."""
        return self._rows.frame().sort(*EXCLUDED_SCHEMA)

    def field_that_none_has(self, read: int) -> str | None:
        """The field that "keep" names and that is empty in all of the ``read`` records, which are excluded for it."""
        if not read or self._without_anything < read or len(self.counts) != 1:
            return None
        kind, _, name = next(iter(self.counts)).partition(".")
        return name if kind == "keep" else None


@dataclass(frozen=True)
class TestSet:
    """The texts of a named test set, which no candidate may hold, and the ids of their records."""

    __test__ = False  # for pytest, which takes it for tests

    name: str
    texts: HeldBackTexts
    record_ids: Sequence[str]

    @classmethod
    def of(cls, name: str, records: pl.DataFrame) -> "TestSet":
        """Out of a table with ``record_id`` and ``text``."""
        return cls(name, HeldBackTexts(records["text"]), records["record_id"].to_list())


def split_by_test_sets(
    rows: pl.DataFrame, test_sets: Sequence[TestSet], named: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """``rows`` (of ``tables.RowTable``) that no test set knows, and the table of the others.

    ``named`` are the names of the files, by number.
    """
    found = []
    distinct = rows.select("content_id", "text").unique("content_id", maintain_order=True)
    for tests in test_sets:
        texts = distinct["text"].to_list()
        for number, match in tests.texts.matches(texts).items():
            record, content = tests.record_ids[match.held_back], distinct["content_id"][number]
            what = f"has {WORDS_IN_A_ROW} words in a row of" if match.piece else "has the text of"
            reason = f'{what} record "{record}" of the test set'
            found.append((content, f"exclude.{tests.name}", reason, excerpt_of(match.piece or texts[number])))
    names = ("content_id", "rule", "reason", "excerpt")
    reasons = pl.DataFrame(found, schema=dict.fromkeys(names, pl.String), orient="row")
    reasons = reasons.unique("content_id", keep="first", maintain_order=True)
    files = pl.Series(named, dtype=pl.String)
    excluded = rows.select("file", "line", "content_id").join(reasons, on="content_id")
    excluded = excluded.with_columns(files[excluded["file"].to_numpy()].alias("file"))
    return rows.join(reasons, on="content_id", how="anti", maintain_order="left"), excluded.select(
        *EXCLUDED_SCHEMA
    )


def _has(fields: dict[str, Any], name: str) -> bool:
    try:
        return found_value(fields, name) not in (None, "", [])
    except KeyError:
        return False


def _texts(fields: dict[str, Any], name: str) -> Iterator[str]:
    try:
        value = found_value(fields, name)
    except KeyError:
        value = None
    for item in value if isinstance(value, list) and value else [None if isinstance(value, list) else value]:
        try:
            yield value_text(name, item)
        except BadRecord:
            continue


def _shown(values: Sequence[str]) -> str:
    shown = ", ".join(f'"{excerpt_of(value)}"' if value else _NOTHING for value in values[:3])
    return shown or "an object"
