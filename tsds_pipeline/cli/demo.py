"""`tsds demo`: the main job on the built-in corpus."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tsds_pipeline.cli.terminal import Ticker, complain, cut, say

if TYPE_CHECKING:
    from tsds_pipeline.corpus.demo import DemoContents
    from tsds_pipeline.project import Project
    from tsds_pipeline.summary import TaskSummary

_LONGEST_NAMES = 50


@click.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path("demo"))
@click.pass_context
def demo(ctx: click.Context, folder: Path) -> None:
    """Run the main job on a built-in corpus, without any download.

    The candidates are docstrings of the libraries installed here, a source each; the tasks are modules that are
    kept out of them. DIR (default: demo) becomes a project like any other. A few minutes the first time.

    \b
    Example:
        tsds demo
    """
    from tsds_pipeline.cli.refresh import run_refresh
    from tsds_pipeline.corpus.demo import write_demo
    from tsds_pipeline.project import Project

    ticker = Ticker()
    ticker.show("reading the docstrings of the installed libraries")
    try:
        contents = write_demo(folder.absolute())
    finally:
        ticker.clear()
    say(
        f"{folder}: {sum(contents.sources.values()):,} docstrings of {len(contents.sources)} libraries (the sources), "
        f"{len(contents.tasks)} tasks"
    )
    if contents.absent:
        complain("hint", f"not installed, so left out: {', '.join(contents.absent)}")
    project = Project.load(folder)
    if not run_refresh(project):
        ctx.exit(1)
    _print_results(project, contents)
    say()
    say("Next", bold=True)
    say(f"  tsds -p {folder} show graphs    why each example was selected, query by query")
    say(f"  tsds -p {folder} dev            the same in the Dagster UI")
    say(f"  edit {folder}/tsds.toml, then tsds -p {folder} refresh: only what depends on the change runs")


def _print_results(project: "Project", contents: "DemoContents") -> None:
    from tsds_pipeline.cli.pages import print_pool, print_summary
    from tsds_pipeline.corpus.demo import TASKS
    from tsds_pipeline.summary import summarize, summarize_pool

    print_pool(summarize_pool(project))
    for task, queries in contents.tasks.items():
        if queries:
            summary = summarize(project, task)
            print_summary(summary, TASKS[task].title, _expected(summary, contents.expected_share[task]))


def _expected(summary: "TaskSummary", by_chance: float) -> str:
    from tsds_pipeline.corpus.demo import TASKS

    task = TASKS[summary.task]
    share = task.expected_share(summary.sample["module"].to_list())
    names = cut(", ".join(task.expected), _LONGEST_NAMES)
    return f"{share:.0%} are from where they should be ({names}); by chance {by_chance:.0%} would be"
