"""`tsds init`: a new project folder."""

import click

from tsds_pipeline.cli.terminal import say


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path())
def init(folder: str) -> None:
    """Make a new project folder: tsds.toml, sources/ and tasks/.

    Nothing that exists is overwritten.

    \b
    Example:
        tsds init my-project
    """
    from tsds_pipeline.project import create_project

    create_project(folder)
    say(f"{folder}: a new project. Next:")
    say()
    say(f"  1. put candidates into     {folder}/sources/NAME.jsonl   (or .parquet, .csv, ...)")
    say(f"  2. put a task's queries in {folder}/tasks/TASK/query.jsonl")
    say(f"  3. run                     tsds -p {folder} refresh")
    say()
    say(f"Settings, with their defaults, are in {folder}/tsds.toml.")
