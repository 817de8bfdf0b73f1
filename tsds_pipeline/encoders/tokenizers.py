"""Counting tokens as a trainer's tokenizer does. Where its files are is found like those of a model (``models``)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tsds_pipeline.encoders.models import Model, find_model
from tsds_pipeline.errors import TsdsError

FILES = [
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
]
"""What a tokenizer consists of; config.json says of which class it is."""
_AT_ONCE = 4096


def find_tokenizer(name: str, root: Path) -> Model:
    """The files of the tokenizer ``name``: a packaged model, a folder relative to ``root``, or a hub name.

    Its identity is another one when the files of the tokenizer are others, whatever the weights beside it.
    """
    return find_model(name, root, owner=None, key="tokenizer", only=(*FILES, "config.json"))


class TokenCounter:
    """How many tokens a text has, those included that the tokenizer puts around it; no text is cut."""

    def __init__(self, tokenizer: Model):
        self._encode = _loaded(tokenizer.folder)

    def counts(self, texts: Sequence[str]) -> np.ndarray:
        """int64 (n,)"""
        found = [
            count
            for start in range(0, len(texts), _AT_ONCE)
            for count in self._encode(texts[start : start + _AT_ONCE])
        ]
        return np.array(found, dtype=np.int64)


def _loaded(folder: Path):
    file = folder / "tokenizer.json"
    try:
        if file.is_file():
            from tokenizers import Tokenizer

            fast = Tokenizer.from_file(str(file))
            fast.no_truncation()
            fast.no_padding()
            return lambda texts: [len(one.ids) for one in fast.encode_batch_fast(list(texts))]
        from transformers import AutoTokenizer

        slow = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        return lambda texts: [
            len(ids) for ids in slow(list(texts), truncation=False, verbose=False)["input_ids"]
        ]
    except Exception as error:  # tokenizers raises plain Exception for a file it does not understand
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise TsdsError(f"tokenizer: {folder} holds none that can be loaded: {reason}") from error
