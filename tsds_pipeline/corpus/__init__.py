"""Reading, validating and identifying records: files in, tables out. No Dagster, and nothing is encoded here.

``sources`` is the way in; the built-in demo corpus is in ``demo``.
"""

from tsds_pipeline.corpus.exclusions import ColumnFilter, TestSet
from tsds_pipeline.corpus.quarantine import first_reasons
from tsds_pipeline.corpus.sources import (
    SourceRecords,
    empty_corpus,
    quarantine_problem,
    read_queries,
    read_source,
    read_test_set,
)

__all__ = [
    "ColumnFilter",
    "SourceRecords",
    "TestSet",
    "empty_corpus",
    "first_reasons",
    "quarantine_problem",
    "read_queries",
    "read_source",
    "read_test_set",
]
