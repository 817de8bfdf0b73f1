"""Texts to vectors through the hidden states of a causal language model.

The states h_1 .. h_n of the last layer, after its final norm, become one vector, by ``pooling``:

* "weighted-mean": sum_i i h_i / sum_i i, so that a token counts for how much of the text it has seen (SGPT, Muennighoff
  2022, arXiv 2202.08904; the representation of RDS+, Ivison et al. 2025, arXiv 2503.01807);
* "mean": sum_i h_i / n;
* "last": h_n, for models that were trained to say it all there.

Texts are taken as they are, without a chat template; an instruction can stand before them
(``query_prefix``, ``candidate_prefix``), and its tokens are pooled with theirs.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from tsds_pipeline.encoders.base import ModelEncoder, unit_rows
from tsds_pipeline.encoders.batches import batches, by_length
from tsds_pipeline.encoders.causal_model import CausalModel, find_causal_model, load_causal_model
from tsds_pipeline.encoders.models import Model
from tsds_pipeline.progress import Progress

if TYPE_CHECKING:
    import torch


class CausalEncoder(ModelEncoder):
    """Pooled hidden states of a causal language model, which is loaded at the first text."""

    @cached_property
    def _model(self) -> Model:
        return find_causal_model(self._settings, self._root)

    @property
    def fingerprint(self) -> str:
        """Raises :class:`TsdsError` for a model that is not there."""
        return self._fingerprint(self._model.identity, pooling=self._settings.pooling)

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Vectors (n, hidden size) float32 in the order of ``texts``, of length 1 where ``normalize`` is set."""
        if not texts:
            return np.empty((0, 0), np.float32)
        settings = self._settings
        model = _load(self._model, settings.dtype, settings.device, settings.max_tokens)
        texts = [self._prefix + text for text in texts]
        ids = model.tokens(texts)
        lengths = [len(one) for one in ids]
        vectors = np.zeros((len(texts), model.network.config.hidden_size), np.float32)
        done = 0
        for rows in batches(by_length(texts, lengths), lengths, settings.batch_size, model.batch_tokens):
            if lengths[rows[0]]:  # else no text of the batch has a token: zeros, which are reported
                vectors[rows] = _pooled(model, [ids[row] for row in rows], settings.pooling)
            done += len(rows)
            if progress:
                progress(done, len(texts))
        return unit_rows(vectors) if settings.normalize else vectors


def _pooled(model: CausalModel, ids: Sequence[Sequence[int]], pooling: str) -> np.ndarray:
    import torch

    tokens, mask = model.padded(ids)
    with torch.inference_mode():
        states = model.network(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        weights = pooling_weights(mask, pooling)
        return torch.einsum("bt,bth->bh", weights, states.float()).cpu().numpy()


def pooling_weights(mask: "torch.Tensor", pooling: str) -> "torch.Tensor":
    """What each token counts for, float32 like ``mask`` (texts, tokens); they add up to 1 in each text with any."""
    mask = mask.float()
    place = mask.cumsum(dim=1) * mask
    if pooling == "last":
        return (place == place.max(dim=1, keepdim=True).values).float() * mask
    weights = place if pooling == "weighted-mean" else mask
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1)


@lru_cache(maxsize=1)
def _load(model: Model, dtype: str, device: str | None, max_tokens: int | None) -> CausalModel:
    """The model, kept for the next source."""
    return load_causal_model(model, dtype, device, max_tokens, with_head=False)
