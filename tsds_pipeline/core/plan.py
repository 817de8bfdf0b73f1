"""The transport plan: which query gives how much of its mass to which candidate.

Only the container lives here; ``transport`` finds the plan.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Plan:
    """gamma_ij = explicit mass of the pair + background * reference_j / M; every row sums to 1/M.

    ``query``, ``candidate`` (E,) int64 and ``mass`` (E,) float64 are the explicit entries, each pair at most
    once. Where ``background`` is zero they are the whole plan and ``reference`` is None. Otherwise
    ``reference`` (N,) sums to 1 and an entry is a correction, negative where a pair has less than the background.
    """

    n_queries: int
    n_candidates: int
    query: np.ndarray
    candidate: np.ndarray
    mass: np.ndarray
    background: float = 0.0
    reference: np.ndarray | None = None

    @cached_property
    def probabilities(self) -> np.ndarray:
        """p_j = sum over i of gamma_ij, (N,) float64."""
        total = np.zeros(self.n_candidates)  # bincount of no entries would give integers
        total += np.bincount(self.candidate, weights=self.mass, minlength=self.n_candidates)
        if self.reference is not None:
            total += self.background * self.reference
            # A pair that was taken out of the background for every query may leave a rounding error.
            total[total < 1e-13 * self.background * self.reference] = 0.0
        return total

    @cached_property
    def row_sums(self) -> np.ndarray:
        """sum over j of gamma_ij, (M,) float64: 1/M each, to rounding."""
        total = np.zeros(self.n_queries)
        total += np.bincount(self.query, weights=self.mass, minlength=self.n_queries)
        if self.reference is not None:
            total += self.background * self.reference.sum() / self.n_queries
        return total

    def dense(self) -> np.ndarray:
        """The whole matrix gamma, (M, N) float64; for small cases."""
        gamma = np.zeros((self.n_queries, self.n_candidates))
        if self.reference is not None:
            gamma += self.background * self.reference / self.n_queries
        gamma[self.query, self.candidate] += self.mass
        return gamma


def reference_plan(n_queries: int, reference: np.ndarray, explicit: bool) -> Plan:
    """Every query gives ``reference`` (N,), which sums to 1: as entries where ``explicit``, else as background."""
    n = len(reference)
    if explicit:
        query, candidate = np.repeat(np.arange(n_queries), n), np.tile(np.arange(n), n_queries)
        return Plan(n_queries, n, query, candidate, np.tile(reference / n_queries, n_queries))
    none = np.empty(0, dtype=np.int64)
    return Plan(n_queries, n, none, none, np.empty(0), 1.0, reference)
