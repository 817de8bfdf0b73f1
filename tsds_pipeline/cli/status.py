"""`tsds status`: how every source and task stands. Nothing is computed, and Dagster is not needed."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tsds_pipeline.cli.project import fetched_project, project_option
from tsds_pipeline.cli.terminal import complain, one_line, plain_table, print_table, say

if TYPE_CHECKING:
    from rich.text import Text

    from tsds_pipeline.graph import Observed
    from tsds_pipeline.status import NodeStatus

_STYLES = {"fresh": "green", "stale": "yellow", "missing": "yellow", "failed": "red"}
_WORST_FIRST = ("failed", "missing", "stale", "fresh")


@click.command()
@click.option("--all", "every", is_flag=True, help="A line for every partition.")
@click.option("--json", "as_json", is_flag=True, help="Every partition, for programs.")
@project_option
def status(every: bool, as_json: bool) -> None:
    """Say what is fresh, stale (and why), missing or failed.

    Nothing is computed; exit status 0 whatever is found.

    \b
    Examples:
        tsds status
        tsds status --all
        tsds status --json | jq '.partitions[] | select(.state != "fresh")'
    """
    from tsds_pipeline.graph import describe, observe
    from tsds_pipeline.sizes import project_sizes
    from tsds_pipeline.status import status as status_of

    observed = observe(fetched_project())
    found = status_of(observed)
    if as_json:
        say(json.dumps(_document(observed, found), indent=1, ensure_ascii=False))
        return
    table = plain_table("", "", "")
    rows = _every(found) if every else _grouped(observed, found)
    for name, state, note in rows:
        table.add_row("", name, _colored(state), one_line(note))
    if table.row_count:
        print_table(table)
        say()
    for one in found:
        if one.state == "failed":
            complain("failed", f"{describe(one.node)}: {'; '.join(one.reasons)}")
        elif one.state == "missing" and one.reasons:
            complain("problem", "; ".join(one.reasons))
        for name, problem in one.failed_checks.items():
            complain("warning", f"{describe(one.node)}: check {name}: {problem}")
    for kind, lines in (("problem", observed.problems), ("hint", observed.scan.hints)):
        for line in lines:
            complain(kind, line)
    if found:
        say(_on_disk(project_sizes(observed.project)))
    say(_summed_up(found))


def _document(observed: "Observed", found: Sequence["NodeStatus"]) -> dict:
    from tsds_pipeline.sizes import project_sizes

    partitions = []
    for one in found:
        asset, _, partition = one.node.partition("|")
        partitions.append(
            {
                "asset": asset,
                "partition": partition or None,
                "state": one.state,
                "reasons": list(one.reasons),
                "failed_checks": one.failed_checks,
            }
        )
    return {
        "project": str(observed.project.root),
        "partitions": partitions,
        "problems": [*observed.scan.all_problems(), *observed.sql.problems],
        "hints": list(observed.scan.hints),
        "bytes": project_sizes(observed.project),
    }


def _every(found: Sequence["NodeStatus"]) -> Iterable[tuple[str, str, str]]:
    from tsds_pipeline.graph import describe

    return ((describe(one.node), one.state, "; ".join(one.reasons)) for one in found)


def _grouped(observed: "Observed", found: Sequence["NodeStatus"]) -> Iterable[tuple[str, str, str]]:
    """A row for each source, the pool, each task and SQL: its worst state, and why or how large it is."""
    from tsds_pipeline.graph import BY_MIXTURE, BY_SOURCE, is_model
    from tsds_pipeline.node_names import split_name

    groups: dict[str, list[NodeStatus]] = {f"source {key}": [] for key in observed.sources}
    for one in found:
        _, asset, key = split_name(one.node)
        kind = "source" if asset in BY_SOURCE else "mixture" if asset in BY_MIXTURE else "task"
        name = f"{kind} {key.rpartition('|')[2]}" if key else "pool"
        groups.setdefault("sql" if is_model(one.node) else name, []).append(one)
    for name, members in groups.items():
        worst = min((one.state for one in members), key=_WORST_FIRST.index)
        yield name, worst, _size(members) if worst == "fresh" else _why(members, worst)


def _why(members: Sequence["NodeStatus"], worst: str) -> str:
    counts = Counter(one.state for one in members)
    behind = sum(counts[state] for state in _WORST_FIRST[:-1])
    # Upstream comes first; what lies downstream only repeats it.
    first = next(one for one in members if one.state == worst)
    if worst == "missing" and behind == counts["missing"] == len(members) and not first.reasons:
        return "nothing made yet"
    return f"{behind} of {len(members)}: {'; '.join(first.reasons) or 'some not made yet'}"


def _size(members: Sequence["NodeStatus"]) -> str:
    from tsds_pipeline.graph import is_model

    if members and is_model(members[0].node):
        return f"{len(members)} models"
    notes: dict = {}
    for one in members:
        notes |= one.artifact.header.notes
    if "records_read" in notes:
        bad = f", {notes['quarantined']:,} of them quarantined" if notes["quarantined"] else ""
        excluded = sum(notes.get("excluded", {}).values())
        left_out = f", {excluded:,} excluded" if excluded else ""
        return f"{notes['records_read']:,} records{bad}{left_out}"
    if "by_task" in notes:
        of_each = ", ".join(f"{number:,} of {task}" for task, number in notes["by_task"].items())
        return f"{notes['size']:,} examples: {of_each}"
    if "size" in notes:
        epochs = f" in each of {notes['epochs']} epochs" if notes["epochs"] > 1 else ""
        return (
            f"{notes['size']:,} examples{epochs} for {notes['queries']:,} queries, alpha {notes['alpha']:.3g}"
        )
    return ""


def _summed_up(found: Sequence["NodeStatus"]) -> str:
    from tsds_pipeline.graph import is_model

    if not found:
        return "nothing to compute yet"
    said = _counted(one for one in found if not is_model(one.node))
    if models := [one for one in found if is_model(one.node)]:
        said += f"; SQL models: {_counted(models)}"
    due = sum(one.due for one in found)
    return said + (f"; `tsds refresh` makes up to {due}" if due else "")


def _on_disk(sizes: Mapping[str, int]) -> str:
    from tsds_pipeline.sizes import shown_size

    parts = ", ".join(f"{part} {shown_size(size)}" for part, size in sizes.items() if size)
    return f"{shown_size(sum(sizes.values()))} on disk{parts and ': ' + parts}"


def _counted(found: Iterable["NodeStatus"]) -> str:
    counts = Counter(one.state for one in found)
    return ", ".join(f"{counts[state]} {state}" for state in reversed(_WORST_FIRST) if counts[state])


def _colored(state: str) -> "Text":
    from rich.text import Text

    return Text(state, style=_STYLES[state])
