"""`tsds demo` on a small part of its corpus, with the real encoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tsds_pipeline.corpus import demo


@contextmanager
def small_demo(libraries: Sequence[str], tasks: Sequence[str], limit: int = 25) -> Iterator[None]:
    """Meanwhile the demo has these ``libraries``, ``limit`` docstrings of each, and samples of 6 for ``tasks``."""
    few = {key: replace(demo.LIBRARIES[key], limit=limit) for key in libraries}
    settings = demo.SETTINGS.replace("size = 50", "size = 6").replace("size = 40", "size = 6")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "LIBRARIES", few)
        patch.setattr(demo, "TASKS", {key: demo.TASKS[key] for key in tasks})
        patch.setattr(demo, "SETTINGS", settings)
        yield
