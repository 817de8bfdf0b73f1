"""Bring a project up to date in this process: observe, walk the graph, run what is missing or stale.

Partitions are made one after the other, upstream first, so that a change that comes out without effect stops where it
does: each in a Dagster run of its own, or where there are many all in one (``wave``). Runs, events and metadata are in
the UI like any other's.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import BACKFILL_ID_TAG

from tsds_pipeline.damage import find_damage, set_aside
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import (
    CHAINS,
    WARMUP,
    Observed,
    current_versions,
    describe,
    is_model,
    keys_of,
    node_path,
    observe,
    required,
    stored,
    upstream,
)
from tsds_pipeline.lock import is_developing
from tsds_pipeline.logs import is_json
from tsds_pipeline.node_names import asset_of, node_name, split_name
from tsds_pipeline.object_storage import push_now_and_then
from tsds_pipeline.orchestration.inputs import register
from tsds_pipeline.orchestration.instances import (
    UNDER_WAY,
    daemon_is_alive,
    end_dead_runs,
    is_asking,
    nodes_of_run,
    project_instance,
    said_by,
    tick_again,
)
from tsds_pipeline.orchestration.partitions import asset_key, node_partition
from tsds_pipeline.orchestration.resources import REFRESH, observed_once
from tsds_pipeline.orchestration.wave import Wave, are_many, wave
from tsds_pipeline.project import Project
from tsds_pipeline.status import (
    FAILED,
    FRESH,
    MISSING,
    NodeStatus,
    due_models,
    is_left_behind,
    node_status,
    status,
    wanted_nodes,
)
from tsds_pipeline.storage import read_attempt, record_failure

MADE, WAITING = "made", "waiting"


@dataclass(frozen=True)
class Step:
    """What a refresh did about one node."""

    node: str
    outcome: str
    """"fresh" (nothing to do), MADE, FAILED, or WAITING for one that failed; its last result stays."""
    reasons: tuple[str, ...] = ()
    """Why it was made, or what went wrong."""
    seconds: float = 0.0


class Refresh:
    """One refresh of ``project``: of everything, of what ``task`` or ``source`` needs, or of some ``nodes``.

    ``nodes`` stand in order, upstream first; with ``from_scratch`` they are made whether or not they are due.
    """

    def __init__(
        self,
        project: Project,
        *,
        task: str | None = None,
        source: str | None = None,
        nodes: Sequence[str] | None = None,
        from_scratch: bool = False,
    ):
        self.observed: Observed = observe(project)
        self.nodes = wanted_nodes(self.observed, task, source) if nodes is None else list(nodes)
        self.damage: dict[str, str] = {}
        """What was wrong with stored results that ``steps`` set aside, by node."""
        self._from_scratch = from_scratch
        self._made_along: dict[str, Step] = {}
        self._stuck: set[str] = set()
        self._left_behind: set[str] = set()

    def steps(
        self, instance: dg.DagsterInstance | None = None, run: dg.DagsterRun | None = None
    ) -> Iterator[Step]:
        """Do it, one step a node, upstream first; a failure stops only what cannot do without it.

        The caller holds ``lock.refresh_lock``.
        The runs go to ``instance``, by default the project's own; who is in a ``run`` of it has everything in that.
        """
        with ExitStack() as ending:
            if instance is None:
                instance = ending.enter_context(project_instance(self.observed.project))
            register(instance, self.observed)
            storage = self.observed.project.storage
            self.damage = find_damage(storage, self.nodes)
            set_aside(storage, self.damage)
            runner = _Runner(instance, self.observed, ending, run, self._are_many)
            versions = current_versions(self.nodes, self.observed)
            for node in self.nodes:
                step = self._step(node, versions, runner)
                artifact = stored(storage, node)
                if artifact is not None:
                    versions[node] = artifact.version
                stands_in = artifact is not None and artifact.header.problem is not None
                failed = step.outcome == WAITING or (step.outcome == FAILED and not stands_in)
                if is_left_behind(node, artifact, failed, self._left_behind, self.observed, versions):
                    self._left_behind.add(node)
                if failed or node in self._left_behind:
                    self._stuck.add(node)
                push_now_and_then(self.observed.project)
                if node == self.nodes[-1]:
                    # Before it is told of: who takes a step for each node asks for no more, and it was not stopped.
                    ending.close()
                yield step

    def wait_for_runs(self, say: Callable[[str], object], instance: dg.DagsterInstance | None = None) -> None:
        """Let the runs end that are making what is wanted here; what nobody makes any more is ended.

        The caller holds ``lock.refresh_lock``, so the automation starts no others. One who names the ``instance`` is
        in a run of its daemon.
        """
        project = self.observed.project
        with nullcontext(instance) if instance else project_instance(project) as found:
            tick_again(found)
            told = False
            if instance is not None:
                self._take_over(found, "a refresh that is under way does it")
            while True:
                dead = instance is None and not (is_developing(project) or daemon_is_alive(found))
                end_dead_runs(found, all_of_them=dead)
                # One in a run does not wait for what is queued, which may be waiting for it to make room; nobody
                # starts that where the daemon is dead. A tick that began before the lock was taken may still ask.
                asked = instance is None and not dead
                statuses = NOT_FINISHED_STATUSES if asked else UNDER_WAY
                if not (asked and is_asking(found)) and not self._is_busy(found, statuses):
                    break
                if not told:
                    say("waiting for runs of the automation that are under way ...")
                told = True
                time.sleep(0.5)
            if dead:
                self._take_over(found, "a refresh did it, as there was no daemon")

    def _take_over(self, instance: dg.DagsterInstance, why: str) -> None:
        """Cancel what the automation has queued and is made here: it would be made a second time."""
        for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])):
            nodes = list(nodes_of_run(run))
            # What a person asked for in the UI is made however often that is.
            if nodes and set(nodes) <= set(self.nodes) and BACKFILL_ID_TAG not in run.tags:
                instance.report_run_canceled(run, why)

    def _is_busy(self, instance: dg.DagsterInstance, statuses: Sequence[dg.DagsterRunStatus]) -> bool:
        runs = instance.get_runs(dg.RunsFilter(statuses=statuses))
        return any(node in self.nodes for run in runs for node in nodes_of_run(run))

    def _are_many(self) -> bool:
        """Whether what is due, or may be after what is made before it, is made in one run."""
        wanted = set(self.nodes)
        due = [one.node for one in status(self.observed) if one.node in wanted and one.state != FRESH]
        return are_many(wanted if self._from_scratch else due, self.observed.project)

    def _step(self, node: str, versions: dict[str, str], runner: "_Runner") -> Step:
        if node in self._made_along:
            return self._made_along.pop(node)
        needed = required(node, self.observed)
        lacking = [name for name in needed if name not in versions]
        if lacking:
            return Step(node, WAITING, (f"needs {describe(lacking[0])}",))
        before = node_status(node, self.observed, versions)
        if not (before.due or self._from_scratch):
            return Step(node, before.state, before.reasons)
        stuck = [name for name in needed if name in self._stuck]
        if stuck:
            return Step(node, WAITING, (f"needs {describe(stuck[0])}",))
        run = self._run_of(before, versions)
        why = {n: _reasons(node_status(n, self.observed, versions)) for n in run}
        started = time.perf_counter()
        error = runner.run(run)
        seconds = time.perf_counter() - started
        self._note(run, versions, why)
        if error is None or self._is_made(node):
            return self._judged(node, why[node], versions, seconds)
        return Step(node, FAILED, (error,), seconds)

    def _note(self, run: list[str], versions: Mapping[str, str], why: Mapping[str, tuple[str, ...]]) -> None:
        """Remember what the ``run`` did about the nodes that followed in it; their turn to be told comes later.

        ``versions`` are those before it, and ``why`` it had to be made. What it left alone, because one that it needs
        failed, is judged in its turn.
        """
        now = dict(versions)
        for node in run:
            after = node_status(node, self.observed, now)
            if after.artifact is not None:
                now[node] = after.artifact.version
            if node != run[0] and after.state in (FRESH, FAILED):
                made = after.state == FRESH
                step = Step(node, MADE, why[node]) if made else Step(node, FAILED, after.reasons)
                self._made_along[node] = step

    def _is_made(self, node: str) -> bool:
        """Whether ``node`` itself was made by a run in which something failed."""
        attempt = read_attempt(node_path(self.observed.project.storage, node))
        made = attempt is None or (attempt.ended and attempt.problem is None)
        return made and stored(self.observed.project.storage, node) is not None

    def _judged(self, node: str, why: tuple[str, ...], versions: dict[str, str], seconds: float) -> Step:
        """A run that succeeded may still have stored a stand-in."""
        after = node_status(node, self.observed, versions)
        if after.state == FAILED:
            return Step(node, FAILED, after.reasons, seconds)
        return Step(node, MADE, why, seconds)

    def _run_of(self, before: NodeStatus, versions: Mapping[str, str]) -> list[str]:
        """The node that is due, and what follows in one run: of models all that are due, else what was never made."""
        if before.node in self.observed.models:
            return [
                before.node,
                *(n for n in due_models(self.observed, versions) if n in self._left(before.node)),
            ]
        if before.artifact is not None:
            return [before.node]
        encoder, asset, partition = split_name(before.node)
        chain = next((chain for chain in CHAINS if asset in chain), (asset,))
        after = [node_name(name, partition, encoder) for name in chain[chain.index(asset) + 1 :]]
        after = list(takewhile(self._waits_for_no_warmup, after))
        missing = [n for n in after if n in self.nodes and node_status(n, self.observed, {}).artifact is None]
        return [before.node, *missing]

    def _waits_for_no_warmup(self, node: str) -> bool:
        return not any(asset_of(name) == WARMUP for name in upstream(node, self.observed))

    def _left(self, node: str) -> list[str]:
        """The nodes after ``node``."""
        return self.nodes[self.nodes.index(node) + 1 :]


class _Runner:
    """Runs nodes of one partition in this process. Tags tell the runs of one refresh, source or task in the UI.

    All that it makes, but the SQL models, is in one ``run`` where that is given, and in a new one where there are
    ``many``, which is asked when there is something to make; its end is on ``ending``.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        observed: Observed,
        ending: ExitStack | None = None,
        run: dg.DagsterRun | None = None,
        many: Callable[[], bool] | None = None,
    ):
        self._instance, self._observed = instance, observed
        self._refresh = uuid.uuid4().hex[:12]
        self._ending, self._given, self._many = ending, run, many

    @cached_property
    def _defs(self) -> dg.Definitions:
        from tsds_pipeline.definitions import definitions

        return definitions(str(self._observed.project.root))

    @cached_property
    def _job(self) -> dg.JobDefinition:
        return self._defs.resolve_implicit_global_asset_job_def()

    @cached_property
    def _wave(self) -> Wave | None:
        """What makes the nodes, where they do not have a run each."""
        if self._ending is None or (self._given is None and not self._many()):
            return None
        run = self._given or self._defs.resolve_job_def("refresh")
        assets, tags = self._defs.resolve_asset_graph(), {REFRESH: self._refresh}
        return self._ending.enter_context(wave(self._instance, run, assets, self._observed, tags))

    def run(self, run: list[str]) -> str | None:
        """Make the nodes of ``run``, which share a partition; what went wrong, or None."""
        if not is_model(run[0]) and self._wave is not None:
            return self._run_in_wave(self._wave, run)
        partition = run[0].partition("|")[2]
        # What people hear of a refresh, its steps tell.
        level = "INFO" if is_json() else "CRITICAL"
        with observed_once(self._observed):
            result = self._job.execute_in_process(
                instance=self._instance,
                partition_key=node_partition(partition) if partition else None,
                asset_selection=[asset_key(node) for node in run],
                run_config={"loggers": {"console": {"config": {"log_level": level}}}},
                tags={REFRESH: self._refresh, **_key_tags(run[0])},
                raise_on_error=False,
            )
        if result.success:
            return None
        if _interrupted(result):
            raise KeyboardInterrupt
        return self._failure(run) or self._note_failure(run[0], result)

    def _run_in_wave(self, made: Wave, run: list[str]) -> str | None:
        for node in run:
            try:
                made.make(node)
            except Exception as error:
                if (noted := self._failure([node])) is not None:
                    return noted
                record_failure(node_path(self._observed.project.storage, node), error)
                return str(error)
        return None

    def _failure(self, run: list[str]) -> str | None:
        """What the asset itself noted (see ``assets.stage``)."""
        notes = (node_status(node, self._observed, {}) for node in run)
        return next((note.reasons[0] for note in notes if note.state == FAILED and note.due), None)

    def _note_failure(self, node: str, result: dg.ExecuteInProcessResult) -> str:
        """A failure outside of the asset's body, as Dagster tells it."""
        errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
        text = said_by(errors[0]) if errors else "the run failed"
        error = TsdsError(f"{text} (run {result.run_id})")
        record_failure(node_path(self._observed.project.storage, node), error)
        return str(error)


def _reasons(before: NodeStatus) -> tuple[str, ...]:
    """Why what stood like this is made."""
    # A fresh model is made along with one that it reads.
    fresh = "comes after what is made again" if "|" not in before.node else "from scratch"
    reasons = {MISSING: ("missing",), FAILED: ("failed before",), FRESH: (fresh,)}
    return reasons.get(before.state, before.reasons)


def _key_tags(node: str) -> dict[str, str]:
    """The source and the task that a node belongs to, as far as it does."""
    tags = zip(("tsds/source", "tsds/task"), keys_of(node), strict=True)
    return {tag: key for tag, key in tags if key is not None}


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether Ctrl-C ended the run, which Dagster reports like a failure of the step that it met."""
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return result.dagster_run.status == dg.DagsterRunStatus.CANCELED or any(
        error is not None and error.cls_name == "DagsterExecutionInterruptedError" for error in errors
    )
