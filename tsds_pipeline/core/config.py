"""The settings of one selection, checked when they are made."""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from tsds_pipeline.core.transport import ALGORITHMS, DEFAULT_DISTANCE_SCALES


@dataclass(frozen=True)
class SelectionConfig:
    """How ``select`` selects. ValueError, naming the field, for a value that makes no sense."""

    algorithm: str = "knn_kde"
    """"knn_kde", "knn_uniform" or "knn_tv"."""
    alpha: float | str = "auto"
    """1 = alignment only, 0 = diversity only; "auto": the most aligned plan with enough effective examples."""
    distance_scale: float | None = None
    """C, a plain distance; not given, it is 5 (knn_tv: 0.3), which suits vectors of unit length."""
    kernel_radius: float = 0.1
    """h, a plain distance: candidates within it are near-duplicates of each other."""
    with_replacement: bool = False
    epochs: int = 1
    normalize: bool = True
    """Scale queries and candidates to unit length first."""
    max_neighbors: int | None = None
    """Give mass only to that many nearest candidates of each query; None: to as many as is optimal."""
    whole_pool_densities: bool = False
    """Compute the density of every candidate, not only where the plan needs it."""
    exact: bool = False
    """Never trade accuracy for time; without it, what is approximate in a large pool is checked on samples."""

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {self.algorithm!r}")
        if self.distance_scale is None:
            object.__setattr__(self, "distance_scale", DEFAULT_DISTANCE_SCALES[self.algorithm])
        if self.alpha != "auto" and not (_is_number(self.alpha) and 0 <= self.alpha <= 1):
            raise ValueError(f'alpha must be "auto" or a number from 0 to 1, got {self.alpha!r}')
        for name in ("distance_scale", "kernel_radius"):
            value = getattr(self, name)
            if not (_is_number(value) and np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
        for name in ("epochs", "max_neighbors"):
            value = getattr(self, name)
            optional = name == "max_neighbors" and value is None
            if not optional and not (is_whole(value) and value >= 1):
                raise ValueError(f"{name} must be a whole number from 1, got {value!r}")
        for name in ("with_replacement", "normalize", "whole_pool_densities", "exact"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")


def is_whole(value: object) -> bool:
    """Whether ``value`` is an integer, of Python or of numpy, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)
