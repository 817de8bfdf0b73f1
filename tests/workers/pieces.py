"""Pieces of work for tests: what a worker imports and computes."""

import time
from pathlib import Path

import numpy as np

from tsds_pipeline.core.neighbors import Neighbors
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.stages.spread_search import search_rows


def where(seconds: float, number: int) -> tuple[int, str]:
    """``number``, and the node that took so many ``seconds`` over it."""
    import ray

    time.sleep(seconds)
    return number, ray.get_runtime_context().get_node_id()


def scaled(factor: np.ndarray, values: np.ndarray) -> np.ndarray:
    return factor * values


def search_and_tell(file: str, queries: np.ndarray, k: int, cores: int, start: int, stop: int) -> Neighbors:
    """``search_rows``, telling beside the file who begins which piece, a while before it is searched."""
    import ray

    (Path(file).parent / f"{start}-{ray.get_runtime_context().get_node_id()}.begun").touch()
    time.sleep(0.5)
    return search_rows(file, queries, k, cores, start, stop)


def refuse(number: int) -> None:
    raise TsdsError(f"number {number} is not to be had")


def import_what_is_not_there() -> None:
    import no_such_package  # noqa: F401
