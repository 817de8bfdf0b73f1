"""knn_kde and knn_uniform: the closed form of

    minimise  alpha/C sum_ij gamma_ij d_ij + (1 - alpha) M max_ij (1/a_j) |gamma_ij - a_j/(M S)|

with a_j = n_j/rho_j (n_j for knn_uniform) and S their sum. Along a row in order of distance,

    s_ik = sum_{l<=k} a_l          c_i(s) = sum_{l<k} a_l (d_ik - d_il)   for s_i,k-1 < s <= s_ik

is the cost of reaching past the k-1 nearest. c(s), summed over the rows, never decreases: at each s_ik it grows
by s_ik (d_i,k+1 - d_ik). s* is the largest s_ik with alpha/C c(s) < (1 - alpha) M, and every row fills
a_k/(M s*) nearest first until 1/M is given away. From s* = S/2 on, the optimum is the better of the filling at S/2
and the reference plan (TSDS, theorem 3.2 and appendix, without its assumption that s* <= S/2). Where some candidate
may have no mass, as under ``max_neighbors``, G is 1/S at least, and so it is the filling at S/2 at the widest.
"""

from functools import cached_property

import numpy as np

from tsds_pipeline.core.problem import TransportProblem, nearest
from tsds_pipeline.core.rows import Block

# What is left for the border candidate below this share of s* is a rounding error of the sums.
_ROUNDING = 1e-12
_PROBES = 64
_MAX_BREAKPOINTS = 2**22
_FIRST_UNSEEN = 1024
_SORTED, _BUCKETS = 2**16, 2**12


