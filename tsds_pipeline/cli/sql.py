"""`tsds sql`: a query, or a prompt, on everything that is stored."""

import os
import sys

import click

from tsds_pipeline.cli.project import fetched_project, project_option
from tsds_pipeline.cli.terminal import complain

FORMATS = ("table", "csv", "json")


@click.command()
@click.argument("query", required=False)
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@project_option
def sql(query: str | None, form: str) -> None:
    """Ask the project's results in SQL (DuckDB).

    Without a QUERY, and with nothing piped in, this is a prompt. What can be read is listed by `tsds sql .tables`:
    what the pipeline stores, and the results of the models in dbt_like_sql/. Nothing is changed by it.

    \b
    Examples:
        tsds sql
        tsds sql "SELECT * FROM source_coverage"
        tsds sql --format csv "FROM task_overlap" > overlap.csv
    """
    from tsds_pipeline.cli.prompt import Shell
    from tsds_pipeline.errors import TsdsError
    from tsds_pipeline.graph import observe
    from tsds_pipeline.sql.warehouse import open_warehouse, unmade_models

    observed = observe(fetched_project())
    asked = query is not None or not sys.stdin.isatty()
    text = (query if query is not None else sys.stdin.read()) if asked else ""
    if asked and not text.strip():
        raise TsdsError(
            "there is no query: give one, pipe one in, or start `tsds sql` in a terminal for a prompt"
        )
    unmade = unmade_models(observed)
    if unmade:
        complain("hint", f"no result yet: {', '.join(unmade)}: run `tsds refresh`")
    with open_warehouse(observed) as connection:
        shell = Shell(connection, form)
        if not asked:
            shell.loop()
            return
        try:
            shell.run(text)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has enough, as `head` does; nothing is left to be flushed at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
