"""`tsds compare`: what other methods would have selected for a task, and how good that is."""

from typing import TYPE_CHECKING

import click

from tsds_pipeline.cli.project import fetched_project, project_option
from tsds_pipeline.cli.refresh import run_refresh
from tsds_pipeline.cli.show import warn_unless_fresh
from tsds_pipeline.cli.terminal import plain_table, print_table, say, width

if TYPE_CHECKING:
    import polars as pl

# Short enough to stand side by side, with the direction in which better lies.
COLUMNS = {
    "transport_distance": "W1 -",
    "energy_distance": "energy -",
    "held_back_distance": "nearest -",
    "facility_location": "cover +",
    "kl_reduction": "KL +",
    "vendi_score": "Vendi +",
    "near_duplicate_rate": "dupl -",
    "leaks": "leaks -",
}

# The page has them all.
_IN_WIDE_ONLY, _WIDE = ("held_back_distance", "facility_location"), 96


@click.command()
@click.argument("task")
@click.option("--again", is_flag=True, help="Compare again, also where nothing changed since the last time.")
@project_option
@click.pass_context
def compare(ctx: click.Context, task: str, again: bool) -> None:
    """Compare the selection for TASK with what other methods would select under the same budget.

    The queries are split into four parts; each is held back once, every method selects for the rest, and the part that
    it did not see judges it. Columns with - are better when lower, + when higher; the best of each has a *.

    \b
        W1, energy       distances between the examples and the held-back queries, as distributions
        nearest, cover   mean distance (cosine) of a held-back query to its nearest example
        KL               nats by which the examples' n-grams are nearer to the queries' than the pool's are
        Vendi            diversity: how many fully different examples it would be
        dupl, leaks      share with a near-duplicate among them; examples that repeat a held-back text

    Closeness alone is won by top-k, which takes the same thing many times: see what it costs in diversity.

    The table with its spread, and a picture, are written to reports/TASK.comparison.html and shown with
    selection_comparison in the Dagster UI. It needs a refreshed project, and minutes where the pool is large.

    \b
    Example:
        tsds compare bbh
    """
    from tsds_pipeline.graph import current_versions, observe, stored
    from tsds_pipeline.report.pages import comparison_path
    from tsds_pipeline.results import load_result
    from tsds_pipeline.status import node_status

    project = fetched_project()
    observed = observe(project)
    observed.require("task", task)
    load_result(project, "sampled_subset", task)
    node = f"selection_comparison|{task}"
    due = node_status(node, observed, current_versions([node], observed)).due
    if (due or again) and not run_refresh(project, nodes=[node], from_scratch=again):
        ctx.exit(1)
    made = stored(project.storage, node)
    _print(task, made.frame)
    say()
    say(f"page: {comparison_path(project, task)}")
    warn_unless_fresh(observed, task)


def _print(task: str, table: "pl.DataFrame") -> None:
    from tsds_pipeline.report.selection import TITLES, quality_rows

    shown_names = [name for name in COLUMNS if width() >= _WIDE or name not in _IN_WIDE_ONLY]
    rows = {row["name"]: row["cells"] for row in quality_rows(table) if row["name"] in shown_names}
    methods = list(dict.fromkeys(table["method"]))
    say()
    say(f"{task}: held-back queries judge, mean over {table['fold'].n_unique()} parts", bold=True)
    shown = plain_table(*(f">{COLUMNS[name]}" for name in rows), "method")
    for number, method in enumerate(methods):
        cells = [cell[number]["mean"] + ("*" if cell[number]["best"] else " ") for cell in rows.values()]
        shown.add_row("", *cells, TITLES[method])
    print_table(shown)
