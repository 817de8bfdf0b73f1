"""Pieces of work for tests: what a worker imports and computes."""

import time

import numpy as np

from tsds_pipeline.errors import TsdsError


def where(seconds: float, number: int) -> tuple[int, str]:
    """``number``, and the node that took so many ``seconds`` over it."""
    import ray

    time.sleep(seconds)
    return number, ray.get_runtime_context().get_node_id()


def scaled(factor: np.ndarray, values: np.ndarray) -> np.ndarray:
    return factor * values


def refuse(number: int) -> None:
    raise TsdsError(f"number {number} is not to be had")


def import_what_is_not_there() -> None:
    import no_such_package  # noqa: F401
