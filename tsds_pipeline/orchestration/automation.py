"""What happens by itself: looking at the project folder, and asking for what its changes make due.

The condition is on the level of what is stored, not of events: a partition is asked for when what it was made
from is not what is there now (``status.next_nodes``). So a missed tick, a restarted daemon or a `tsds refresh`
beside it neither loses nor repeats anything, and a diamond in the graph is no trap.
"""

import json
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from time import time as now
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from tsds_pipeline.assets.checks import UP_TO_DATE
from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, describe, node_path, observe
from tsds_pipeline.lock import is_refreshing
from tsds_pipeline.object_storage import exchange, is_held_elsewhere
from tsds_pipeline.orchestration.inputs import changed_inputs, partition_requests
from tsds_pipeline.orchestration.instances import end_dead_runs, nodes_of_run
from tsds_pipeline.orchestration.jobs import refresh_job
from tsds_pipeline.orchestration.partitions import TASKS, asset_key
from tsds_pipeline.orchestration.wave import are_many
from tsds_pipeline.project import Project
from tsds_pipeline.settings import DagsterSettings
from tsds_pipeline.status import FRESH, MAX_TRIES, NodeStatus, behind, next_nodes, status

_NAMED = 5
_PAUSE = 3600
"""Seconds between two runs, once MAX_TRIES on end failed before they made anything."""
_ASKED_FOR = "tsds/asked_for"


def condition(root: str | None, encoders: int = 1) -> dg.AutomationCondition:
    """The automation condition of every asset of the pipeline on the project folder ``root``.

    Of several ``encoders`` a task depends on one, which only ``Due`` knows.
    """
    automation = dg.AutomationCondition
    # Not "all passed": a check that was never evaluated, as where Dagster's history was deleted, holds up nothing.
    failed = automation.any_checks_match(automation.check_failed(), blocking_only=True)
    upstream = automation.any_deps_match(failed)
    if encoders > 1:
        upstream = upstream.ignore(dg.AssetSelection.groups("candidates"))
    return Due(root) & ~automation.in_progress() & ~upstream


def model_condition(root: str | None) -> dg.AutomationCondition:
    """That of the SQL models: what fails upstream holds up none, as they read what is stored."""
    return Due(root) & ~dg.AutomationCondition.in_progress()


class Due(dg.AutomationCondition[dg.AssetKey]):
    """True for the partitions that are due while everything upstream of them is settled."""

    def __init__(self, root: str | None):
        self.root = root

    @property
    def description(self) -> str:
        return "Its inputs, settings or code are not those it was made from, and all upstream is settled"

    def get_label(self) -> str:
        return "due"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """See the class."""
        view = context.asset_graph_view
        nodes = [node.partition("|") for node in _asked(self.root, view.instance, context.evaluation_time)]
        keys = {key for asset, _, key in nodes if asset == context.key.to_user_string()}
        if context.partitions_def is None:
            subset = context.candidate_subset if keys else context.get_empty_subset()
        else:
            # A source or task that was found a moment ago is no partition before `project_inputs` told of it.
            keys &= context.candidate_subset.expensively_compute_partition_keys()
            subset = view.get_subset_from_partition_keys(context.key, context.partitions_def, keys)
        return dg.AutomationResult(context, subset)


@lru_cache(maxsize=1)
def _asked(root: str | None, instance: dg.DagsterInstance, moment: datetime) -> frozenset[str]:
    """One look for all assets of the tick of ``moment``."""
    try:
        project = Project.load(root)
        if _is_taken(project):
            return frozenset()
        # In this order: a run that ends in between is passed over this time, and never seen as neither.
        runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
        due = _due(observe(project), runs)
        return frozenset() if are_many(due, project) else due
    except TsdsError:
        return frozenset()  # `project_inputs` tells what is wrong


def _is_taken(project: Project) -> bool:
    """Whether a refresh is under way, here or on another machine. TsdsError where its store does not answer."""
    return is_refreshing(project) or is_held_elsewhere(project)


