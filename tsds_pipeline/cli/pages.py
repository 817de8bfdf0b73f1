"""How a task's selection is laid out on a terminal; what it says comes from ``summary`` and ``explain``."""

import os
from pathlib import Path

from tsds_pipeline.cli.terminal import cut, one_line, plain_table, print_table, say
from tsds_pipeline.explain import Explanation
from tsds_pipeline.summary import Crowd, PoolSummary, TaskSummary
from tsds_pipeline.wording import GONE, drawn_mark

QUERIES_SHOWN, SOURCES_SHOWN, CROWD_SHOWN = 3, 5, 4
LEGEND = """\
*: drawn. dist: distance to the query. dens: density, 1 without near-duplicates, 3 where three share
the mass of one. share: of the query's mass. prob: selection probability, over all queries."""
_LABEL = 7
_BAR = 24
_LONGEST_QUERY = 400


def print_pool(pool: PoolSummary) -> None:
    """What all tasks draw from, and what the density did about near-duplicates in it."""
    say()
    say("pool", bold=True)
    say(
        f"  {sum(pool.candidates.values()):,} candidates, {pool.copies:,} exact copies among them counted once"
    )
    if pool.near_duplicates:
        say(
            f"  {pool.near_duplicates:,} have near-duplicates: densities let the pool weigh as "
            f"{pool.total_weight:,.0f} distinct candidates"
        )
        say(
            f"  most crowded (density {pool.density:.1f}): {pool.crowded_source}, {cut(pool.crowded_text, 80)}"
        )


def print_summary(summary: TaskSummary, title: str = "", expected: str = "") -> None:
    """One task: asked, chosen, from where, what became of near-duplicates, the files."""
    print_head(summary, title)
    _labelled("asked", [one_line(text) for text in summary.query_texts[:QUERIES_SHOWN]])
    _print_chosen(summary)
    _print_sources(summary, expected)
    print_crowd(summary)
    _labelled("files", [_from_here(path) for path in summary.files])


def print_head(summary: TaskSummary, title: str = "") -> None:
    """How much was drawn out of how much, and how."""
    notes = summary.notes
    each = f" in each of {summary.epochs} epochs" if summary.epochs > 1 else ""
    say()
    say(summary.task + (f": {title}" if title else ""), bold=True)
    say(
        f"  {summary.size:,} of {notes['candidates']:,} candidates drawn{each} for {summary.queries:,} queries; alpha "
        f"{notes['alpha']:.3g}, {notes['examples_with_mass']:,} with mass, effective size {notes['effective_size']:.0f}"
    )


def print_crowd(summary: TaskSummary) -> None:
    """What the density did about near-duplicates among the candidates with mass."""
    crowd, with_mass = summary.crowd, summary.notes["examples_with_mass"]
    if crowd is None:
        return _labelled("density", [f"none of the {with_mass:,} candidates with mass has near-duplicates"])
    lines = [f"{crowd.candidates:,} of the {with_mass:,} with mass have near-duplicates"]
    lines[0] += (
        f" and weigh as {crowd.weight:.1f}" if crowd.shared else "; this algorithm weighs each in full"
    )
    if len(crowd.group) > 1:
        lines.append(_group_in_words(crowd))
    _labelled("density", lines)
    if len(crowd.group) > 1:
        table = plain_table("", "", "", label_width=_LABEL)
        for row in crowd.group.head(CROWD_SHOWN).iter_rows(named=True):
            table.add_row("", "", drawn_mark(row["drawn"]), row["source"], one_line(row["text"] or GONE))
        print_table(table)


def print_explanation(found: Explanation, queries: int) -> None:
    """One query and the candidates that it gives mass to."""
    say()
    say(f"query {found.number + 1} of {queries}  {one_line(found.record_id)}", bold=True)
    say(f"  {cut(found.text, _LONGEST_QUERY)}")
    table = plain_table("", ">dist", ">dens", ">share", ">prob", "source", "text")
    for row in found.candidates.iter_rows(named=True):
        numbers = [f"{row['distance']:.3f}", f"{row['density']:.2f}"]
        shares = [_percent(row["share"]), _percent(row["probability"])]
        table.add_row(
            "", drawn_mark(row["drawn"]), *numbers, *shares, row["source"], one_line(row["text"] or GONE)
        )
    print_table(table)
    if more := found.with_mass - len(found.candidates):
        say(f"     and {more:,} more (--limit)", dim=True)


def _print_chosen(summary: TaskSummary) -> None:
    table = plain_table(">distance", ">prob", "source", "text", label="chosen", label_width=_LABEL)
    for row in summary.examples.iter_rows(named=True):
        numbers = f"{row['distance']:.3f}", _percent(row["probability"])
        table.add_row("", "", *numbers, row["source"], one_line(row["text"]))
    print_table(table)


def _print_sources(summary: TaskSummary, expected: str) -> None:
    drawn = summary.drawn_by_source()
    rows, everything = sum(drawn.values()), sum(summary.pool.values())
    names = list(drawn)
    groups = {name: [name] for name in names[:SOURCES_SHOWN]}
    if more := names[SOURCES_SHOWN:]:
        groups[f"{len(more)} more"] = more
    table = plain_table("source", ">drawn", ">pool", "", label="from", label_width=_LABEL)
    for name, members in groups.items():
        share = sum(drawn[source] for source in members) / rows
        of_pool = sum(summary.pool.get(source, 0) for source in members) / everything
        table.add_row("", "", name, f"{share:.0%}", f"{of_pool:.0%}", "█" * round(share * _BAR))
    print_table(table)
    if expected:
        say(f"{'':{_LABEL + 4}}{expected}")


def _group_in_words(crowd: Crowd) -> str:
    drawn, size = int((crowd.group["drawn"] > 0).sum()), len(crowd.group)
    return f"the largest group: {size} that weigh as {crowd.group_weight:.1f}, {drawn} of them drawn (*)"


def _labelled(label: str, lines: list[str]) -> None:
    """Lines beside a label, each cut to the width of the terminal."""
    table = plain_table(lines[0], label=label, label_width=_LABEL)
    table.columns[-1].header_style = ""
    for line in lines[1:]:
        table.add_row("", "", line)
    print_table(table)


def _from_here(path: Path) -> str:
    """``path`` as it is reached from the current folder."""
    relative = os.path.relpath(path)
    shown = str(path) if relative.startswith("..") else relative
    return one_line(shown) + ("/" if path.is_dir() else "")


def _percent(share: float) -> str:
    return f"{share:.2%}" if share < 0.0995 else f"{share:.1%}"
