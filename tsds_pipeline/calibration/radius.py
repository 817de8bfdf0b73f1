"""What kernel radius suits a project's texts; the rule is in ``core.calibration``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tsds_pipeline.calibration.pairs import Pairs, edited_pairs, given_pairs
from tsds_pipeline.calibration.texts import LENGTHS, PoolTexts
from tsds_pipeline.core.arrays import all_distances
from tsds_pipeline.core.calibration import (
    RadiusEvidence,
    RadiusFigures,
    RadiusProposal,
    caught_within,
    ladder,
    propose_radius,
    weighted_quantile,
)
from tsds_pipeline.node_names import DEFAULT_ENCODER
from tsds_pipeline.progress import Progress
from tsds_pipeline.project import Project

EDITED = 300
"""Texts that are edited unless told otherwise: some seconds of encoding."""
OTHERS = 1000
"""Candidates whose nearest other text is looked for."""
_RANDOM = 500
EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class RadiusRow:
    """One radius: over all pairs, and by length of text (NaN where there are none)."""

    figures: RadiusFigures
    caught_by_length: tuple[float, ...]
    in_use: bool
    proposed: bool


@dataclass(frozen=True, eq=False)
class RadiusFindings:
    """All that is known about the kernel radius of a project."""

    in_use: float
    table: str
    """Where tsds.toml has it."""
    given: Path | None
    """Where the pairs are from; None where they were made by edits."""
    pairs: Pairs | None
    """None where there were none to be had."""
    others: np.ndarray
    """(n,) distance of sampled candidates to the nearest text that is another one."""
    other_weights: np.ndarray
    """(n,) what each of these candidates stands for."""
    typical: float
    """Median distance of two candidates taken at random."""
    words: tuple[int, ...]
    """How many texts of the pool there are of each of LENGTHS."""
    natural: float
    """The share of the candidates of which the pool holds an edit, by a sample."""
    proposal: RadiusProposal | None
    rows: tuple[RadiusRow, ...]
    examples: pl.DataFrame
    """Texts of the pool and the nearest other ones, that the proposed (or present) radius makes half a duplicate:
    source, text, other_source, other_text, distance."""

    def pairs_of_length(self, group: int) -> np.ndarray:
        """The distances of the pairs in one of LENGTHS."""
        return np.empty(0) if self.pairs is None else self.pairs.distances[self.pairs.groups == group]


def find_radius(
    project: Project,
    pool: PoolTexts,
    pairs: Path | None,
    edits: int,
    seed: int,
    progress: Progress | None = None,
) -> RadiusFindings:
    """Look at the pairs in the file ``pairs``, else at ``edits`` texts and their edits, and at the pool."""
    key = f"tsds calibrate {seed}"
    sample = pool.sample(max(OTHERS, edits), key)
    if pairs is not None:
        found = given_pairs(project, pool, pairs, progress)
    else:
        found = edited_pairs(project, pool, pool.sample(edits, key), seed, progress)
    near = pool.nearest_others(sample)
    finite, weights = np.isfinite(near.distances), sample["weight"].to_numpy()
    usable = found is not None and len(found.distances) > 0
    evidence = RadiusEvidence(
        pairs=found.distances if usable else np.empty(0),
        pair_weights=found.weights if usable else np.empty(0),
        others=near.distances[finite],
        other_weights=weights[finite],
    )
    proposal = propose_radius(evidence) if usable else None
    few = pool.sample(_RANDOM, key)
    typical = _typical(pool.vectors(few), few["weight"].to_numpy())
    in_use = project.settings.pool.kernel_radius
    groups = pool.table["group"]
    return RadiusFindings(
        in_use=in_use,
        table="pool" if project.encoder == DEFAULT_ENCODER else f"encoders.{project.encoder}",
        given=pairs,
        pairs=found if usable else None,
        others=evidence.others,
        other_weights=evidence.other_weights,
        typical=typical,
        words=tuple(int((groups == group).sum()) for group in range(len(LENGTHS))),
        natural=float(weights[near.edited].sum() / weights.sum()),
        proposal=proposal,
        rows=_rows(evidence, found if usable else None, typical, in_use, proposal),
        examples=_examples(near.table, proposal.radius if proposal and proposal.radius else in_use),
    )


def _rows(
    evidence: RadiusEvidence,
    pairs: Pairs | None,
    typical: float,
    in_use: float,
    proposal: RadiusProposal | None,
) -> tuple[RadiusRow, ...]:
    proposed = proposal.radius if proposal else None
    shown = ladder(typical) if typical > 0 else ()
    radii = sorted({*shown, in_use, *([proposed] if proposed else [])})
    groups = np.empty(0) if pairs is None else pairs.groups
    return tuple(
        RadiusRow(
            evidence.at(radius),
            tuple(evidence.at(radius, groups == group).caught for group in range(len(LENGTHS))),
            in_use=radius == in_use,
            proposed=radius == proposed,
        )
        for radius in radii
    )


def _typical(vectors: np.ndarray, weights: np.ndarray) -> float:
    """Median distance of two of ``vectors``, each drawn by ``weights``; 0 where there is one."""
    left, right = np.triu_indices(len(vectors), 1)
    if not len(left):
        return 0.0
    return weighted_quantile(
        all_distances(vectors, vectors)[left, right], weights[left] * weights[right], 0.5
    )


def _examples(table: pl.DataFrame, radius: float) -> pl.DataFrame:
    """The pairs nearest to the distance at which they count as half of a duplicate, each once."""
    border = (pl.col("distance") - caught_within(radius)).abs()
    both = pl.concat_list("text", "other_text").list.sort().list.join("\0")
    return (
        table.filter(pl.col("distance") <= radius)
        .with_columns(both=both)
        .sort(border)
        .unique("both", maintain_order=True)
        .head(EXAMPLES)
        .drop("both")
    )
