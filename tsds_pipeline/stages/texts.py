"""Texts of candidates out of the corpora of several sources."""

from collections.abc import Mapping

import polars as pl


def texts_by_content(corpora: Mapping[str, pl.LazyFrame], content_ids: pl.Series) -> pl.DataFrame:
    """``content_id`` and ``text`` of each of ``content_ids``, in their order; ``corpora`` by source."""
    wanted = content_ids.alias("content_id").to_frame()
    lazy = wanted.unique().lazy()
    found = [
        corpus.select("content_id", "text").join(lazy, on="content_id", how="semi")
        for _, corpus in sorted(corpora.items())
    ]
    texts = pl.concat(found).collect().unique("content_id")
    return wanted.join(texts, on="content_id", how="left", maintain_order="left")
