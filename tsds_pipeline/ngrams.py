"""Texts as counts of hashed n-grams, what DSIR and the KL reduction look at. Neither is here (see ``core``)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

BUCKETS = 10_000
WORDS = r"\w+|[^\w\s]+"
"""A word, or a run of punctuation."""


def ngram_counts(texts: Iterable[str]) -> "csr_matrix":
    """How often the words and pairs of words of each text fall in each of BUCKETS buckets, float64 (n, BUCKETS).

    In lower case; an n-gram's bucket is a hash of it. The features of DSIR (Xie et al., NeurIPS 2023, section 4), with
    MurmurHash3 in place of SHA-256.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(
        lowercase=True,
        token_pattern=WORDS,
        ngram_range=(1, 2),
        n_features=BUCKETS,
        alternate_sign=False,
        norm=None,
    )
    return hashing.transform(texts)


def total_counts(texts: Iterable[str]) -> np.ndarray:
    """How often the n-grams of all ``texts`` together fall in each bucket, float64 (BUCKETS,)."""
    return np.asarray(ngram_counts(texts).sum(axis=0), dtype=np.float64).ravel()
