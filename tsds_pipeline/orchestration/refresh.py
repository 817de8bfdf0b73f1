"""Bring a project up to date in this process: observe, walk the graph, run what is missing or stale.

Every node runs as a Dagster run of its own partition, upstream first, so that a change that comes out without
effect stops where it does; runs, events and metadata are in the UI like any other's.
"""

import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import SensorInstigatorData, TickStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.defs_state.base import set_defs_state_storage
from dagster._core.storage.tags import BACKFILL_ID_TAG

from tsds_pipeline.damage import find_damage, set_aside
from tsds_pipeline.errors import TsdsError, told_of_disk
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
from tsds_pipeline.orchestration.launcher import may_be_alive
from tsds_pipeline.orchestration.partitions import asset_key, node_partition
from tsds_pipeline.orchestration.resources import REFRESH, observed_once
from tsds_pipeline.orchestration.sqlite_engines import kept_engines
from tsds_pipeline.orchestration.sqlite_files import make_files
from tsds_pipeline.orchestration.wave import Wave, wave
from tsds_pipeline.project import Project
from tsds_pipeline.status import (
    FAILED,
    FRESH,
    MISSING,
    NodeStatus,
    due_models,
    node_status,
    status,
    wanted_nodes,
)
from tsds_pipeline.storage import read_attempt, record_failure

_UNDER_WAY = [status for status in NOT_FINISHED_STATUSES if status != dg.DagsterRunStatus.QUEUED]
_LONGEST_TICK = 300.0
"""Seconds."""
_SKEW = 60.0
"""Seconds: what is further in the future was written before the clock was set back."""
MADE, WAITING = "made", "waiting"
_NOT_CAPTURED = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}


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
            runner = _Runner(instance, self.observed)
            # A run for each costs a quarter of a second; of a few, each is found by its partition in the UI.
            few = self.observed.project.settings.dagster.one_run_above
            if run is not None or self._number_due() > few:
                ending.enter_context(runner.wave(run))
            versions = current_versions(self.nodes, self.observed)
            for node in self.nodes:
                step = self._step(node, versions, runner)
                after = node_status(node, self.observed, versions)
                if after.artifact is not None:
                    versions[node] = after.artifact.version
                stands_in = after.artifact is not None and after.artifact.header.problem is not None
                if step.outcome == WAITING or (step.outcome == FAILED and not stands_in):
                    self._stuck.add(node)
                push_now_and_then(self.observed.project)
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
                statuses = NOT_FINISHED_STATUSES if asked else _UNDER_WAY
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

    def _number_due(self) -> int:
        """How many of the nodes are due or may be after what is made before them."""
        wanted = set(self.nodes)
        own = [found for found in status(self.observed) if found.node in wanted]
        return len(own) if self._from_scratch else sum(found.state != FRESH for found in own)

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
    """Runs nodes of one partition in this process. Tags tell the runs of one refresh, source or task in the UI."""

    def __init__(self, instance: dg.DagsterInstance, observed: Observed):
        from tsds_pipeline.definitions import definitions

        self._instance, self._observed = instance, observed
        self._refresh = uuid.uuid4().hex[:12]
        self._defs = definitions(str(observed.project.root))
        self._job = self._defs.resolve_implicit_global_asset_job_def()
        self._wave: Wave | None = None

    @contextmanager
    def wave(self, run: dg.DagsterRun | None) -> Iterator[None]:
        """Inside, everything is made in one ``run``, by default a new one; the SQL models have one of their own."""
        job, assets = self._defs.resolve_job_def("refresh"), self._defs.resolve_asset_graph()
        tags = {REFRESH: self._refresh}
        with wave(self._instance, run or job, assets, self._observed, tags) as self._wave:
            yield
        self._wave = None

    def run(self, run: list[str]) -> str | None:
        """Make the nodes of ``run``, which share a partition; what went wrong, or None."""
        if self._wave is not None and not is_model(run[0]):
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
        info = errors[0] if errors else None
        while info is not None and info.cause is not None:
            info = info.cause
        text = info.message.strip() if info else "the run failed"
        if info and info.cls_name == TsdsError.__name__:
            error = TsdsError(text.partition(": ")[2])  # the class comes first
        else:
            error = TsdsError(f"{text} (run {result.run_id})")
        record_failure(node_path(self._observed.project.storage, node), error)
        return str(error)


