"""Batches of texts of similar length."""

import numpy as np

from tsds_pipeline.encoders.batches import batches, by_length


def test_batches_hold_every_text_once_within_both_limits():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 300, size=500).tolist()
    order = sorted(range(500), key=lambda row: -tokens[row])
    found = list(batches(order, tokens, 32, 1024))
    assert [row for rows in found for row in rows] == order
    assert max(map(len, found)) == 32
    assert all(len(rows) == 1 or tokens[rows[0]] * len(rows) <= 1024 for rows in found)
    assert [len(rows) for rows in batches([0, 1], [5000, 5000], 32, 1024)] == [1, 1]


def test_the_order_is_that_of_the_texts_however_they_come():
    texts, tokens = ["bb", "a", "ccc", "d"], [2, 1, 3, 1]
    order = [texts[row] for row in by_length(texts, tokens)]
    assert order == ["ccc", "bb", "a", "d"]
    assert [texts[::-1][row] for row in by_length(texts[::-1], tokens[::-1])] == order
