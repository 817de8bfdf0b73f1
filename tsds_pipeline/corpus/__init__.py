"""Reading, validating and identifying records: files in, tables out. No Dagster, and nothing is encoded here.

``sources`` is the way in; the built-in demo corpus is in ``demo``.
"""

from tsds_pipeline.corpus.exclusions import ColumnFilter, TestSet
from tsds_pipeline.corpus.sources import (
    SourceRecords,
    bad_records,
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
    "bad_records",
    "empty_corpus",
    "quarantine_problem",
    "read_queries",
    "read_source",
    "read_test_set",
]
