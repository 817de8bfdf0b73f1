"""`tsds gc`: delete what is stored for sources and tasks that are gone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tsds_pipeline.cli.project import chosen_project, project_option
from tsds_pipeline.cli.terminal import say

if TYPE_CHECKING:
    from pathlib import Path

    from tsds_pipeline.garbage import Garbage


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--exports", is_flag=True, help="Also the exports of tasks that are gone.")
@click.option("--embeddings", is_flag=True, help="Also vectors of encoders other than the present one.")
@project_option
def gc(dry_run: bool, exports: bool, embeddings: bool) -> None:
    """Delete what is stored for sources and tasks that are gone.

    Until then it is kept, so that what comes back is not made again. No result of the project needs it.

    \b
    Examples:
        tsds gc --dry-run
        tsds gc --exports
    """
    from tsds_pipeline.garbage import garbage
    from tsds_pipeline.graph import observe
    from tsds_pipeline.lock import refresh_lock
    from tsds_pipeline.sizes import shown_size

    project = chosen_project()
    with refresh_lock(project):
        found = garbage(observe(project), exports=exports, embeddings=embeddings)
        sizes = _sizes(project.root, found)
        for item in () if dry_run else found:
            item.remove()
    for line, size in sizes.items():
        say(f"{shown_size(size):>10}  {line}")
    if not found:
        say("nothing to delete")
        return
    done = "would be deleted" if dry_run else "deleted"
    say(f"{shown_size(sum(sizes.values()))} in {len(found)} files and folders {done}")


def _sizes(root: "Path", found: Sequence["Garbage"]) -> dict[str, int]:
    """Bytes by folder and reason."""
    sizes: dict[str, int] = {}
    for item in found:
        line = f"{item.path.parent.relative_to(root)}: {item.reason}"
        sizes[line] = sizes.get(line, 0) + item.size
    return sizes
