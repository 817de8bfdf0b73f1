"""What every model that torch runs needs while it is loaded: a device that is there, and no noise."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tsds_pipeline.errors import TsdsError


def check_device(device: str | None) -> None:
    """Raise :class:`TsdsError` for a device that torch cannot use here; None is always fine."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise TsdsError(
            f'[encoder] device = "{device}" cannot be used here: leave it out to have one found ({reason(error)})'
        ) from None


def found_device(device: str | None) -> str:
    """``device``, or without one the first of CUDA, MPS and CPU that is there."""
    import torch

    check_device(device)
    if device is not None:
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def reason(error: BaseException) -> str:
    """The first line of what ``error`` says."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """No bar for each of the weights, nor a report of those that are not needed."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
