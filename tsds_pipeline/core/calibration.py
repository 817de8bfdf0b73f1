"""Which kernel radius and distance scale suit given embeddings: rules on arrays of distances.

**Kernel radius** h. A pair at distance d counts as max(0, 1 - d^2/h^2) of a duplicate. It is *caught* where that is at
least CAUGHT_AT, which is where d <= h sqrt(1 - CAUGHT_AT). Wanted: of pairs that are near-duplicates at least the share
CAUGHT is caught, and at most the share MERGED of the candidates is caught with the nearest text that is another one.
Where both can be had, the smallest h that catches the share is proposed; where they cannot, the largest one that
merges no more.

**Distance scale** C. The optimum at alpha reaches as far as a query's mean cost of reaching, c(s)/M, stays below
C (1 - alpha)/alpha (see ``kernel_transport``; for knn_tv it is the distance beyond the nearest candidate): at alpha =
1/2 just C itself. So C decides which alpha gives which neighbourhood, and nothing else. It fits where alpha = 1/2
gives neighbourhoods that weigh about REFERENCE candidates, as C = 5 does for sentence embeddings of unit length, and
is off where it is more than TOLERANCE times too large or too small for that. Alpha matters between the two at which a
neighbourhood is half of the pool and two candidates.
"""

from dataclasses import dataclass

import numpy as np

