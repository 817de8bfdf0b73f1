"""From texts to vectors: ``make_encoder`` and ``embed``.

Importing this, making an encoder and asking for its fingerprint import no torch; the first text does.
"""

from pathlib import Path

from tsds_pipeline.encoders.base import Encoder
from tsds_pipeline.encoders.embedding import Embedded, embed
from tsds_pipeline.encoders.precomputed import PrecomputedVectors
from tsds_pipeline.encoders.sentence_transformers import SentenceTransformersEncoder
from tsds_pipeline.settings import EncoderSettings

__all__ = ["Embedded", "Encoder", "PrecomputedVectors", "embed", "make_encoder"]


def make_encoder(settings: EncoderSettings, root: Path | None = None) -> Encoder | PrecomputedVectors:
    """The encoder that ``settings`` describe; ``root`` (default: the current folder) is what the path of a
    model folder is relative to. Cheap: the model is loaded at the first text.

    Raises :class:`TsdsError` for a packaged model that is not installed or a model folder that is not there.
    """
    if settings.kind == "precomputed":
        return PrecomputedVectors(settings.field, settings.normalize)
    return SentenceTransformersEncoder(settings, root or Path.cwd())
