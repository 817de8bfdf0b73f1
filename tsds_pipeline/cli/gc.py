"""`tsds gc`: delete what is stored for sources and tasks that are gone."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tsds_pipeline.cli.project import chosen_project, project_option
from tsds_pipeline.cli.terminal import say

if TYPE_CHECKING:
    from pathlib import Path

    from tsds_pipeline.garbage import Garbage
    from tsds_pipeline.project import Project


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--exports", is_flag=True, help="Also the exports of tasks that are gone.")
@click.option("--embeddings", is_flag=True, help="Also vectors of encoders other than the present one.")
@click.option(
    "--older-than",
    metavar="DAYS",
    type=click.IntRange(1),
    help="Also records of what is older: runs in Dagster's history, versions of samples, months of the log.",
)
@project_option
def gc(dry_run: bool, exports: bool, embeddings: bool, older_than: int | None) -> None:
    """Delete what is stored for sources and tasks that are gone.

    Until then it is kept, so that what comes back is not made again. No result of the project needs it. Records grow
    with each result: with --older-than those that only tell of the past go too, and never the last of anything.

    \b
    Examples:
        tsds gc --dry-run
        tsds gc --exports
        tsds gc --older-than 90
    """
    from tsds_pipeline.garbage import garbage, old_records
    from tsds_pipeline.graph import observe
    from tsds_pipeline.lock import refresh_lock
    from tsds_pipeline.sizes import shown_size

    project = chosen_project()
    with refresh_lock(project):
        found = garbage(observe(project), exports=exports, embeddings=embeddings)
        if older_than is not None:
            before = time.time() - older_than * 86400
            found += old_records(project, before)
        sizes = _sizes(project.root, found)
        for item in () if dry_run else found:
            item.remove()
        runs = 0 if older_than is None else _forget_runs(project, before, dry_run)
    for line, size in sizes.items():
        say(f"{shown_size(size):>10}  {line}")
    done = "would be deleted" if dry_run else "deleted"
    if runs:
        say(f"{runs:,} runs of Dagster's history {done}")
    if not found:
        if not runs:
            say("nothing to delete")
        return
    say(f"{shown_size(sum(sizes.values()))} in {len(found)} files and folders {done}")


def _forget_runs(project: "Project", before: float, dry_run: bool) -> int:
    """Delete what Dagster has of runs that ended before then; how many."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tsds_pipeline.orchestration.instances import project_instance
        from tsds_pipeline.orchestration.retention import old_runs

        with project_instance(project) as instance:
            found = old_runs(instance, before)
            for run_id in () if dry_run else found:
                instance.delete_run(run_id)
    return len(found)


def _sizes(root: "Path", found: Sequence["Garbage"]) -> dict[str, int]:
    """Bytes by folder and reason."""
    sizes: dict[str, int] = {}
    for item in found:
        line = f"{item.path.parent.relative_to(root)}: {item.reason}"
        sizes[line] = sizes.get(line, 0) + item.size
    return sizes