class KernelProblem(TransportProblem):
    """Problem RT with the largest relative deviation as regulariser. Its spread is s*."""

    ordered = True

    def spread(self, alpha: float) -> float:
        if alpha == 1:
            return 0.0
        if alpha == 0 and not self.confined:
            return np.inf
        budget = (1.0 - alpha) / alpha * self.scale * self.m if alpha else np.inf
        while True:
            # A crossing found in truncated rows is never too small; nothing past S/2 needs to be known.
            crossing = min(self._crossing(budget), self.pool.total_weight()[1] / 2)
            if self.reach(crossing):
                break
        half = self._half(crossing)
        if crossing < half:
            return crossing
        return half if self.confined or self._half_is_better(alpha) else np.inf

    def alpha(self, spread: float) -> float:
        if np.isinf(spread):
            gain = 2 * self._half(np.inf) * (self.reference_transport - self._half_transport)
            return self.scale / (self.scale + max(gain, 0.0))
        return self.scale * self.m / (self.scale * self.m + self._cost(spread))

    def masses(self, block: Block, spread: float) -> np.ndarray:
        if spread > 0:
            return filling(block, spread) / self.m
        row, column, share = nearest(block)
        mass = np.zeros_like(block.weights)
        mass[row, column] = share / self.m
        return mass

    def short(self, block: Block, spread: float) -> np.ndarray:
        if spread == 0:
            return block.distances[:, -1] == block.distances[:, 0]
        return block.reached[:, -1] < spread

    def cut(self, block: Block, spread: float) -> np.ndarray:
        if self.confined and self._half(spread) <= spread:
            return self.limited(block)  # the reference plan may have been better
        # A row that ends exactly at s* may be the one that holds it down.
        end = self.short(block, spread) if spread == 0 else block.reached[:, -1] <= spread * (1 + _ROUNDING)
        return end & self.limited(block) if end.any() else end

    def penalty_part(self, block: Block, mass: np.ndarray) -> tuple[float, float]:
        given = mass > 0
        ratio = self.m * mass[given] / block.weights[:, : mass.shape[1]][given]
        return float(ratio.max()), float(ratio.min())

    def penalty(self, parts: np.ndarray, full: bool) -> tuple[float, float]:
        """G = max(u - 1/S, 1/S - v), u and v the extremes of M gamma_ij / a_j, with S between its bounds."""
        u, v = parts[:, 0].max(), parts[:, 1].min() if full else 0.0
        low, high = self.pool.total_weight()
        totals = np.array([low, high, np.clip(2.0 / (u + v), low, high)])
        values = np.maximum(u - 1.0 / totals, 1.0 / totals - v)
        return float(values.min()), float(values.max())

    def least_spread(self) -> float:
        return float(min(block.reached[:, 0].min() for block in self.known.blocks()))

    def bounded(self, spread: float) -> float:
        spread = min(spread, self._half(spread))
        self.blocks(spread)
        ends = [block.reached[block.closed, -1] for block in self.known.blocks()]
        return float(min(spread, *(end.min(initial=np.inf) for end in ends)))

    # S and what lies around half of it.

    def _half(self, spread: float) -> float:
        """S/2, or a lower bound on it that is above ``spread``; weights are asked for only until that is so."""
        low, high = self.pool.total_weight()
        start, step = 0, _FIRST_UNSEEN
        while low < high and low / 2 <= spread and start < self.pool.size:
            self.pool.weights(np.arange(start, min(start + step, self.pool.size)))
            start, step = start + step, 2 * step
            low, high = self.pool.total_weight()
        return low / 2

    @cached_property
    def _half_transport(self) -> float:
        half = self._half(np.inf)
        return sum(
            float(np.einsum("ij,ij->", mass, block.distances[:, : mass.shape[1]]))
            for block in self.blocks(half)
            for mass in [self.masses(block, half)]
        )

    def _half_is_better(self, alpha: float) -> bool:
        gain = alpha / self.scale * (self.reference_transport - self._half_transport)
        return gain > (1.0 - alpha) / (2 * self._half(np.inf))

    # c(s), from known neighbourhoods: all breakpoints.

    def _crossing(self, budget: float) -> float:
        """The first breakpoint past which c(s) is at least ``budget``; infinite if none is known."""
        if self.whole is not None:
            return self._crossing_of_whole(budget)
        return first_reaching(*self._breakpoints(), budget)

    def _cost(self, spread: float) -> float:
        """c(spread); the rows have to reach that far."""
        if self.whole is not None:
            return float(self._probe_whole(np.array([spread]))[0][0])
        points, growth = self._breakpoints()
        return float(growth[points < spread].sum())

    def _breakpoints(self) -> tuple[np.ndarray, np.ndarray]:
        """All known s_ik, and by how much c grows just past each; nothing where rows are not known further."""
        state = int(self.known.depth.sum())
        if self._known is None or self._known[0] != state:
            pieces = [(block.reached.ravel(), _growth(block).ravel()) for block in self.known.blocks()]
            self._known = state, *(np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
        return self._known[1:]

    _known: tuple[int, np.ndarray, np.ndarray] | None = None

    # c(s), from passes over whole rows: probes close in on the breakpoint.

    def _crossing_of_whole(self, budget: float) -> float:
        """The first breakpoint past which c(s) is at least ``budget``, or S/2 if that comes first."""
        low, high = 0.0, self._half(np.inf)
        while True:
            probes = np.linspace(low, high, _PROBES + 1)
            costs, counts = self._probe_whole(probes)
            if costs[-1] < budget:
                return high
            above = max(1, int(np.searchsorted(costs, budget, side="left")))
            narrowed = probes[above - 1], probes[above]
            if counts[above] - counts[above - 1] <= _MAX_BREAKPOINTS or narrowed == (low, high):
                return self._breakpoint_between(*narrowed, budget - costs[above - 1])
            low, high = narrowed

    def _probe_whole(self, probes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """c(s) at ``probes`` (p,) and how many breakpoints lie before each."""
        costs, counts = np.zeros(len(probes)), np.zeros(len(probes), dtype=np.int64)
        for block in self.whole.blocks():
            growth = np.cumsum(_growth(block)[:, :-1], axis=1)
            for reached, grown in zip(block.reached, growth, strict=True):
                before = np.searchsorted(reached[:-1], probes, side="left")
                counts += before
                costs += np.concatenate([[0.0], grown])[before]
        return costs, counts

    def _breakpoint_between(self, low: float, high: float, budget: float) -> float:
        pieces = []
        for block in self.whole.blocks():
            inside = (block.reached >= low) & (block.reached < high)
            pieces.append((block.reached[inside], _growth(block)[inside]))
        points, growth = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
        order = np.argsort(points, kind="stable")
        first = np.searchsorted(np.cumsum(growth[order]), budget, side="left")
        return float(points[order[first]]) if first < len(points) else high


def first_reaching(points: np.ndarray, growth: np.ndarray, budget: float) -> float:
    """The least of ``points`` (n,) up to which, in order, the sum of ``growth`` (n,) is at least ``budget``.

    Infinite if that is never so. Millions are not sorted: the point is in one of some buckets, then in one of those.
    """
    before, narrowed = 0.0, False
    while len(points) > _SORTED:
        low, high = points.min(), points.max()
        scale = _BUCKETS / (high - low) if high > low else np.inf
        if not np.isfinite(scale):
            break
        place = np.minimum((points - low) * scale, _BUCKETS - 1).astype(np.int32)
        sums = before + np.cumsum(np.bincount(place, weights=growth, minlength=_BUCKETS))
        bucket = int(np.searchsorted(sums, budget, side="left"))
        if bucket == _BUCKETS:
            return np.inf
        inside = place == bucket
        if inside.all():
            break
        before, narrowed = (sums[bucket - 1] if bucket else before), True
        points, growth = points[inside], growth[inside]
    order = np.argsort(points, kind="stable")
    first = int(np.searchsorted(before + np.cumsum(growth[order]), budget, side="left"))
    # In another order the sum of the bucket may have come out a rounding error below the budget.
    if narrowed:
        first = min(first, len(points) - 1)
    return float(points[order[first]]) if first < len(points) else np.inf


def filling(block: Block, s: float) -> np.ndarray:
    """Shares of each row's mass, (b, w): min(a_k, max(0, s - s_k-1)) / s, rows summing to 1.

    A nearest candidate heavier than s takes the whole row.
    """
    width = 1 + int((block.reached[:, :-1] < s).sum(axis=1).max())
    room = np.empty((len(block.rows), width))
    room[:, 0] = s
    np.subtract(s, block.reached[:, : width - 1], out=room[:, 1:])
    room[room <= _ROUNDING * s] = 0.0
    share = np.minimum(room, block.weights[:, :width], out=room)
    last = np.count_nonzero(share, axis=1)[:, None] - 1
    return share / np.minimum(s, np.take_along_axis(block.reached, last, axis=1))


def _growth(block: Block) -> np.ndarray:
    """By how much c grows at each s_ik, (b, k): nothing is known past the end of a row, closed rows end there."""
    growth = np.empty_like(block.distances)
    np.multiply(np.diff(block.distances, axis=1), block.reached[:, :-1], out=growth[:, :-1])
    growth[:, -1] = np.where(block.closed, np.inf, 0.0)
    return growth