def _due(observed: Observed, runs: Iterable[dg.DagsterRun]) -> frozenset[str]:
    """What is due, where ``runs`` are under way or asked for."""
    busy = {node for run in runs for node in nodes_of_run(run)}
    return frozenset(next_nodes(observed, busy))


def sensors(settings: DagsterSettings, default: dg.DefaultSensorStatus) -> list[dg.SensorDefinition]:
    """What looks at the project folder, and what asks for runs: of a partition each, or one of many."""
    look = dg.SensorDefinition(
        name="project_inputs",
        evaluation_fn=_look,
        required_resource_keys={"project"},
        description="Looks at the project folder: adds and removes the partitions of sources and tasks, reports "
        "changed files and settings, and tells which samples lag behind for too long. It starts no run.",
        minimum_interval_seconds=settings.interval,
        default_status=default,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        ask = dg.AutomationConditionSensorDefinition(
            "automation",
            target=dg.AssetSelection.all(),
            description="Asks for the partitions whose inputs, settings or code changed, and for no others.",
            minimum_interval_seconds=settings.interval,
            default_status=default,
            # A run for each partition starts at once; a backfill waits for a daemon of its own.
            emit_backfills=False,
            use_user_code_server=True,
        )
    ask_for_many = dg.SensorDefinition(
        name="automation_of_many",
        evaluation_fn=_ask_for_many,
        job=refresh_job,
        required_resource_keys={"project"},
        description="Where more partitions are due than [dagster] one_run_above, which `automation` leaves alone, "
        "asks for one run of the job `refresh`: it makes them in one process.",
        minimum_interval_seconds=settings.interval,
        default_status=default,
    )
    return [look, ask, ask_for_many]


def _ask_for_many(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    try:
        project = context.resources.project.load()
        if _is_taken(project):
            return dg.SkipReason("a refresh is under way")
        runs = context.instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
        if any(run.job_name == refresh_job.name for run in runs):
            return dg.SkipReason("a refresh is asked for")
        observed = observe(project)
    except TsdsError as error:
        return dg.SkipReason(str(error))
    due = _due(observed, runs)
    # Of an encoder or SQL model that was added after this code was loaded, only a run that loads it anew knows.
    known = context.repository_def.asset_graph
    if not are_many(due, project) and all(known.has(asset_key(node)) for node in due):
        return dg.SkipReason(f"{len(due)} partitions are due, which have runs of their own")
    wanted = content_hash(sorted(due), sorted(observed.versions.items()))
    if (failed := _failed_in_vain(context.instance, wanted)) is not None:
        return dg.SkipReason(
            f"the last {MAX_TRIES} runs failed before they made anything, see run {failed}: the next is asked for "
            "when something changes, or an hour after it"
        )
    return dg.RunRequest(tags={"tsds/due": str(len(due)), _ASKED_FOR: wanted})


def _failed_in_vain(instance: dg.DagsterInstance, wanted: str) -> str | None:
    """The last of so many runs for what is ``wanted`` that failed that it is not asked for for a while."""
    last = instance.get_run_records(dg.RunsFilter(job_name=refresh_job.name), limit=MAX_TRIES)
    failed = [
        one
        for one in last
        if one.dagster_run.status == dg.DagsterRunStatus.FAILURE
        and one.dagster_run.tags.get(_ASKED_FOR) == wanted
    ]
    if len(failed) < MAX_TRIES or now() - last[0].create_timestamp.timestamp() > _PAUSE:
        return None
    return last[0].dagster_run.run_id


def _look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    before = {"lagging": {}, "problems": [], **json.loads(context.cursor or "{}")}
    try:
        project = context.resources.project.load()
        # A refresh tells Dagster of partitions and inputs by itself, and must not lose a partition in its midst.
        if _is_taken(project):
            return dg.SensorResult(skip_reason="a refresh is under way", cursor=context.cursor)
        end_dead_runs(context.instance)
        exchange(project)
        observed = observe(project)
    except TsdsError as error:
        _warn(context, before["problems"], [str(error)])
        after = {**before, "problems": [str(error)]}
        return dg.SensorResult(skip_reason=str(error), cursor=json.dumps(after))
    events = changed_inputs(context.instance, observed)
    lagging, verdicts = _lateness(observed, before["lagging"], now())
    for verdict in verdicts:
        _report(context.instance, verdict)
    problems = [*observed.scan.all_problems(), *observed.sql.problems]
    _warn(context, before["problems"], problems)
    found = f"{len(observed.sources)} sources, {len(observed.tasks)} tasks"
    told = f"{len(events)} changed inputs were reported"
    return dg.SensorResult(
        dynamic_partitions_requests=partition_requests(context.instance, observed),
        asset_events=events,
        cursor=json.dumps({"lagging": lagging, "problems": problems}),
        skip_reason="; ".join([found, told, *problems]),
    )


def _warn(context: dg.SensorEvaluationContext, before: Sequence[str], problems: Sequence[str]) -> None:
    """Each problem once, not with every look."""
    for problem in problems:
        if problem not in before:
            context.log.warning(problem)


def _report(instance: dg.DagsterInstance, verdict: dg.AssetCheckEvaluation) -> None:
    """Report ``verdict`` as of a run of its own: Dagster keeps one evaluation a run, check and partition."""
    run_id = str(uuid.uuid4())
    planned = AssetCheckEvaluationPlanned(
        asset_key=verdict.asset_key,
        check_name=verdict.check_name,
        partitions_subset=TASKS.subset_with_partition_keys([verdict.partition]),
    )
    for kind, data in (
        (dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, planned),
        (dg.DagsterEventType.ASSET_CHECK_EVALUATION, verdict),
    ):
        event = dg.DagsterEvent(kind.value, job_name="", event_specific_data=data)
        instance.report_dagster_event(event, run_id)


def _lateness(
    observed: Observed, before: Mapping[str, Any], moment: float
) -> tuple[dict[str, Any], list[dg.AssetCheckEvaluation]]:
    """Since when each task lags behind, and what is to be told about it now.

    ``before`` is what the last look returned: by task, "since" (seconds since the epoch) and the time of the sample
    of which it was "told".
    """
    limit = 3600 * observed.project.settings.dagster.late_after
    found = {node.node: node for node in status(observed)}
    lagging, verdicts = {}, []
    for task in observed.tasks:
        needed = behind([f"sampled_subset|{task}"], observed)
        late_nodes = [node for name, node in found.items() if name in needed and node.state != FRESH]
        last = before.get(task)
        if late_nodes:
            since = min(last["since"], moment) if last else moment  # the clock may have been set back
            # A sample that is made again passes the check by itself: it is told again then.
            sample = _time_of(observed, f"sampled_subset|{task}")
            late = moment - since >= limit
            lagging[task] = {"since": since, "told": sample if late else None}
            if late and (last is None or last["told"] != sample):
                verdicts.append(_verdict(task, late_nodes, (moment - since) / 3600))
        elif last and last["told"] is not None:
            verdicts.append(_verdict(task, [], 0.0))
    return lagging, verdicts


def _time_of(observed: Observed, node: str) -> int:
    """When the artifact of ``node`` was written (nanoseconds); 0 where there is none."""
    path = node_path(observed.project.storage, node)
    return path.stat().st_mtime_ns if path.exists() else 0


def _verdict(task: str, behind: list[NodeStatus], hours: float) -> dg.AssetCheckEvaluation:
    """The evaluation of UP_TO_DATE for ``task``, whose nodes ``behind`` are not fresh for so many hours."""
    reasons = [f"{describe(n.node)}: {n.state} ({'; '.join(n.reasons)})" for n in behind]
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("sampled_subset"),
        check_name=UP_TO_DATE,
        partition=task,
        passed=not behind,
        description="; ".join(reasons[:_NAMED]) or None,
        metadata={"hours": hours, "not_fresh": len(reasons)},
    )
