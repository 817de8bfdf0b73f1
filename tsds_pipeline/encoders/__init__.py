"""From texts to vectors: ``make_encoder`` and ``embed``.

Importing this, making an encoder and asking for its fingerprint import no torch; the first text does.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tsds_pipeline.encoders.base import Encoder, Role, as_fingerprint
from tsds_pipeline.encoders.causal import CausalEncoder
from tsds_pipeline.encoders.embedding import Embedded, embed
from tsds_pipeline.encoders.gradient import GradientEncoder
from tsds_pipeline.encoders.precomputed import PrecomputedVectors
from tsds_pipeline.encoders.sentence_transformers import SentenceTransformersEncoder
from tsds_pipeline.settings import EncoderSettings

__all__ = ["Embedded", "Encoder", "PrecomputedVectors", "Role", "both_fingerprints", "embed", "make_encoder"]


def make_encoder(
    settings: EncoderSettings,
    root: Path | None = None,
    role: Role = "candidate",
    warmed_up: Sequence[Path] = (),
) -> Encoder | PrecomputedVectors:
    """The encoder that ``settings`` describe, for texts of one ``role``. Cheap: the model is loaded at the first text.

    ``root`` (default: the current folder) is what the path of a model folder is relative to; ``warmed_up`` are the
    checkpoints of the warm-up, where there is one (``settings.warms_up``) and it is done. The two roles have the
    same fingerprint where they are encoded alike.

    Raises :class:`TsdsError` for a packaged model that is not installed or a model folder that is not there.
    """
    root = root or Path.cwd()
    match settings.kind:
        case "precomputed":
            return PrecomputedVectors(settings.field, settings.normalize)
        case "causal":
            return CausalEncoder(settings, root, role)
        case "gradient":
            return GradientEncoder(settings, root, role, warmed_up)
    return SentenceTransformersEncoder(settings, root, role)


def both_fingerprints(settings: EncoderSettings, root: Path) -> str:
    """What decides the vectors of both roles: the fingerprint of candidates, and where queries differ, as "query_...".

    Before any warm-up, which is known by its settings alone.
    """
    candidates, queries = (
        json.loads(make_encoder(settings, root, role).fingerprint) for role in get_args(Role)
    )
    differing = {key for key in candidates.keys() | queries.keys() if candidates.get(key) != queries.get(key)}
    return as_fingerprint(**candidates, **{f"query_{key}": queries.get(key) for key in sorted(differing)})
