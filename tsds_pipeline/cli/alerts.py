"""`tsds alerts`: what would be told, and whether it arrives where it should."""

import click

from tsds_pipeline.cli.project import fetched_project, project_option
from tsds_pipeline.cli.terminal import complain, say


@click.command()
@click.option("--test", is_flag=True, help="Send a test message to where [alerts] wants it.")
@project_option
def alerts(test: bool) -> None:
    """List what the sensor "alerts" tells, or try out where it tells it.

    The sensor runs with the automation (`tsds dev`, or in production). It tells of failed results, checks and jobs,
    and of samples that lag behind: once each, and once when it is over.

    \b
    Examples:
        tsds alerts
        tsds alerts --test
    """
    from tsds_pipeline.alerts import deliver, destination, message, problems_of
    from tsds_pipeline.graph import observe

    project = fetched_project()
    where = destination(project.settings.alerts)
    if test:
        deliver(project.settings.alerts, message(project.root.name, ["a test: nothing is wrong"], []))
        say(f"sent to {where}" if where else "nothing is sent: [alerts] names no webhook and no command")
        return
    observed = observe(project)
    if project.has_instance:
        from tsds_pipeline.orchestration.alerts import present_problems
        from tsds_pipeline.orchestration.instances import project_instance

        with project_instance(project) as instance:
            found, _ = present_problems(instance, observed, {})
    else:
        from tsds_pipeline.status import status

        found = problems_of(observed, status(observed))
    for one in found.values():
        complain("problem", one.text, node=one.node)
    number = f"{len(found)} {'problem' if len(found) == 1 else 'problems'}" if found else "no problem"
    say(f"{number}; {f'told to {where}' if where else 'told to the log alone: see [alerts] in tsds.toml'}")
