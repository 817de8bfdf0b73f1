"""Jobs and schedules: a whole refresh in one run, and a fresh sample for the tasks that want one regularly."""

from collections.abc import Iterator

import dagster as dg

from tsds_pipeline.graph import describe
from tsds_pipeline.lock import refresh_lock
from tsds_pipeline.orchestration.partitions import TASKS
from tsds_pipeline.orchestration.refresh import FAILED, MADE, WAITING, Refresh
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.redraws import add_redraw
from tsds_pipeline.settings import DagsterSettings
from tsds_pipeline.status import drawn_nodes


class Wanted(dg.Config):
    """What to refresh; everything when nothing is named."""

    task: str | None = None
    source: str | None = None


@dg.op(name="refresh_project", description="Makes whatever is missing or stale, as `tsds refresh` does.")
def refresh_op(context: dg.OpExecutionContext, config: Wanted, project: ProjectResource) -> None:
    with refresh_lock(project.load(), wait=True):
        # What it was before somebody else's refresh ended may be no more.
        _follow(context, Refresh(project.load(), task=config.task, source=config.source))


@dg.op(name="redraw_sample", description="Draws a fresh sample for the task of the run's partition.")
def redraw_op(context: dg.OpExecutionContext, project: ProjectResource) -> None:
    # Many tasks may be redrawn at one time: they stand in line.
    with refresh_lock(project.load(), wait=True):
        observed = project.observe()
        observed.require("task", context.partition_key)
        add_redraw(observed.project, context.partition_key)
        wanted = drawn_nodes(observed, context.partition_key)
        _follow(context, Refresh(observed.project, nodes=wanted))


def _follow(context: dg.OpExecutionContext, work: Refresh) -> None:
    """Do ``work`` in the run's own instance; dg.Failure when something failed."""
    failures = 0
    work.wait_for_runs(context.log.info, context.instance)
    for step in work.steps(context.instance, context.run):
        line = f"{describe(step.node)}: {step.outcome} ({'; '.join(step.reasons)}; {step.seconds:.1f} s)"
        if step.outcome == MADE:
            context.log.info(line)
        elif step.outcome in (FAILED, WAITING):
            failures += 1
            context.log.error(line)
    problems = work.observed.problems
    for problem in problems:
        context.log.error(problem)
    if failures or problems:
        raise dg.Failure(f"{failures} results and {len(problems)} files are not in order; the log names each")


@dg.job(
    name="refresh", description="Brings everything up to date in one run and one process, or what is named."
)
def refresh_job() -> None:
    refresh_op()


@dg.job(
    name="redraw",
    partitions_def=TASKS,
    description="Draws a fresh sample for a task, with the same settings and seed, and exports it.",
)
def redraw_job() -> None:
    redraw_op()


def schedules(settings: DagsterSettings, default: dg.DefaultScheduleStatus) -> list[dg.ScheduleDefinition]:
    """The nightly refresh and the re-draws, at the times that [dagster] names."""
    nightly = dg.ScheduleDefinition(
        name="nightly_refresh",
        job=refresh_job,
        cron_schedule=settings.refresh,
        execution_timezone=settings.timezone,
        default_status=default,
        description="Brings everything up to date ([dagster] refresh).",
    )
    fresh_samples = dg.ScheduleDefinition(
        name="fresh_samples",
        job=redraw_job,
        cron_schedule=settings.redraw,
        execution_timezone=settings.timezone,
        execution_fn=_redraws,
        required_resource_keys={"project"},
        default_status=default,
        description="Draws a fresh sample for each task with redraw = true ([dagster] redraw).",
    )
    return [nightly, fresh_samples]


def _redraws(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    observed = context.resources.project.observe()
    known = set(context.instance.get_dynamic_partitions(TASKS.name))
    settings = observed.project.settings
    wanted = [task for task in observed.tasks if settings.resolved_task(task).redraw and task in known]
    if not wanted:
        yield dg.SkipReason("no task wants it: set redraw = true in [selection] or [tasks.TASK] of tsds.toml")
    for task in wanted:
        yield dg.RunRequest(partition_key=task, run_key=None, tags={"tsds/task": task})
