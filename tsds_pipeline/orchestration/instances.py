"""The Dagster instance of a project: opening it, and the runs, the daemon and the ticks that are found there."""

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import SensorInstigatorData, TickStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.defs_state.base import set_defs_state_storage
from dagster._utils.error import SerializableErrorInfo

from tsds_pipeline.errors import TsdsError, told_of_disk
from tsds_pipeline.orchestration.launcher import may_be_alive
from tsds_pipeline.orchestration.resources import REFRESH
from tsds_pipeline.orchestration.sqlite_engines import kept_engines
from tsds_pipeline.orchestration.sqlite_files import make_files
from tsds_pipeline.project import Project

UNDER_WAY = [status for status in NOT_FINISHED_STATUSES if status != dg.DagsterRunStatus.QUEUED]
_LONGEST_TICK = 300.0
"""Seconds."""
_SKEW = 60.0
"""Seconds: what is further in the future was written before the clock was set back."""
_NOT_CAPTURED = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}


@contextmanager
def project_instance(project: Project) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of ``project``: the one that the environment names, else that in the project folder.

    Raises :class:`TsdsError` for one that cannot be opened, and when the disk that it is on refuses.
    """
    given = project.given_dagster_home()
    home = given or project.prepare_dagster_home()
    # Whatever enters the instance once more makes Dagster keep it at hand after its end; the second ends that too.
    with told_of_disk(home), _dagster_home(home), set_defs_state_storage(None), ExitStack() as held:
        yield _own(home, held) if given is None else held.enter_context(_given(home))


def move_away(home: Path) -> str:
    """What to do about databases in ``home``, the project's own, that cannot be used."""
    return f"move {home} away: only the history of runs is lost"


def _own(home: Path, held: ExitStack) -> dg.DagsterInstance:
    """The instance in ``home``, the project's own, open until ``held`` ends."""
    if re.search(r"%[0-9a-fA-F]{2}|\?", str(home)):
        raise TsdsError(
            f'{home}: its path has a "%" or "?" that Dagster reads as part of an address: rename the folder'
        )
    try:
        make_files(home, _opened_once)
        instance = held.enter_context(_opened(home))
        # Dagster opens a connection a statement; while another is open, closing one does not checkpoint.
        for database in home.rglob("*.db"):
            held.enter_context(closing(sqlite3.connect(database))).execute("PRAGMA schema_version")
        held.enter_context(kept_engines(instance))
    except Exception as error:
        # This class itself is what SQLite says of a file that is none of its own; others are of a disk or a lock.
        if type(cause := getattr(error, "orig", error)) is not sqlite3.DatabaseError:
            raise
        raise TsdsError(f"{home}: a database of Dagster is damaged ({cause}): {move_away(home)}") from None
    return instance


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


def end_dead_runs(instance: dg.DagsterInstance, *, all_of_them: bool = False) -> None:
    """End the runs of refreshes that were killed: they would stay under way for ever, and keep their pool's slot.

    The caller knows that no other refresh is under way (``lock``). With ``all_of_them`` also those of a daemon that the
    caller knows to be dead, unless they live on in a code server; what is still queued waits for the next daemon.
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY)):
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


def said_by(error: SerializableErrorInfo) -> str:
    """What the exception that ``error`` came from said; without its class where it was said to people."""
    while error.cause is not None:
        error = error.cause
    text = error.message.strip()
    return text.partition(": ")[2] if error.cls_name in (TsdsError.__name__, dg.Failure.__name__) else text