CAUGHT_AT, CAUGHT, MERGED = 0.5, 0.9, 0.05
REFERENCE, TOLERANCE = 100.0, 4.0
# Of a small pool the reference is this share: half of it would be the whole range.
_REFERENCE_SHARE = 0.25
LADDER = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Radii that are shown, for vectors of unit length, of which two taken at random are TYPICAL apart."""
TYPICAL = 1.4
_CLOSE_TO_UNIT = 1.25


@dataclass(frozen=True, eq=False)
class RadiusEvidence:
    """Distances (plain L2) of near-duplicates, and of candidates to the nearest text that is another one."""

    pairs: np.ndarray
    """(P,)"""
    pair_weights: np.ndarray
    """(P,) what each pair stands for."""
    others: np.ndarray
    """(n,)"""
    other_weights: np.ndarray
    """(n,)"""

    def at(self, radius: float, some: np.ndarray | slice = slice(None)) -> "RadiusFigures":
        """What ``radius`` does; ``some`` (P,) bool restricts it to some of the pairs."""
        pairs, weights = self.pairs[some], self.pair_weights[some]
        return RadiusFigures(
            radius=radius,
            caught=share_below(pairs, weights, caught_within(radius)),
            mean_weight=float(np.average(kernel(pairs, radius), weights=weights)) if len(pairs) else np.nan,
            merged=share_below(self.others, self.other_weights, caught_within(radius)),
            touched=share_below(self.others, self.other_weights, radius),
        )


@dataclass(frozen=True)
class RadiusFigures:
    """Shares from 0 to 1; NaN where there is nothing to count."""

    radius: float
    caught: float
    """Of the pairs, those that count as at least CAUGHT_AT of a duplicate."""
    mean_weight: float
    """1 - d^2/h^2, over all pairs."""
    merged: float
    """Of the candidates, those that count so with the nearest text that is another one."""
    touched: float
    """Of the candidates, those for which that text is within the radius at all."""


@dataclass(frozen=True)
class RadiusProposal:
    """A kernel radius by the rule of this module."""

    radius: float | None
    """Two significant digits; None where distances of 0 leave no choice."""
    needed: float
    """The smallest radius that catches the share CAUGHT of the pairs."""
    allowed: float
    """The largest one that merges no more than the share MERGED of the candidates; infinite without any."""

    @property
    def separates(self) -> bool:
        """Whether one radius does both."""
        return self.needed <= self.allowed


def kernel(distances: np.ndarray, radius: float) -> np.ndarray:
    """As how much of a duplicate a pair at each of ``distances`` counts."""
    return np.maximum(0.0, 1.0 - np.square(distances / radius))


def caught_within(radius: float) -> float:
    """The distance up to which a pair counts as at least CAUGHT_AT of a duplicate."""
    return radius * (1.0 - CAUGHT_AT) ** 0.5


def propose_radius(evidence: RadiusEvidence) -> RadiusProposal:
    """The radius for ``evidence``; ValueError where it holds no pairs."""
    if not len(evidence.pairs):
        raise ValueError("a kernel radius needs at least one pair of near-duplicates")
    scale = caught_within(1.0)
    needed = weighted_quantile(evidence.pairs, evidence.pair_weights, CAUGHT) / scale
    # The first distance at which more than MERGED is reached is already too far.
    allowed = np.inf
    if len(evidence.others):
        allowed = weighted_quantile(evidence.others, evidence.other_weights, MERGED + 1e-9) / scale
    rounded = rounded_digits(needed, up=True)
    radius = rounded if rounded <= allowed else rounded_digits(allowed, up=False)
    return RadiusProposal(radius if radius > 0 else None, float(needed), float(allowed))


def ladder(typical: float) -> tuple[float, ...]:
    """Radii to show where two candidates taken at random are ``typical`` apart (plain L2, > 0)."""
    scale = typical / TYPICAL
    if 1 / _CLOSE_TO_UNIT <= scale <= _CLOSE_TO_UNIT:
        return LADDER
    return tuple(rounded_digits(radius * scale, up=False) for radius in LADDER)


def share_below(values: np.ndarray, weights: np.ndarray, limit: float) -> float:
    """The share of ``weights`` (n,) whose ``values`` are at most ``limit``; NaN without any."""
    return float(weights[values <= limit].sum() / weights.sum()) if len(values) else float("nan")


def weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The least of ``values`` (n,) up to which at least ``share`` of ``weights`` lies."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order[min(np.searchsorted(reached, share * (1 - 1e-12)), len(values) - 1)]])


def rounded_digits(value: float, *, up: bool, digits: int = 2) -> float:
    """``value`` (>= 0) with so many significant digits, rounded ``up`` or down; what has no more stays as it is."""
    if value <= 0 or not np.isfinite(value):
        return float(value)
    power = digits - 1 - int(np.floor(np.log10(value)))
    scaled = value * 10.0**power
    whole = np.round(scaled)
    if abs(scaled - whole) > 1e-9 * scaled:
        whole = np.ceil(scaled) if up else np.floor(scaled)
    return float(f"{whole / 10.0**power:.12g}")


@dataclass(frozen=True)
class DistanceScale:
    """How ``scale`` (C) suits the distances of some queries to all candidates; costs are means over the queries."""

    scale: float
    reference: float
    """What a neighbourhood at alpha = 1/2 should weigh."""
    least: float
    """The cost of reaching a weight of two candidates."""
    fitting: float
    """The cost of reaching the reference: the C that fits."""
    most: float
    """The cost of reaching half of the pool."""

    @property
    def ratio(self) -> float:
        """C over the one that fits; NaN where no distance differs from another."""
        return self.scale / self.fitting if self.fitting > 0 else float("nan")

    @property
    def fits(self) -> bool:
        return 1 / TOLERANCE <= self.ratio <= TOLERANCE

    @property
    def useful_alphas(self) -> tuple[float, float]:
        """Below the first a neighbourhood is half of the pool and more, above the second hardly two candidates."""
        return self.scale / (self.scale + self.most), self.scale / (self.scale + self.least)

    @property
    def proposed(self) -> float | None:
        """The C that fits, two significant digits; None where there is none."""
        return rounded_digits(self.fitting, up=False) if self.fitting > 0 else None


def distance_scale(
    distances: np.ndarray, weights: np.ndarray, scale: float, *, threshold: bool = False
) -> DistanceScale:
    """How ``scale`` suits ``distances`` (m, N), plain L2, to candidates of ``weights`` a_j (N,).

    ``threshold`` is for knn_tv, whose neighbourhoods are all within a distance of the nearest candidate.
    """
    total = float(weights.sum())
    reference = min(REFERENCE, _REFERENCE_SHARE * total)
    spreads = np.array([min(2.0, total / 2), reference, total / 2])
    costs = np.mean([_reaching(row, weights, spreads, threshold) for row in distances], axis=0)
    return DistanceScale(float(scale), reference, *(float(cost) for cost in costs))


def equivalent_alpha(alpha: float, scale: float, other: float) -> float:
    """The alpha that gives with the distance scale ``other`` the plan that ``alpha`` gives with ``scale``."""
    if alpha in (0.0, 1.0):
        return alpha
    return other / (other + scale * (1.0 - alpha) / alpha)


def _reaching(row: np.ndarray, weights: np.ndarray, spreads: np.ndarray, threshold: bool) -> np.ndarray:
    """c_i(s) at each of ``spreads`` for one query (or d_ik - d_i1), (len(spreads),)."""
    order = np.argsort(row, kind="stable")
    d, a = row[order], weights[order]
    reached = np.cumsum(a)
    k = np.minimum(np.searchsorted(reached, spreads, side="left"), len(d) - 1)
    if threshold:
        return d[k] - d[0]
    before = np.concatenate([[0.0], reached])[k]
    return d[k] * before - np.concatenate([[0.0], np.cumsum(a * d)])[k]
