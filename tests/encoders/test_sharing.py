"""Texts shared among threads get the vectors that one thread gives them."""

import numpy as np
import pytest
import torch
from test_sentence_transformers import TEXTS

from tsds_pipeline.encoders import make_encoder, sharing
from tsds_pipeline.encoders.sentence_transformers import _load
from tsds_pipeline.settings import EncoderSettings


@pytest.fixture
def three_threads(monkeypatch):
    monkeypatch.setattr(sharing, "threads", lambda: 3)
    _load.cache_clear()
    yield
    _load.cache_clear()


@pytest.mark.parametrize("number", [1, 2, 3, 6])
def test_vectors_are_the_same(number, three_threads, monkeypatch):
    shared = make_encoder(EncoderSettings()).encode(TEXTS[:number])
    _load.cache_clear()
    monkeypatch.setattr(sharing, "threads", lambda: 1)
    alone = make_encoder(EncoderSettings()).encode(TEXTS[:number])
    np.testing.assert_allclose(shared, alone, atol=2e-6)


def test_the_threads_of_others_stay(three_threads):
    before = torch.get_num_threads()
    make_encoder(EncoderSettings()).encode(TEXTS)
    assert torch.get_num_threads() == before


def test_an_error_in_a_thread_is_raised(three_threads):
    def fail(features):
        raise RuntimeError("no such layer")

    model = torch.nn.Module()
    model.forward = fail
    sharing.share(model)
    with pytest.raises(RuntimeError, match="no such layer"):
        model({"attention_mask": torch.ones(4, 2)})


def test_what_has_no_row_a_text_is_not_split(three_threads):
    model = torch.nn.Module()
    model.forward = lambda features: features
    sharing.share(model)
    assert model({"offsets": 1}) == {"offsets": 1}
