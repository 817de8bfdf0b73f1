"""What to write into tsds.toml after a calibration, and why; in words, for terminal and page alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tsds_pipeline.calibration.alpha import AlphaRow, Sweep
from tsds_pipeline.calibration.radius import RadiusFindings, RadiusRow
from tsds_pipeline.calibration.texts import LENGTHS
from tsds_pipeline.core.calibration import (
    CAUGHT,
    MERGED,
    TOLERANCE,
    DistanceScale,
    equivalent_alpha,
    rounded_digits,
)
from tsds_pipeline.settings import Settings

_DUPLICATE = "at least half of a duplicate"
# A radius in use that is within this share of the proposed one is left alone.
_ABOUT = 0.15


@dataclass(frozen=True)
class Advice:
    """One line of tsds.toml."""

    table: str
    """As in "pool" or "tasks.bbh"."""
    key: str
    value: float
    why: str


@dataclass(frozen=True, eq=False)
class TaskFindings:
    """What was found about one task."""

    sweep: Sweep
    scale: DistanceScale
    algorithm: str


def radius_in_words(found: RadiusFindings) -> list[str]:
    """What the pairs say, in sentences."""
    if found.proposal is None:
        return [
            "There are no pairs of near-duplicates to go by: nothing here can encode an edited text, or none could be "
            "edited. Name pairs with --pairs; what each radius would merge is in the table."
        ]
    said, proposal = [], found.proposal
    used = _row(found, found.in_use)
    if proposal.radius is None:
        return [
            "Distances of 0 leave no choice: either the pairs are alike to the encoder, or so many different texts are "
            "(does it read only their beginning?)."
        ]
    what = "edited texts" if found.given is None else "given pairs"
    if _keep(found) and proposal.separates:
        said.append(
            f"The radius in use, {found.in_use:g}, does: {used.figures.caught:.0%} of the {what} count as "
            f"{_DUPLICATE}, and {used.figures.merged:.1%} of the candidates do so with the nearest text that is "
            "another one."
        )
        return said
    row = _row(found, proposal.radius)
    figures = row.figures
    if proposal.separates:
        said.append(
            f"At {proposal.radius:g}, {figures.caught:.0%} of the {what} count as {_DUPLICATE}, and "
            f"{figures.merged:.1%} of the candidates do so with the nearest text that is another one."
        )
    else:
        said.append(
            f"No radius tells them apart: to catch {CAUGHT:.0%} of the {what} it would take "
            f"{rounded_digits(proposal.needed, up=True):g}, but beyond {proposal.radius:g} more than {MERGED:.0%} of "
            f"the candidates count as {_DUPLICATE} with the nearest text that is another one. At "
            f"{proposal.radius:g}, {figures.caught:.0%} are caught{_by_length(row)}."
        )
    if _keep(found):
        said.append(f"The radius in use, {found.in_use:g}, is about that: leave it.")
    else:
        said.append(
            f"The radius in use, {found.in_use:g}, catches {used.figures.caught:.0%} and merges "
            f"{used.figures.merged:.1%}."
        )
    return said


def _by_length(row: RadiusRow) -> str:
    shares = [
        f"{share:.0%} of {name} texts"
        for name, share in zip(LENGTHS, row.caught_by_length, strict=True)
        if not np.isnan(share)
    ]
    return f" ({', '.join(shares)})" if len(shares) > 1 else ""


def _row(found: RadiusFindings, radius: float) -> RadiusRow:
    return next(row for row in found.rows if row.figures.radius == radius)


def _keep(found: RadiusFindings) -> bool:
    """Whether the radius in use does as well: changing it has every density made again."""
    proposal = found.proposal
    return proposal.needed <= found.in_use <= proposal.allowed or _about(found.in_use, proposal.radius)


def _about(radius: float, proposed: float | None) -> bool:
    return proposed is not None and abs(radius / proposed - 1) <= _ABOUT


def alpha_in_words(sweep: Sweep) -> list[str]:
    """What the sweep of one task says, in sentences."""
    said = [*_best_in_words(sweep), *_use_in_words(sweep)]
    if sweep.telling and sweep.span is None and sweep.best.effective_size < sweep.size:
        said.append(
            f"At {shown_alpha(sweep.best.alpha)} the effective size is {sweep.best.effective_size:,.0f}, less than the "
            f"{sweep.size:,} asked for: ask for fewer there."
        )
    if sweep.left_out is not None:
        said.append(
            f"Between 0 and {shown_alpha(sweep.left_out)} neighbourhoods are too large to be looked at here."
        )
    return said


def _best_in_words(sweep: Sweep) -> Iterator[str]:
    """Which alpha held-back queries like best, and whether the one in use is as good."""
    used, best = sweep.used, sweep.best
    if sweep.folds == 1:
        yield "There is one query: none can be held back to judge by."
    elif best is None:
        yield "No alpha gives enough examples in every part: ask for fewer, or add sources."
    elif not sweep.telling:
        yield (
            "No alpha comes clearly nearer to the held-back queries than candidates taken at random: there are few of "
            "them, or the sources hold nothing like them."
        )
    elif sweep.span is not None:
        low, high = (shown_alpha(alpha) for alpha in sweep.span)
        more = (
            f": from {low} to {high} it makes hardly a difference." if sweep.span[0] < sweep.span[1] else "."
        )
        yield f"Alpha {shown_alpha(used.alpha)}, in use, is as good as any{more}"
    elif used is None:
        yield f"Of the alphas that were looked at, {shown_alpha(best.alpha)} comes nearest to the held-back queries."
    else:
        farther = (
            f"{used.energy.mean() / best.energy.mean() - 1:.0%} farther"
            if len(used.energy)
            else "not measured"
        )
        yield (
            f"Alpha {shown_alpha(best.alpha)} comes nearest to the held-back queries; {shown_alpha(used.alpha)}, in "
            f"use, is {farther} by energy distance."
        )


def _use_in_words(sweep: Sweep) -> Iterator[str]:
    """What is wrong with the alpha in use for the size that is asked for."""
    used = sweep.used
    if sweep.chosen is None:
        yield f"There are fewer than {sweep.size:,} examples: no alpha reaches the size."
    elif used is None:
        yield (
            f"Alpha {shown_alpha(sweep.chosen)}, in use, gives neighbourhoods that are too large to be looked at here."
        )
    elif used.certain is None:
        yield f"In use, only {used.with_mass:,} examples have mass, fewer than the {sweep.size:,} asked for."
    elif used.effective_size < sweep.size * (1 - 1e-6):
        yield (
            f"In use, the effective size {used.effective_size:,.0f} is below the {sweep.size:,} examples asked for: "
            'the sample holds what is hardly probable; alpha = "auto" avoids that.'
        )


def scale_in_words(tasks: Sequence[TaskFindings], settings: Settings) -> list[str]:
    """What the distances say about the distance scale, in sentences."""
    off = [task for task in tasks if not task.scale.fits]
    if not off:
        return ["The distance scale fits: alpha = 1/2 gives neighbourhoods as they are meant to be."]
    said = []
    for task in off:
        scale, name = task.scale, task.sweep.task
        if scale.proposed is None:
            said.append(
                f"{name}: no candidate is farther than another: alpha decides nothing. Are the vectors right?"
            )
            continue
        low, high = scale.useful_alphas
        many = "larger" if scale.ratio > 1 else "smaller"
        times = scale.ratio if scale.ratio > 1 else 1 / scale.ratio
        said.append(
            f"{name}: distance_scale = {scale.scale:g} is {times:,.0f} times {many} than what fits these distances: "
            f"only alphas from {shown_alpha(low)} to {shown_alpha(high)} give neighbourhoods between half of the pool "
            "and two."
        )
        chosen = settings.resolved_task(name).alpha
        if chosen != "auto":
            same = equivalent_alpha(float(chosen), scale.scale, scale.proposed)
            said.append(
                f"{name}: what alpha = {chosen:g} gives now, alpha = {same:.3g} gives with {scale.proposed:g}."
            )
    if any(settings.resolved_task(task.sweep.task).alpha == "auto" for task in off):
        said.append(
            'With alpha = "auto" the selection is the same whatever it is: it decides what a number for alpha means.'
        )
    return said


def advices(radius: RadiusFindings, tasks: Sequence[TaskFindings], *, one_scale: bool) -> list[Advice]:
    """What to write into tsds.toml; nothing where all that is in use fits.

    ``one_scale``: ``tasks`` are all there are, and the distance scale of each is that of [selection].
    """
    found = []
    proposal = radius.proposal
    if proposal is not None and proposal.radius not in (None, radius.in_use) and not _keep(radius):
        row, used = _row(radius, proposal.radius), _row(radius, radius.in_use)
        # A larger one that catches no more only merges more.
        if proposal.radius < radius.in_use or row.figures.caught > used.figures.caught:
            why = f"catches {row.figures.caught:.0%}, merges {row.figures.merged:.1%}; was {radius.in_use:g}"
            found.append(Advice(radius.table, "kernel_radius", proposal.radius, why))
    off = [task for task in tasks if not task.scale.fits and task.scale.proposed is not None]
    if one_scale and off and len(off) == len(tasks) and _alike(off):
        middle = float(np.median([task.scale.fitting for task in off]))
        found.append(_scale_advice("selection", rounded_digits(middle, up=False), off[0]))
    else:
        found += [_scale_advice(f"tasks.{task.sweep.task}", task.scale.proposed, task) for task in off]
    if not off:
        # Another scale changes what every number for alpha means: first that, then alpha.
        found += [one for task in tasks if (one := _alpha_advice(task.sweep)) is not None]
    return found


def _alike(tasks: Sequence[TaskFindings]) -> bool:
    fitting = [task.scale.fitting for task in tasks]
    same = len({(task.scale.scale, task.algorithm) for task in tasks}) == 1
    return same and max(fitting) <= TOLERANCE * min(fitting)


def _scale_advice(table: str, value: float, task: TaskFindings) -> Advice:
    why = f"alpha = 0.5 then spreads a query over about {task.scale.reference:.0f}; was {task.scale.scale:g}"
    return Advice(table, "distance_scale", value, why)


def _alpha_advice(sweep: Sweep) -> Advice | None:
    best, used = sweep.best, sweep.used
    if best is None or used is None or not sweep.telling or used in sweep.as_good:
        return None
    if best.effective_size < sweep.size * (1 - 1e-6):
        return None  # what alpha = "auto" is there to avoid
    nearer = f"{1 - best.energy.mean() / used.energy.mean():.0%} nearer" if used.measured else "nearer"
    was = '"auto", ' if sweep.is_automatic else ""
    return Advice(
        f"tasks.{sweep.task}",
        "alpha",
        best.alpha,
        f"{nearer} to held-back queries; was {was}{shown_alpha(used.alpha)}",
    )


def shown_alpha(alpha: float) -> str:
    """``alpha`` with as many digits as matter: near 1 it is the distance from 1 that does."""
    return f"{alpha:.3g}" if alpha <= 0.999 or alpha == 1 else f"{alpha:.6g}"


def mark(row: AlphaRow, sweep: Sweep) -> str:
    """What is to be said beside a row."""
    words = []
    if row.in_use:
        words.append("in use (auto)" if sweep.is_automatic else "in use")
    elif row.alpha == sweep.automatic:
        words.append("auto")
    if sweep.telling and row in sweep.as_good:
        words.append("best" if row is sweep.best else "as good")
    if row.certain is None:
        words.append("too few")
    return ", ".join(words)
