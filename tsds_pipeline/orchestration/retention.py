"""Which runs of Dagster's history nothing needs any more. Nothing is decided by them; they are what the UI shows."""

from collections.abc import Iterator

import dagster as dg

from tsds_pipeline.orchestration.instances import nodes_of_run

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_AT_A_TIME = 1000


def old_runs(instance: dg.DagsterInstance, before: float) -> list[str]:
    """The runs that ended before the time ``before``, without those that made what is there last.

    Their events are where the UI, and Dagster's view of what is stale, have the versions of results from.
    """
    made: set[str] = set()
    found = []
    for record in _newest_first(instance):
        run = record.dagster_run
        in_waves = run.asset_selection is None
        nodes = set(_reported(instance, run.run_id) if in_waves else nodes_of_run(run))
        if nodes <= made and record.end_time is not None and record.end_time < before:
            found.append(run.run_id)
        elif in_waves or run.status == dg.DagsterRunStatus.SUCCESS:
            made |= nodes
    return found


def _reported(instance: dg.DagsterInstance, run_id: str) -> Iterator[str]:
    """The nodes that a run of a job reports to have made (``wave``)."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.get_dagster_event()
        yield "|".join(filter(None, (event.asset_key.to_user_string(), event.partition)))


def _newest_first(instance: dg.DagsterInstance) -> Iterator[dg.RunRecord]:
    cursor = None
    while True:
        records = instance.get_run_records(dg.RunsFilter(statuses=_ENDED), limit=_AT_A_TIME, cursor=cursor)
        yield from records
        if len(records) < _AT_A_TIME:
            return
        cursor = records[-1].dagster_run.run_id
