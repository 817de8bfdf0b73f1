"""One database engine for each SQLite file of a Dagster instance, for as long as the instance is open.

Dagster makes an engine, and with it a connection, for every statement, and compiles each statement anew: about 140
times in a run of one partition. Other databases keep theirs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import event, inspect

# How each storage opens a connection.
_CONNECT = {
    SqliteRunStorage: "connect",
    SqliteScheduleStorage: "connect",
    ConsolidatedSqliteEventLogStorage: "_connect",
}


@contextmanager
def kept_engines(instance: dg.DagsterInstance) -> Iterator[None]:
    """Inside, the SQLite storages of ``instance`` keep their connections open.

    No commit waits for the disk. A machine that loses its power may lose the last of them, and nothing else, as the
    files are in WAL mode; what is due does not go by them.
    """
    engines = []
    for storage in (instance.run_storage, instance.schedule_storage, instance.event_log_storage):
        # Not of what is derived from them: it may open its connections otherwise.
        if (name := _CONNECT.get(type(storage))) is None:
            continue
        engine = create_engine(storage._conn_string, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
        event.listen(
            engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = NORMAL")
        )
        engines.append(engine)
        setattr(storage, name, engine.begin)
        if isinstance(storage, ConsolidatedSqliteEventLogStorage):
            storage.has_table = set(inspect(engine).get_table_names()).__contains__
    try:
        yield
    finally:
        for engine in engines:
            engine.dispose()
