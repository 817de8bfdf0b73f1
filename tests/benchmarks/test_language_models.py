"""The n-gram model against its recursion, and that the transformer learns."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from language_models import NgramModel, Vocabulary, transformer_bits

TRAIN = ["the cat sat on the mat.", "The cat ran!", "a dog sat on a log", ""]
TEST = ["the dog sat on the cat.", "unseen words, all of them", "The cat ran!", ""]


def slow_bits(train: list[np.ndarray], test: list[np.ndarray], size: int) -> float:
    """Word by word, with dictionaries."""
    counts: dict[tuple, Counter] = defaultdict(Counter)
    for text in train:
        for at in range(2, len(text)):
            for n in range(3):
                counts[tuple(text[at - n : at])][text[at]] += 1

    def p(history: tuple, word: int) -> float:
        lower = p(history[1:], word) if history else 1 / size
        followers = counts.get(history)
        if not followers:
            return lower
        return (followers[word] + len(followers) * lower) / (followers.total() + len(followers))

    found = [p(tuple(text[at - 2 : at]), text[at]) for text in test for at in range(2, len(text))]
    return -sum(math.log2(one) for one in found) / len(found)


def test_bits_by_the_recursion():
    vocabulary = Vocabulary()
    train, test = ([vocabulary.add(text) for text in texts] for texts in (TRAIN, TEST))
    size = len(vocabulary)
    assert size == 2 + 17
    assert NgramModel(train, size).bits(test) == pytest.approx(slow_bits(train, test, size), rel=1e-12)
    assert NgramModel(train, size).bits(train) < NgramModel(test, size).bits(train)


def test_words_after_a_history_sum_to_one():
    vocabulary = Vocabulary()
    train = [vocabulary.add(text) for text in TRAIN]
    size = len(vocabulary)
    model = NgramModel(train, size)
    the, cat = vocabulary.add("the cat")[2:4]
    for history in ([0, 0], [the, cat], [cat, the], [cat, cat]):
        # The last word of each text alone is scored here: the model's bits for all words of this history.
        scored = [model.bits([np.array([*history, word])]) for word in range(size)]
        assert sum(2.0**-bits for bits in scored) == pytest.approx(1, abs=1e-12)


def test_a_transformer_learns():
    texts = ["abcabcabc" * 20] * 3
    short, longer = (transformer_bits(texts, texts[:1], steps, 0, context=16, batch=8) for steps in (2, 40))
    assert longer < 2 < short
    assert longer == transformer_bits(texts, texts[:1], 40, 0, context=16, batch=8)
