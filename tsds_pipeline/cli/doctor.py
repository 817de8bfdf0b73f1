"""`tsds doctor`: what is wrong with an installation and a project, and what to do."""

from typing import TYPE_CHECKING

import click

from tsds_pipeline.cli.project import project_option
from tsds_pipeline.cli.terminal import one_line, say

if TYPE_CHECKING:
    from tsds_pipeline.doctor.finding import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@project_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look for what is wrong with the installation and the project, and say what to do.

    Versions, device, memory, disk, models, files, permissions, clock, locks, leftovers, damage, Dagster's instance
    and daemon. Nothing is changed and nothing is downloaded. Exit status 1 when there is a problem; a warning is none.

    \b
    Examples:
        tsds doctor
        tsds doctor --json | jq '.checks[] | select(.state != "ok")'
    """
    from tsds_pipeline.doctor import as_document, examine

    found = []
    for one in examine(ctx.obj):
        found.append(one)
        if not as_json:
            _show(one)
    if as_json:
        say(as_document(found))
    else:
        counts = {state: sum(one.state == state for one in found) for state in ("problem", "warning")}
        said = [f"{number} {name}{'s' * (number != 1)}" for name, number in counts.items() if number]
        say()
        say(", ".join(said) or "nothing is wrong")
    if any(one.state == "problem" for one in found):
        ctx.exit(1)


def _show(one: "Finding") -> None:
    first, *more = str(one).splitlines() or [""]
    state = click.style(f"{one.state:8}", fg=_STYLES[one.state])
    say(f"  {state} {one.check:15} {one_line(first)}")
    for line in more:
        say(f"{'':27}{one_line(line)}")