def end_dead_runs(instance: dg.DagsterInstance, *, all_of_them: bool = False) -> None:
    """End the runs of refreshes that were killed: they would stay under way for ever, and keep their pool's slot.

    The caller knows that no other refresh is under way (``lock``). With ``all_of_them`` also those of a daemon that the
    caller knows to be dead, unless they live on in a code server; what is still queued waits for the next daemon.
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY)):
        if REFRESH in run.tags or (all_of_them and not may_be_alive(instance, run)):
            last = instance.get_run_by_id(run.run_id)
            if last is not None and not last.is_finished:
                instance.report_run_failed(run, "its process was killed")
                instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def daemon_is_alive(instance: dg.DagsterInstance) -> bool:
    """Whether a daemon told of itself within the last two minutes; it does so twice a minute.

    One that told of itself in the future did so before the clock was set back.
    """
    beats = instance.get_daemon_heartbeats().values()
    return any(abs(time.time() - beat.timestamp) < 120 for beat in beats)


def tick_again(instance: dg.DagsterInstance) -> None:
    """Let sensors tick whose last tick is in the future, since the clock was set back: they would wait until then."""
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data, now = state.instigator_data, time.time()
        if isinstance(data, SensorInstigatorData) and (data.last_tick_start_timestamp or 0) > now + _SKEW:
            instance.update_instigator_state(state.with_data(data._replace(last_tick_start_timestamp=now)))


def is_asking(instance: dg.DagsterInstance) -> bool:
    """Whether a sensor or schedule is in the midst of a tick, which may still ask for runs.

    One that a killed daemon left open counts for a few minutes at most.
    """
    now = time.time()
    for state in instance.all_instigator_state():
        open_ticks = instance.get_ticks(
            state.instigator_origin_id,
            state.selector_id,
            after=now - _LONGEST_TICK,
            before=now + _SKEW,
            limit=1,
            statuses=[TickStatus.STARTED],
        )
        if open_ticks:
            return True
    return False


def nodes_of_run(run: dg.DagsterRun) -> Iterator[str]:
    """The nodes that ``run`` makes."""
    partition = run.tags.get("dagster/partition")
    for asset in run.asset_selection or ():
        yield "|".join(filter(None, (asset.to_user_string(), partition)))


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


@contextmanager
def project_instance(project: Project) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of ``project``: the one that the environment names, else that in the project folder.

    Raises :class:`TsdsError` for one of the environment that cannot be opened, and when the disk that it is on refuses.
    """
    given = project.given_dagster_home()
    home = given or project.prepare_dagster_home()
    # Whatever enters the instance once more makes Dagster keep it at hand after its end; the second ends that too.
    with told_of_disk(home), _dagster_home(home), set_defs_state_storage(None), ExitStack() as held:
        if given is None:
            make_files(home, _opened_once)
        instance = held.enter_context(_opened(home) if given is None else _given(home))
        if given is None:
            # Dagster opens a connection a statement; while another is open, closing one does not checkpoint.
            for database in home.rglob("*.db"):
                held.enter_context(closing(sqlite3.connect(database))).execute("PRAGMA schema_version")
            held.enter_context(kept_engines(instance))
        yield instance


def _opened(home: Path) -> dg.DagsterInstance:
    # Output stays on the terminal, where progress shows, instead of being captured run by run.
    ref = InstanceRef.from_dir(str(home), overrides={"compute_logs": _NOT_CAPTURED})
    return dg.DagsterInstance.from_ref(ref)


def _opened_once(home: Path) -> None:
    with _dagster_home(home):
        _opened(home).dispose()


def _given(home: Path) -> dg.DagsterInstance:
    """The instance that DAGSTER_HOME names: variables of its dagster.yaml, packages and its database may be missing."""
    try:
        instance = _opened(home)
        instance.get_daemon_heartbeats()
    except Exception as error:
        cause = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
        raise TsdsError(
            f"DAGSTER_HOME={home}: that instance cannot be opened: {cause}: mend it, or unset DAGSTER_HOME for the "
            "one in the project folder"
        ) from error
    return instance


@contextmanager
def _dagster_home(home: Path) -> Iterator[None]:
    """Inside, DAGSTER_HOME is ``home``, which dagster.yaml may refer to; what it was is the caller's choice."""
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        yield
    finally:
        del os.environ["DAGSTER_HOME"]
        if before is not None:
            os.environ["DAGSTER_HOME"] = before
