"""A whole calibration: the kernel radius of the pool, alpha and the distance scale of some of its tasks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tsds_pipeline.calibration.advice import Advice, TaskFindings, advices
from tsds_pipeline.calibration.alpha import FOLDS, sweep_alpha
from tsds_pipeline.calibration.radius import RadiusFindings, find_radius
from tsds_pipeline.calibration.scale import find_scale
from tsds_pipeline.calibration.texts import PoolTexts
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, stored
from tsds_pipeline.progress import progress_bar
from tsds_pipeline.settings import ResolvedTask
from tsds_pipeline.stages.leaks import without_leaks
from tsds_pipeline.stages.pool import read_pool

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that a calibration found."""

    radius: RadiusFindings
    tasks: tuple[TaskFindings, ...]
    one_scale: bool
    """Whether these are all tasks, and none of them has a distance scale of its own."""

    @property
    def advices(self) -> list[Advice]:
        return advices(self.radius, self.tasks, one_scale=self.one_scale)


def calibrate(
    observed: Observed, tasks: Sequence[str], *, pairs: Path | None, edits: int, seed: int
) -> Findings:
    """Calibrate the project for ``tasks``. TsdsError where it is not refreshed."""
    project = observed.project
    for task in tasks:  # before anything is encoded
        if stored(project.storage, f"query_embeddings|{task}") is None:
            raise TsdsError(f"task {task} has no vectors yet: run `tsds refresh` first")
    pool = PoolTexts(observed)
    with progress_bar("encoding pairs of near-duplicates", logger.info) as progress:
        radius = find_radius(project, pool, pairs, edits, seed, progress)
    found, steps = [], 0
    with progress_bar("trying alphas, part by part", logger.info) as progress:

        def done() -> None:
            nonlocal steps
            steps += 1
            progress(min(steps, len(tasks) * (FOLDS + 1)), len(tasks) * (FOLDS + 1))

        for task in tasks:
            found.append(_of_task(observed, task, seed, done))
    return Findings(radius, tuple(found), set(tasks) == set(observed.tasks) and not _own_scales(observed))


def _own_scales(observed: Observed) -> bool:
    tables = observed.project.settings.tasks
    return any("distance_scale" in tables[task].model_fields_set for task in observed.tasks if task in tables)


def _settings(observed: Observed, task: str) -> ResolvedTask:
    """Those of ``task``, with the size of its sample in place of a budget of tokens."""
    settings = observed.project.settings.resolved_task(task)
    if settings.tokens is None:
        return settings
    sample = stored(observed.project.storage, f"sampled_subset|{task}")
    if sample is None:
        raise TsdsError(f"task {task}: what its tokens buy is known with its sample: run `tsds refresh`")
    return replace(settings, tokens=None, size=sample.header.notes["size"])


def _of_task(observed: Observed, task: str, seed: int, done) -> TaskFindings:
    settings, pool = _settings(observed, task), without_leaks(observed, task, read_pool(observed, task))
    queries = stored(observed.project.storage, f"query_embeddings|{task}")
    sweep = sweep_alpha(task, settings, pool, queries.frame["content_id"].to_list(), seed, done)
    return TaskFindings(sweep, find_scale(settings, pool), settings.algorithm)
