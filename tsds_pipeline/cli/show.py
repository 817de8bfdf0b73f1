"""`tsds show`: what was selected for a task, and why."""

from typing import TYPE_CHECKING

import click

from tsds_pipeline.cli.project import fetched_project, project_option
from tsds_pipeline.cli.terminal import complain, say

if TYPE_CHECKING:
    from tsds_pipeline.graph import Observed

QUERIES_SHOWN = 3


@click.command()
@click.argument("task")
@click.option(
    "--query",
    "queries",
    multiple=True,
    metavar="N|ID|all",
    help="A query by the number it has here, which is not that of its line, or by record id; may be repeated.  "
    f"[default: the first {QUERIES_SHOWN}]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="K",
    help="Candidates of each query.",
)
@project_option
def show(task: str, queries: tuple[str, ...], limit: int) -> None:
    """Show what was selected for TASK and why, query by query.

    Under each query stand the candidates it gives mass to, nearest first: distance to the query, density (1: no
    near-duplicates; 3: it shares the mass of one with others), share of the query's mass, selection
    probability, and a * where the candidate was drawn.

    \b
    Examples:
        tsds show bbh
        tsds show bbh --query 17 --limit 20
    """
    from tsds_pipeline.cli.pages import LEGEND, print_crowd, print_explanation, print_head
    from tsds_pipeline.explain import Explainer
    from tsds_pipeline.graph import observe
    from tsds_pipeline.status import wanted_nodes
    from tsds_pipeline.summary import summarize

    project = fetched_project()
    observed = observe(project)
    wanted_nodes(observed, task, None)
    summary, explainer = summarize(project, task), Explainer(project, task)
    numbers = explainer.numbers(queries) if queries else range(min(QUERIES_SHOWN, summary.queries))
    print_head(summary)
    if summary.outdated:
        complain(
            "warning",
            "what is drawn (*) comes from an earlier solution than the probabilities and shares here",
        )
    print_crowd(summary)
    for explanation in explainer.explain(numbers, limit):
        print_explanation(explanation, summary.queries)
    say()
    say(LEGEND, dim=True)
    warn_unless_fresh(observed, task)


def warn_unless_fresh(observed: "Observed", task: str) -> None:
    """Say so where the sample of ``task`` is not what a refresh would make now."""
    from tsds_pipeline.status import status

    own = next(one for one in status(observed) if one.node == f"sampled_subset|{task}")
    if own.state != "fresh":
        complain("warning", f"this result is {own.state} ({'; '.join(own.reasons)}): run `tsds refresh`")
