"""Small language models, trained from nothing on selected texts, that score held-back ones.

``NgramModel`` is an interpolated Witten-Bell trigram model over words; ``transformer_bits`` trains a small transformer
over bytes. Neither says how a large model would fare after fine-tuning: they reward likeness of words and of style.
"""

import re
from collections.abc import Iterable

import numpy as np

from tsds_pipeline.ngrams import WORDS

ORDER = 3
_WORDS = re.compile(WORDS)


class Vocabulary:
    """Numbers of the words of some texts; 0 begins a text and 1 ends it.

    It is closed: made once of all texts that are trained on or scored. A word that a model did not see gets its share
    of the uniform distribution over all of them, the same whatever the model saw.
    """

    def __init__(self):
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers) + 2

    def add(self, text: str) -> np.ndarray:
        """The words of ``text``, in lower case, as numbers (n,) between two beginnings and an end."""
        numbers = self._numbers
        words = [numbers.setdefault(word, len(numbers) + 2) for word in _WORDS.findall(text.lower())]
        return np.array([0] * (ORDER - 1) + words + [1], dtype=np.int64)


class NgramModel:
    """P(w | h) = (c(hw) + t(h) P(w | h')) / (c(h) + t(h)), h' being h without its first word.

    t(h) is how many different words follow h. Below words alone stands the uniform distribution over ``size`` words.
    Witten & Bell 1991, interpolated.
    """

    def __init__(self, texts: Iterable[np.ndarray], size: int):
        """``texts`` as ``Vocabulary.add`` numbers them; ``size``, that of the vocabulary, is below 2^20."""
        self._size = size
        texts = list(texts)
        self._levels = [
            _Level(np.concatenate([_ngrams(text, n) for text in texts])) for n in range(1, ORDER + 1)
        ]

    def bits(self, texts: Iterable[np.ndarray]) -> float:
        """Cross-entropy in bits a word, the ends counted as words."""
        texts = list(texts)
        p = 1 / self._size
        for n, level in enumerate(self._levels, start=1):
            p = level.interpolated(np.concatenate([_ngrams(text, n) for text in texts]), p)
        return float(-np.log2(p).mean())


class _Level:
    """Counts of n-grams, each one number, its last word in the lowest 20 bits."""

    def __init__(self, ngrams: np.ndarray):
        self._ngrams, self._counts = np.unique(ngrams, return_counts=True)
        self._histories, first = np.unique(self._ngrams >> 20, return_index=True)
        self._totals = np.add.reduceat(self._counts, first)
        self._followers = np.diff(np.append(first, len(self._ngrams)))

    def interpolated(self, ngrams: np.ndarray, lower: np.ndarray | float) -> np.ndarray:
        count = _looked_up(self._ngrams, self._counts, ngrams)
        total = _looked_up(self._histories, self._totals, ngrams >> 20)
        followers = _looked_up(self._histories, self._followers, ngrams >> 20)
        known = np.maximum(total + followers, 1)
        return np.where(total > 0, (count + followers * lower) / known, lower)


def _ngrams(text: np.ndarray, n: int) -> np.ndarray:
    """One number for each word of ``text`` after the beginnings, with the n - 1 words before it."""
    result = np.zeros(len(text) - ORDER + 1, dtype=np.int64)
    for offset in range(ORDER - n, ORDER):
        result = (result << 20) | text[offset : offset + len(result)]
    return result


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each of ``wanted``, 0 where it is not among the ascending ``keys``."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def transformer_bits(
    train: Iterable[str], test: Iterable[str], steps: int, seed: int, *, context: int = 128, batch: int = 16
) -> float:
    """Bits a byte on ``test`` of a transformer (2 layers, 64 wide, 4 heads) trained on ``train`` for ``steps`` batches.

    Texts are joined by a zero byte and cut into windows of ``context`` bytes, drawn with ``seed``. AdamW, 3e-3 falling
    to 0 by a cosine.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vocabulary, width, heads, layers = 256, 64, 4, 2

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.place = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            layer = nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
            )
            self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
            self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocabulary)
            self.mask = nn.Transformer.generate_square_subsequent_mask(context)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            n = tokens.shape[1]
            x = self.embedding(tokens) + self.place(torch.arange(n))
            return self.out(self.norm(self.layers(x, mask=self.mask[:n, :n], is_causal=True)))

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:])

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    data = _bytes(train, context + 1)
    for _ in range(steps):
        starts = rng.integers(0, len(data) - context, batch)
        windows = torch.from_numpy(data[starts[:, None] + np.arange(context + 1)])
        optimizer.zero_grad()
        loss(windows).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    held_back = _bytes(test, context + 1)
    windows = held_back[: len(held_back) // (context + 1) * (context + 1)].reshape(-1, context + 1)
    model.eval()
    with torch.inference_mode():
        parts = [
            float(loss(torch.from_numpy(part))) * len(part)
            for part in np.array_split(windows, -(-len(windows) // 32))
        ]
    return sum(parts) / len(windows) / float(np.log(2))


def _bytes(texts: Iterable[str], least: int) -> np.ndarray:
    """The bytes of ``texts``, each ended by a zero, repeated until there are ``least``; int64."""
    data = np.frombuffer(b"".join(text.encode() + b"\0" for text in texts), dtype=np.uint8).astype(np.int64)
    return np.tile(data, -(-least // len(data)) + 1) if len(data) <= least else data
