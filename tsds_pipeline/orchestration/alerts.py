"""Tells, once each, what is wrong with the project and its runs, and when that is over.

As all that happens by itself here, it goes by what is stored, not by events: however often something fails, and
whoever tries it again, it is one problem until it is made. Delivered is at least once: what did not arrive is sent
again with the next look.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from tsds_pipeline.alerts import Problem, deliver, message, problems_of
from tsds_pipeline.assets.checks import UP_TO_DATE
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, describe, observe, stored
from tsds_pipeline.logs import extra
from tsds_pipeline.orchestration.instances import nodes_of_run, said_by
from tsds_pipeline.orchestration.jobs import redraw_job, refresh_job
from tsds_pipeline.orchestration.resources import REFRESH
from tsds_pipeline.settings import AlertSettings
from tsds_pipeline.status import FRESH, MAX_TRIES, NodeStatus, status

SHORTEST_INTERVAL = 60
"""Seconds; a look costs as much as `tsds status`."""
_LATE = dg.AssetCheckKey(dg.AssetKey("sampled_subset"), UP_TO_DATE)
_LAST_RUNS = 200
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


def alert_sensor(
    settings: AlertSettings, interval: int, default: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    """The sensor that tells; where to, tsds.toml says, and ``settings`` while that is not understood."""

    def look(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        told = {key: Problem(*one) for key, one in json.loads(context.cursor or "{}").items()}
        where = settings
        try:
            project = context.resources.project.load()
            where = project.settings.alerts
            present, waiting = present_problems(context.instance, observe(project), told)
        except TsdsError as error:
            # Of everything else nothing is known.
            present, waiting = {"project": Problem(str(error))}, set(told) - {"project"}
        new = {key: one for key, one in present.items() if key not in told}
        over = {key: one for key, one in told.items() if key not in present and key not in waiting}
        if new or over:
            texts = ([one.text for one in group.values()] for group in (new, over))
            try:
                deliver(where, message(context.resources.project.name, *texts))
            except TsdsError as error:
                context.log.error(str(error))
                return dg.SkipReason(str(error))
        for one in new.values():
            context.log.error(one.text, extra=extra(node=one.node))
        for one in over.values():
            context.log.info(f"over: {one.text}", extra=extra(node=one.node))
        known = {key: one for key, one in (told | new).items() if key not in over}
        context.update_cursor(json.dumps({key: [one.text, one.node] for key, one in known.items()}))
        return dg.SkipReason(f"{len(known)} problems; {len(new)} new, {len(over)} over")

    return dg.SensorDefinition(
        name="alerts",
        evaluation_fn=look,
        required_resource_keys={"project"},
        description="Tells of failed results, checks and jobs, and of samples that lag behind: each once, and when it "
        "is over. Where to is in [alerts] of tsds.toml. It starts no run.",
        minimum_interval_seconds=max(interval, SHORTEST_INTERVAL),
        default_status=default,
    )


def present_problems(
    instance: dg.DagsterInstance, observed: Observed, told: Mapping[str, Problem]
) -> tuple[dict[str, Problem], set[str]]:
    """What is wrong now, by a name that stays the same, and what was ``told`` and is still tried: nobody knows yet."""
    found = {one.node: one for one in status(observed)}
    problems = problems_of(observed, list(found.values()))
    problems |= dict(_crashes(instance, found, problems))
    problems |= dict(_late(instance, observed))
    unsettled = {node for node, one in found.items() if one.state != FRESH}
    # What a refresh that failed left undone was made since, or is told by its name.
    jobs = [redraw_job.name, *([refresh_job.name] if unsettled else [])]
    problems |= dict(_failed_jobs(instance, observed, jobs, told))
    return problems, {key for key, one in told.items() if one.node in unsettled}


def _crashes(
    instance: dg.DagsterInstance, found: dict[str, NodeStatus], known: dict[str, Problem]
) -> Iterator[tuple[str, Problem]]:
    """What is due and failed so early, several times on end, that it left no note: a full disk, a broken import."""
    failures: Counter[str] = Counter()
    succeeded: set[str] = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=_ENDED), limit=_LAST_RUNS):
        for node in nodes_of_run(run):
            if run.status == dg.DagsterRunStatus.SUCCESS:
                succeeded.add(node)
            elif node not in succeeded:
                failures[node] += 1
                if failures[node] == MAX_TRIES and node in found and found[node].due and node not in known:
                    text = f"{describe(node)}: its last {MAX_TRIES} runs failed: {_why(instance, run)}"
                    yield node, Problem(text, node)


def _late(instance: dg.DagsterInstance, observed: Observed) -> Iterator[tuple[str, Problem]]:
    """The samples of which the check UP_TO_DATE said last that they lag behind."""
    hours = observed.project.settings.dagster.late_after
    for info in instance.event_log_storage.get_asset_check_partition_info([_LATE]):
        task = info.partition_key
        if info.latest_execution_status == AssetCheckExecutionRecordStatus.FAILED and task in observed.tasks:
            text = f"task {task}: for more than {hours:g} hours its sample is not what its inputs would give"
            yield f"late {task}", Problem(text)


def _failed_jobs(
    instance: dg.DagsterInstance, observed: Observed, jobs: Iterable[str], told: Mapping[str, Problem]
) -> Iterator[tuple[str, Problem]]:
    """Those of ``jobs``, of each task where they are by task, whose last run failed."""
    for job in jobs:
        seen = set()
        for record in instance.get_run_records(
            dg.RunsFilter(job_name=job, statuses=_ENDED), limit=_LAST_RUNS
        ):
            run = record.dagster_run
            task = run.tags.get("dagster/partition")
            if REFRESH in run.tags:
                continue  # of a `tsds refresh`, which told of it itself; what failed in it is told by its name
            if task in seen or (task is not None and task not in observed.tasks):
                continue
            seen.add(task)
            sample = stored(observed.project.storage, f"sampled_subset|{task}") if task else None
            if sample and record.end_time and sample.path.stat().st_mtime > record.end_time:
                continue  # what the run left undone was drawn since
            if run.status == dg.DagsterRunStatus.FAILURE:
                key = f"job {job} {task or ''}".rstrip()
                whose = f" of task {task}" if task else ""
                text = f"the job {job}{whose} failed: "
                yield key, told[key] if key in told else Problem(text + _why(instance, run))


def _why(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """What the first step that failed said, or Dagster about the run."""
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for entry in instance.all_logs(run.run_id, of_type=kinds):
        event = entry.dagster_event
        error = getattr(event.event_specific_data, "error", None)
        if error is not None:
            return f"{said_by(error)} (run {run.run_id})"
        if event.event_type == dg.DagsterEventType.RUN_FAILURE and entry.message:
            return f"{entry.message} (run {run.run_id})"
    return f"see run {run.run_id}"
