"""Texts to vectors through a sentence-transformers model, in batches without padding to speak of.

Which files a model name means is in ``models``; what was encoded before is kept by ``cache``.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from tsds_pipeline.encoders import onnx_model
from tsds_pipeline.encoders.base import ModelEncoder, unit_rows
from tsds_pipeline.encoders.batches import batches, by_length
from tsds_pipeline.encoders.cache import FOLDER, encoder_folder
from tsds_pipeline.encoders.loading import check_device, quiet, reason
from tsds_pipeline.encoders.models import Model, find_model
from tsds_pipeline.encoders.packing import pack
from tsds_pipeline.encoders.sharing import in_threads, threads, tokenize_in_turn
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.progress import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# A batch of long texts is cut to this many tokens. On a CPU, where each thread has one, larger intermediates fall out
# of the caches; elsewhere it bounds memory only.
CPU_BATCH_TOKENS = 1024
ACCELERATOR_BATCH_TOKENS = 32_768
ADVISED_FROM = 20_000
"""So many texts take minutes on any CPU, and hours if there are ten times as many."""
PROCESSOR = Path("/proc/cpuinfo")


class SentenceTransformersEncoder(ModelEncoder):
    """Vectors of a sentence-transformers model; it is loaded at the first text, on the first device of
    CUDA, MPS and CPU that is there unless ``settings.device`` names one.

    The same texts give the same bytes on processors of one kind, in whatever order they come and on however many
    cores. Other texts beside them change the batches, and with these the last bits.
    """

    @cached_property
    def _model(self) -> Model:
        return find_model(self._settings.model, self._root)

    @property
    def fingerprint(self) -> str:
        """Raises :class:`TsdsError` for a model that is not there. One of the hub that was never used here is
        downloaded: the fingerprint has its commit."""
        backend = {"backend": f"onnx {onnx_model.VERSION}"} if self._settings.backend == "onnx" else {}
        return self._fingerprint(self._model.identity, **backend)

    def advice(self, texts: int) -> str | None:
        """The setting that would encode so many texts faster here, if they are many and nobody chose a dtype."""
        settings = self._settings
        if texts < ADVISED_FROM or settings.backend != "torch" or "dtype" in settings.model_fields_set:
            return None
        if not _multiplies_bfloat16() or self._loaded().device.type != "cpu":
            return None
        return (
            f'{texts:,} texts to encode: [encoder] dtype = "bfloat16" would be about 1.7 times as fast on this '
            "processor, and keep 99% of the ten nearest neighbours of a text (its vectors depend a little on the "
            'texts beside it); dtype = "float32" stays with what is exact, without this line'
        )

    def afresh(self) -> Self:
        """See :class:`~tsds_pipeline.encoders.base.Encoder`."""
        if self._settings.backend == "onnx":
            self._loaded()  # converts the model, where it is not yet: one process does
        return super().afresh()

    def _loaded(self) -> "SentenceTransformer":
        settings, converted = self._settings, None
        if settings.backend == "onnx":
            # Beside the vectors that it makes: one is of no use without the other.
            storage = self._root / "storage" / FOLDER
            converted = encoder_folder(storage, self.fingerprint) / "model.onnx"
        return _load(self._model, settings.dtype, settings.device, settings.max_tokens, converted)

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Vectors (n, dim) float32 in the order of ``texts``, of length 1 where ``normalize`` is set.

        ``progress`` is called after every batch.
        """
        if not texts:
            return np.empty((0, 0), np.float32)
        settings = self._settings
        model = self._loaded()
        texts = [self._prefix + text for text in texts]
        tokens = _token_counts(model, texts)
        order = by_length(texts, tokens)
        vectors, done = None, 0
        on_cpu = model.device.type == "cpu"
        number, limit = (threads(), CPU_BATCH_TOKENS) if on_cpu else (1, ACCELERATOR_BATCH_TOKENS)
        chosen = list(batches(order, tokens, settings.batch_size, limit))

        def encode(rows: list[int]) -> np.ndarray:
            return model.encode([texts[row] for row in rows], batch_size=len(rows), show_progress_bar=False)

        for rows, batch in zip(chosen, in_threads(encode, chosen, number), strict=True):
            if vectors is None:
                vectors = np.empty((len(texts), batch.shape[1]), np.float32)
            vectors[rows] = batch
            done += len(rows)
            if progress:
                progress(done, len(texts))
        return unit_rows(vectors) if settings.normalize else vectors


def _multiplies_bfloat16() -> bool:
    """Whether the processor itself does; elsewhere it would be slower than float32. Only Linux says."""
    try:
        words = set(PROCESSOR.read_text("utf-8").split())
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & words)


def _token_counts(model: "SentenceTransformer", texts: Sequence[str]) -> list[int]:
    """Tokens of each text after truncation. Sorted by characters, a fifth to a third of the tokens of a batch
    would be padding; counted, about one in a hundred is."""
    if not callable(model.tokenizer):  # static word vectors: nothing is padded
        return [len(text) for text in texts]
    encoded = model.tokenizer(
        list(texts),
        truncation=model.max_seq_length is not None,
        max_length=model.max_seq_length,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return [len(ids) for ids in encoded["input_ids"]]


@lru_cache(maxsize=1)
def _load(
    model: Model, dtype: str, device: str | None, max_tokens: int | None, converted: Path | None
) -> "SentenceTransformer":
    """The model, kept for the next source: every step of one process asks for the same.

    ``converted`` is the file in which ONNX Runtime has it, or is to have it; None is to run it with torch.
    """
    import torch
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    check_device(device)
    try:
        with quiet():
            loaded = SentenceTransformer(
                str(model.folder),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True},
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise TsdsError(
            f"[encoder] model: {model.folder} cannot be loaded as a sentence-transformers model "
            f"with safetensors weights: {reason(error)}"
        ) from error
    if max_tokens is not None:
        _cut_texts(loaded, max_tokens)
    if converted is not None:
        onnx_model.run_with_onnx(loaded, converted)
    elif loaded.device.type == "cpu":
        pack(loaded)
    tokenize_in_turn(loaded)
    return loaded


def _cut_texts(model: "SentenceTransformer", max_tokens: int) -> None:
    """Have texts cut to ``max_tokens``: more than the marks around a text, no more than the model reads."""
    if model.max_seq_length is None:
        raise TsdsError(
            f"[encoder] max_tokens = {max_tokens}: this model reads texts of any length: leave it out"
        )
    lowest, highest = model.tokenizer.num_special_tokens_to_add() + 1, model.max_seq_length
    if not lowest <= max_tokens <= highest:
        raise TsdsError(f"[encoder] max_tokens = {max_tokens}: this model takes from {lowest} to {highest}")
    model.max_seq_length = max_tokens
