"""A model on a CPU whose threads share the texts of a batch, instead of the rows of every product.

Each thread runs a part of the batch by itself, so none waits for another at every layer: where another process has
one of the cores, waiting made two threads slower than one.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


@lru_cache
def threads() -> int:
    """As many as PyTorch would use. Asked once: in the threads that share, it is 1."""
    import torch

    return torch.get_num_threads()


def share(model: "SentenceTransformer") -> None:
    """Have ``model`` split each batch among the threads."""
    import torch

    number, forward = threads(), model.forward
    if number == 1:
        return
    pool = ThreadPoolExecutor(number, "encode", torch.set_num_threads, (1,))

    def part(features: dict) -> "torch.Tensor":
        with torch.inference_mode():
            return forward(features)["sentence_embedding"]

    def shared(features: dict, **kwargs: object) -> dict:
        if "attention_mask" not in features:  # static word vectors: not a row a text
            return forward(features)
        size = -(-len(features["attention_mask"]) // number)
        parts = [
            {
                name: value[start : start + size] if torch.is_tensor(value) and value.ndim else value
                for name, value in features.items()
            }
            for start in range(0, len(features["attention_mask"]), size)
        ]
        return {"sentence_embedding": torch.cat(list(pool.map(part, parts)))}

    model.forward = shared
