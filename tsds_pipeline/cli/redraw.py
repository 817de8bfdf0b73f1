"""`tsds redraw`: a fresh sample with the same settings."""

import click

from tsds_pipeline.cli.project import fetched_project, project_option
from tsds_pipeline.cli.refresh import run_refresh
from tsds_pipeline.errors import TsdsError


@click.command()
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@project_option
@click.pass_context
def redraw(ctx: click.Context, tasks: tuple[str, ...]) -> None:
    """Draw a fresh sample for TASK..., with the same settings and seed, as for another training run.

    Only the samples and their reports are made again; SQL models follow with the next refresh.
    Which draw it is stands in each manifest ("redraws"): project, settings and that number give the same sample
    everywhere.

    \b
    Example:
        tsds redraw bbh
    """
    from tsds_pipeline.graph import observe, stored
    from tsds_pipeline.redraws import add_redraw
    from tsds_pipeline.status import drawn_nodes

    project = fetched_project()
    observed = observe(project)
    for task in tasks:
        observed.require("task", task)
        if stored(project.storage, f"selection_probabilities|{task}") is None:
            raise TsdsError(f"task {task}: there is nothing to draw from yet: run `tsds refresh`")
    chosen = list(dict.fromkeys(tasks))

    def count() -> None:
        for task in chosen:
            add_redraw(project, task)

    # Of several tasks the first brings the map for all.
    nodes = list(dict.fromkeys(node for task in chosen for node in drawn_nodes(observed, task)))
    if not run_refresh(project, count, nodes=nodes):
        ctx.exit(1)
