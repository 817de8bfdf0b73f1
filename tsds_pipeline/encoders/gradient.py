"""Texts to vectors through gradients: what a text would teach a model, instead of what it says (LESS).

For LoRA checkpoints i = 1..C of a causal language model, with learning rates eta_i, and a text z with loss l(z)
(``lora_gradients``), the vector of z is the concatenation over i of

    w_i  u_i(z),    w_i = eta_i / (eta_1 + ... + eta_C),    u_i(z) = R_i' g_i(z) / |R_i' g_i(z)|

where R_i is a random projection to ``dimension`` numbers (``random_projection``; one for each checkpoint, so that
their errors average out) and g_i(z) the gradient of l(z) with respect to the adapter's weights at checkpoint i:

* of a query, the plain gradient;
* of a candidate, the step that Adam would take for it (Xia et al. 2024, arXiv 2402.04333, section 3.1): with the
  moments m, v that the optimizer had after t steps, and G the plain gradient,

      g = m' / (sqrt(v') + 1e-8)
      m' = (0.9 m + 0.1 G) / (1 - 0.9^(t+1)),   v' = (0.999 v + 0.001 G^2) / (1 - 0.999^(t+1))

  The script of LESS leaves out both divisions and has the 1e-8 under the root. The divisions are one factor
  for all weights and go away with the length.

``normalize`` scales the whole to length 1. A checkpoint without optimizer.safetensors (see ``checkpoints``) gives plain
gradients for candidates, too.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tsds_pipeline.encoders.adapters import Adapters, load_adapters
from tsds_pipeline.encoders.base import ModelEncoder, Role, unit_rows
from tsds_pipeline.encoders.batches import batches, by_length
from tsds_pipeline.encoders.causal_model import CausalModel, find_causal_model, load_causal_model
from tsds_pipeline.encoders.checkpoints import Checkpoint, checkpoint_weights, read_checkpoint
from tsds_pipeline.encoders.lora_gradients import per_text_gradients
from tsds_pipeline.encoders.models import Model
from tsds_pipeline.encoders.random_projection import projected
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.progress import Progress
from tsds_pipeline.settings import EncoderSettings

if TYPE_CHECKING:
    import torch

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's, in the warm-up and here."""
MOST_BATCH_TOKENS = 4096
"""Logits, and their gradients, are kept for every token."""


