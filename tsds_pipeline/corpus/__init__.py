"""Reading, validating and identifying records: files in, tables out. No Dagster, and nothing is encoded here.

``sources`` is the way in; the built-in demo corpus is in ``demo``.
"""

from tsds_pipeline.corpus.sources import (
    SourceRecords,
    check_quarantine,
    empty_corpus,
    read_queries,
    read_source,
)

__all__ = ["SourceRecords", "check_quarantine", "empty_corpus", "read_queries", "read_source"]
