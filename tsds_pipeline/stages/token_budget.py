"""Budgets in tokens: what each candidate costs, and how many examples a budget buys."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from tsds_pipeline.core.sampling import size_within
from tsds_pipeline.encoders.tokenizers import TokenCounter
from tsds_pipeline.stages.texts import texts_by_content


class CandidateTokens:
    """The tokens of candidates by content id. A text is counted when it is asked for, and once."""

    def __init__(self, counter: TokenCounter, corpora: Mapping[str, pl.LazyFrame]):
        self._counter, self._corpora = counter, corpora
        self._known = pl.DataFrame(schema={"content_id": pl.String, "tokens": pl.Int64})

    def of(self, content_ids: pl.Series) -> np.ndarray:
        """int64 (n,), in the order of ``content_ids``."""
        wanted = content_ids.alias("content_id").to_frame()
        missing = wanted.unique(maintain_order=True).join(self._known, on="content_id", how="anti")
        texts = texts_by_content(self._corpora, missing["content_id"])
        counted = texts.select("content_id", tokens=pl.Series(self._counter.counts(texts["text"].to_list())))
        self._known = pl.concat([self._known, counted])
        return wanted.join(self._known, on="content_id", how="left", maintain_order="left")[
            "tokens"
        ].to_numpy()


def affordable(units: pl.DataFrame, budget: int) -> tuple[pl.DataFrame, list[str]]:
    """The sampling ``units`` that do not cost more than all of ``budget``, and what to say of the others, if any."""
    kept = units.filter(pl.col("tokens") <= budget)
    if len(kept) == len(units):
        return units, []
    share = 1 - kept["probability"].sum() / units["probability"].sum()
    return kept, [
        f"{len(units) - len(kept):,} candidates with {share:.1%} of the mass cannot be drawn: each has more tokens "
        f"than tokens = {budget:,}, up to {units['tokens'].max():,}"
    ]


def bought(probabilities: np.ndarray, tokens: np.ndarray, budget: int) -> int:
    """How many examples ``budget`` tokens buy in expectation; all have mass, and ``tokens`` (n,).

    Where it buys more than all of them, so many as it would if others were as long.
    """
    if tokens.sum() > budget:
        return size_within(probabilities, tokens, budget)
    mean = float(probabilities @ tokens / probabilities.sum())
    return max(len(tokens), int(budget / mean))
