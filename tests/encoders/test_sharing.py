"""Threads that encode batches side by side give the vectors that one thread gives, to the bit."""

import threading

import numpy as np
import pytest
import torch
from test_sentence_transformers import TEXTS

from tsds_pipeline.encoders import make_encoder, sentence_transformers, sharing
from tsds_pipeline.settings import EncoderSettings

SETTINGS = EncoderSettings(batch_size=2)


def encoded(number: int, texts: list[str], monkeypatch) -> np.ndarray:
    monkeypatch.setattr(sentence_transformers, "threads", lambda: number)
    return make_encoder(SETTINGS).encode(texts)


@pytest.mark.parametrize("number", [1, 2, 3, 6])
def test_vectors_are_the_same_to_the_bit(number, monkeypatch):
    alone = encoded(1, TEXTS[:number], monkeypatch)
    assert encoded(3, TEXTS[:number], monkeypatch).tobytes() == alone.tobytes()


def test_the_threads_of_others_stay(monkeypatch):
    before = torch.get_num_threads()
    encoded(3, TEXTS, monkeypatch)
    assert torch.get_num_threads() == before


def test_the_batches_run_in_as_many_threads():
    together = threading.Barrier(3, timeout=60)

    def meet(item: int) -> int:
        together.wait()  # fails unless three are here at a time
        return item

    assert list(sharing.in_threads(meet, range(6), 3)) == list(range(6))


def test_an_error_in_a_thread_is_raised():
    def fail(item: int) -> None:
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        list(sharing.in_threads(fail, [1, 2], 3))