class GradientEncoder(ModelEncoder):
    """Projected LoRA gradients; model and adapters are loaded at the first text."""

    encoded_at_once = 64  # each is a backward pass

    def __init__(self, settings: EncoderSettings, root: Path, role: Role, warmed_up: Sequence[Path] = ()):
        """``root`` is what paths are relative to; ``warmed_up`` are the checkpoints of the warm-up, once there are any.

        They count only where the user names none.
        """
        super().__init__(settings, root, role)
        self._folders = [root / folder for folder in settings.checkpoints or warmed_up]

    def afresh(self) -> Self:
        """See :class:`~tsds_pipeline.encoders.base.Encoder`."""
        return type(self)(self._settings, self._root, self._role, self._folders)

    @cached_property
    def _model(self) -> Model:
        return find_causal_model(self._settings, self._root)

    @cached_property
    def _checkpoints(self) -> tuple[Checkpoint, ...]:
        return tuple(read_checkpoint(folder) for folder in self._folders)

    @property
    def fingerprint(self) -> str:
        """Before the warm-up it has what decides that, in place of the checkpoints."""
        settings = self._settings
        if self._checkpoints:
            checkpoint_weights(self._checkpoints)
            trained: dict[str, object] = {"checkpoints": [one.identity for one in self._checkpoints]}
        else:
            trained = {"warmup": warmup_part(settings)}
        with_moments = any(one.has_moments for one in self._checkpoints) or not self._checkpoints
        return self._fingerprint(
            self._model.identity,
            dimension=settings.dimension,
            seed=settings.seed,
            gradient="adam" if with_moments and self._role == "candidate" else "plain",
            **trained,
        )

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Vectors (n, checkpoints x dimension) float32 in the order of ``texts``.

        A text of a single token has no loss: its vector is all zeros. Raises :class:`TsdsError` before the warm-up.
        """
        if not texts:
            return np.empty((0, 0), np.float32)
        if not self._checkpoints:
            raise TsdsError("the adapters for gradients are not trained yet: run `tsds refresh`")
        settings, dimension = self._settings, self._settings.dimension
        model, adapters = _load(
            self._model, self._checkpoints, settings.dtype, settings.device, settings.max_tokens
        )
        ids = model.tokens(texts, ended=True)
        lengths = [len(one) for one in ids]
        weights = checkpoint_weights(self._checkpoints)
        vectors = np.zeros((len(texts), len(weights), dimension), np.float32)
        limit, done = min(model.batch_tokens, MOST_BATCH_TOKENS), 0
        order = by_length(texts, lengths)
        for place, weight in enumerate(weights):
            layers = adapters.activate(place)
            for rows in batches(order, lengths, settings.batch_size, limit):
                if lengths[rows[0]] > 1:
                    tokens, mask = model.padded([ids[row] for row in rows])
                    moments = self._moments(adapters, place)
                    found = self._projected(adapters.network, layers, place, moments, tokens, mask)
                    vectors[rows, place] = weight * unit_rows(found.cpu().numpy())
                done += len(rows)
                if progress:
                    progress(done // len(weights), len(texts))
        vectors = vectors.reshape(len(texts), -1)
        return unit_rows(vectors) if settings.normalize else vectors

    def _moments(self, adapters: Adapters, place: int) -> dict[str, tuple[Any, Any]] | None:
        """Those that gradients at the checkpoint at ``place`` are preconditioned with, if they are."""
        preconditioned = self._role == "candidate" and self._checkpoints[place].has_moments
        return adapters.moments(place) if preconditioned else None

    def _projected(
        self,
        network: Any,
        layers: Mapping[str, Any],
        place: int,
        moments: Mapping[str, tuple[Any, Any]] | None,
        tokens: "torch.Tensor",
        mask: "torch.Tensor",
    ) -> "torch.Tensor":
        """The projected gradients (texts, dimension) at the checkpoint at ``place``, which is active."""
        total, start = 0, 0
        for name, gradients in per_text_gradients(network, layers, tokens, mask):
            if moments is not None:
                gradients = adam_step(gradients, *moments[name], self._checkpoints[place].step)
                gradients[mask.sum(dim=1) < 2] = 0  # without a loss there is no step to take
            flat = gradients.flatten(start_dim=1)
            total = total + projected(flat, start, self._settings.dimension, f"{self._settings.seed} {place}")
            start += flat.shape[1]
        return total


def adam_step(
    gradients: "torch.Tensor", first: "torch.Tensor", second: "torch.Tensor", steps: int
) -> "torch.Tensor":
    """The direction of Adam's next step for each of ``gradients`` (texts, ...), after ``steps`` with these moments."""
    one, two = BETAS
    mean = (one * first + (1 - one) * gradients) / (1 - one ** (steps + 1))
    square = (two * second + (1 - two) * gradients**2) / (1 - two ** (steps + 1))
    return mean / (square.sqrt() + EPSILON)


def warmup_part(settings: EncoderSettings) -> dict[str, object]:
    """What decides the adapters, beside the model and the texts; JSON values."""
    return {
        "epochs": settings.warmup_epochs,
        "examples": settings.warmup_examples,
        "learning_rate": settings.learning_rate,
        "lora_alpha": settings.lora_alpha,
        "lora_rank": settings.lora_rank,
        "lora_targets": list(settings.lora_targets),
        "seed": settings.seed,
        "max_tokens": settings.max_tokens,
        "dtype": settings.dtype,
    }


@lru_cache(maxsize=1)
def _load(
    model: Model,
    checkpoints: tuple[Checkpoint, ...],
    dtype: str,
    device: str | None,
    max_tokens: int | None,
) -> tuple[CausalModel, Adapters]:
    """The model and its adapters, kept for the next source."""
    loaded = load_causal_model(model, dtype, device, max_tokens, with_head=True)
    return loaded, load_adapters(loaded, checkpoints)
