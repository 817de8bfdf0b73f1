"""`tsds backfill`: make the partitions of single tasks, and of nothing else."""

import click

from tsds_pipeline.cli.project import fetched_project, project_option
from tsds_pipeline.cli.refresh import run_refresh


@click.command()
@click.option("--task", "tasks", metavar="TASK", multiple=True, required=True, help="Repeat it for several.")
@click.option("--from-scratch", is_flag=True, help="Also what is fresh; texts that were encoded stay so.")
@project_option
@click.pass_context
def backfill(ctx: click.Context, tasks: tuple[str, ...], from_scratch: bool) -> None:
    """Make the results of single tasks, from the candidates as they are now.

    It touches no other task, and nothing of the sources, which must have been refreshed once.

    \b
    Examples:
        tsds backfill --task bbh
        tsds backfill --task bbh --task gsm8k --from-scratch
    """
    from tsds_pipeline.graph import nodes as all_nodes
    from tsds_pipeline.graph import not_made, observe, stored
    from tsds_pipeline.node_names import split_name
    from tsds_pipeline.status import task_nodes

    project = fetched_project()
    observed = observe(project)
    nodes = task_nodes(observed, tasks)
    of_pool = ("kde_densities", "pool_summary", "pool_map")
    encoders = {observed.encoder_of(task) for task in tasks}
    for node in all_nodes(observed):
        encoder, asset, _ = split_name(node)
        if asset in of_pool and encoder in encoders and stored(project.storage, node) is None:
            raise not_made(node)
    if not run_refresh(project, nodes=nodes, from_scratch=from_scratch):
        ctx.exit(1)
