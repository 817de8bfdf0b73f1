"""Which runs of Dagster's history nothing needs any more. Nothing is decided by them; they are what the UI shows."""

from collections.abc import Iterator

import dagster as dg

from tsds_pipeline.orchestration.refresh import nodes_of_run

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_AT_A_TIME = 1000


def old_runs(instance: dg.DagsterInstance, before: float) -> list[str]:
    """The runs that ended before the time ``before``, without those that made what is there last.

    Their events are where the UI, and Dagster's view of what is stale, have the versions of results from.
    """
    made: set[str] = set()
    found = []
    for record in _newest_first(instance):
        nodes = set(nodes_of_run(record.dagster_run))
        if nodes <= made and record.end_time is not None and record.end_time < before:
            found.append(record.dagster_run.run_id)
        elif record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            made |= nodes
    return found


def _newest_first(instance: dg.DagsterInstance) -> Iterator[dg.RunRecord]:
    cursor = None
    while True:
        records = instance.get_run_records(dg.RunsFilter(statuses=_ENDED), limit=_AT_A_TIME, cursor=cursor)
        yield from records
        if len(records) < _AT_A_TIME:
            return
        cursor = records[-1].dagster_run.run_id
