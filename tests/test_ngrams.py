"""Hashed n-gram counts, against a dictionary."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
from sklearn.utils import murmurhash3_32

from tsds_pipeline.ngrams import BUCKETS, WORDS, ngram_counts

TEXTS = ["The cat, the CAT!", "", "cat", "¿Dónde está? -- don't\nknow", "the cat " * 50]


def counted(text: str) -> np.ndarray:
    words = re.findall(WORDS, text.lower())
    pairs = [f"{one} {other}" for one, other in pairwise(words)]
    counts = np.zeros(BUCKETS)
    for ngram, count in Counter(words + pairs).items():
        # As HashingVectorizer: the absolute value of a signed hash.
        counts[abs(murmurhash3_32(ngram)) % BUCKETS] += count
    return counts


def test_as_counted_one_by_one():
    found = ngram_counts(TEXTS)
    assert found.shape == (len(TEXTS), BUCKETS)
    np.testing.assert_array_equal(found.toarray(), [counted(text) for text in TEXTS])


def test_case_does_not_matter_and_order_does():
    same, other = ngram_counts(["THE cat", "the cat", "cat the"])[1:].toarray(), ngram_counts(["THE cat"])
    np.testing.assert_array_equal(same[0], other.toarray()[0])
    assert (same[0] != same[1]).any()
