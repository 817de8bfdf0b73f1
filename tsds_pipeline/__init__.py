"""TSDS as a library: ``select`` chooses training examples for a task, ``load_selection`` reads what the
pipeline chose. Each name is imported when it is first used, so that importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsds_pipeline.core.config import SelectionConfig
    from tsds_pipeline.core.prepared import PreparedPool, prepare
    from tsds_pipeline.core.selection import Selection, select
    from tsds_pipeline.results import load_selection

__all__ = ["PreparedPool", "Selection", "SelectionConfig", "load_selection", "prepare", "select"]

_HOMES = {
    "PreparedPool": "tsds_pipeline.core.prepared",
    "Selection": "tsds_pipeline.core.selection",
    "SelectionConfig": "tsds_pipeline.core.config",
    "load_selection": "tsds_pipeline.results",
    "prepare": "tsds_pipeline.core.prepared",
    "select": "tsds_pipeline.core.selection",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
