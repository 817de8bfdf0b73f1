"""The Dagster instance of a project: its database, its daemon, what is switched off."""

import sqlite3
from contextlib import closing
from urllib.parse import quote

from tsds_pipeline.doctor.finding import OK, PROBLEM, WARNING, Found
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.project import Project


def dagster(project: Project) -> Found:
    given = project.given_dagster_home()
    home = given or project.dagster_home
    if not project.has_instance:
        yield OK, f"no instance yet: the first refresh makes {home}", None
        return
    from tsds_pipeline.orchestration.instances import daemon_is_alive, move_away, project_instance

    try:
        for database in home.rglob("*.db") if given is None else ():
            with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as connection:
                connection.execute("PRAGMA schema_version")
        with project_instance(project) as instance:
            old = [
                type(one).__name__
                for one in (instance.event_log_storage, instance.run_storage, instance.schedule_storage)
                if (versions := one.alembic_version()) and versions[0] != versions[1]
            ]
            alive = daemon_is_alive(instance)
            off = [
                state.instigator_name
                for state in instance.all_instigator_state()
                if state.status.value == "STOPPED"
            ]
            errors = [
                f"{kind}: {beat.errors[0].message.strip()}"
                for kind, beat in instance.get_daemon_heartbeats().items()
                if beat.errors
            ]
    except TsdsError:
        raise
    except Exception as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        yield PROBLEM, f"the instance in {home} cannot be opened ({cause})", move_away(home)
        return
    if old:
        yield (
            PROBLEM,
            f"the database of {home} is of another version of Dagster ({', '.join(old)})",
            f"DAGSTER_HOME={home} dagster instance migrate",
        )
    else:
        yield OK, f"the instance in {home} can be used", None
    if alive:
        yield OK, "a daemon is alive", None
        yield from ((WARNING, f"the daemon says: {text}", "see its log") for text in errors if text)
    elif given is not None:
        yield PROBLEM, "no daemon was heard of for two minutes", "start it: nothing happens by itself"
    else:
        yield OK, "no daemon: nothing happens by itself, until `tsds dev`", None
    if off:
        yield WARNING, f"switched off in the UI: {', '.join(sorted(set(off)))}", "switch it on there"
