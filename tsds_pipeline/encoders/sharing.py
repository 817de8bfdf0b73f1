"""Batches on a CPU that threads encode side by side, instead of sharing the rows of every product.

Each thread runs batches by itself, so none waits for another at every layer: where another process has one of the
cores, waiting made two threads slower than one. Which texts are in a batch does not depend on the number of threads, so
neither do the vectors.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@lru_cache
def threads() -> int:
    """As many as PyTorch would use. Asked once: in the threads that share, it is 1."""
    import torch

    return torch.get_num_threads()


def in_threads(function: Callable[[Any], Any], items: Iterable[Any], number: int) -> Iterator[Any]:
    """The results of ``function`` for each of ``items``, in order, on so many threads."""
    if number == 1:
        yield from map(function, items)
        return
    import torch

    with ThreadPoolExecutor(number, "encode", torch.set_num_threads, (1,)) as pool:
        yield from pool.map(function, items)


def tokenize_in_turn(model: "SentenceTransformer") -> None:
    """Have one thread at a time use the tokenizer of ``model``, which refuses a second."""
    lock, preprocess = Lock(), model.preprocess

    def in_turn(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return preprocess(*args, **kwargs)

    model.preprocess = in_turn
