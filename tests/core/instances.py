"""Instances of Problem RT, small enough for a linear programme, in all the shapes that could go wrong."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True)
class Instance:
    d: np.ndarray
    a: np.ndarray
    alpha: float
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.d.shape


@st.composite
def instances(draw, max_queries: int = 5, max_candidates: int = 8) -> Instance:
    """Ties, equal queries, equal candidates, one of either; weights over four decades or whole numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m, n = draw(st.integers(1, max_queries)), draw(st.integers(1, max_candidates))
    d = 2 * rng.random((m, n))
    match draw(st.sampled_from(["free", "free", "ties", "equal", "one query", "one candidate"])):
        case "ties":
            d = np.round(3 * d) / 3
        case "equal":
            d[:] = d[0, 0]
        case "one query":
            d[:] = d[0]
        case "one candidate":
            d[:] = d[:, :1]
    weights = {"decades": 10 ** rng.uniform(-4, 0, n), "counts": rng.integers(1, 5, n), "ones": np.ones(n)}
    a = weights[draw(st.sampled_from(sorted(weights)))].astype(float)
    low = 10 ** rng.uniform(-5, 0)  # s* above half of S
    alpha = draw(st.sampled_from([0.0, 1.0, low, rng.random(), rng.random(), rng.random()]))
    return Instance(d, a, float(alpha), float(10 ** rng.uniform(-1, 1)))
