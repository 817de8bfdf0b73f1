"""`tsds calibrate`: which settings fit the user's own texts and tasks."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tsds_pipeline.cli.project import fetched_project, project_option
from tsds_pipeline.cli.terminal import complain, one_line, plain_table, print_table, say

if TYPE_CHECKING:
    from tsds_pipeline.calibration.findings import Findings
    from tsds_pipeline.graph import Observed

TASKS_AT_ONCE = 8
RADIUS_LEGEND = (
    "Of the pairs, those that count as at least half of a duplicate, by length of text, and their mean weight; of the "
    "candidates, those that do so with the nearest text that is another one (merged), or have it within the radius."
)
ALPHA_LEGEND = (
    "energy: energy distance of a sample to the held-back queries; nearest: their mean distance to its nearest "
    "example; random: the same of candidates taken at random."
)


@click.command()
@click.argument("task", required=False)
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Near-duplicates of your own: records (JSONL, CSV, Parquet) with two texts, a and b (where "
    "vectors are given with the records: two ids or texts of the pool).",
)
@click.option(
    "--edits",
    type=click.IntRange(min=1),
    metavar="N",
    help="Without --pairs: how many texts are edited.  [default: 300]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another one, another look."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="The page.  [default: reports/_calibrate.html in the project]",
)
@click.option(
    "--encoder",
    metavar="NAME",
    help="One of [encoders.NAME] and its tasks.  [default: that of TASK, or [encoder]]",
)
@project_option
def calibrate(
    task: str | None, pairs: Path | None, edits: int | None, seed: int, out: Path | None, encoder: str | None
) -> None:
    """Propose kernel_radius, show what alpha does, and say whether distance_scale fits; no setting is changed.

    The kernel radius: texts of the pool are edited a little (a word deleted, doubled or swapped, a typo, case) and
    encoded (storage/embedding_cache keeps the vectors), or pairs are given. A pair at distance d counts as 1 -
    (d/radius)^2 of a duplicate, and is caught where that is at least a half. Proposed is the smallest radius that
    catches 90% of the pairs or, where that merges more than 5% of the candidates with the nearest text that is
    another one, the largest that does not.

    Alpha: a part of the queries of TASK (default: of all tasks, the first 8) is held back in turn, and what is
    selected for the others at each alpha is compared with it, beside candidates taken at random.

    The distance scale: it fits where alpha = 1/2 spreads a query over about 100 candidates.

    \b
    Examples:
        tsds calibrate
        tsds calibrate bbh --pairs duplicates.jsonl
    """
    from tsds_pipeline.calibration.findings import calibrate as find
    from tsds_pipeline.calibration.radius import EDITED
    from tsds_pipeline.graph import observe
    from tsds_pipeline.report.calibration import write_calibration
    from tsds_pipeline.report.pages import calibration_path

    if pairs is not None and edits is not None:
        raise click.UsageError("--pairs and --edits exclude each other: pairs are given or made")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f'--out "{out}" is not a page: name a .html file')
    project = fetched_project()
    observed = observe(project)
    observed, every = _of_encoder(observed, task, encoder)
    tasks = [task] if task is not None else every[:TASKS_AT_ONCE]
    findings = find(observed, tasks, pairs=pairs, edits=edits or EDITED, seed=seed)
    _print_radius(findings)
    _print_alpha(findings)
    _print_scale(findings, observed)
    _print_advice(findings)
    path = calibration_path(project) if out is None else out
    write_calibration(project, findings, path)
    say()
    say(f"page  {one_line(str(path))}")
    if task is None and (left := len(every) - len(tasks)):
        complain("hint", f"{left} more tasks: name one, as in `tsds calibrate {every[-1]}`")
    _warn_if_stale(observed, tasks)


def _of_encoder(observed: "Observed", task: str | None, encoder: str | None) -> "tuple[Observed, list[str]]":
    """The project as ``encoder``, or that of ``task``, sees it, and its tasks. TsdsError where it has none."""
    from tsds_pipeline.errors import TsdsError
    from tsds_pipeline.node_names import DEFAULT_ENCODER

    if not observed.tasks:
        raise TsdsError(f"{observed.project.root / 'tasks'}: no tasks: put queries in tasks/TASK/query.jsonl")
    if task is not None:
        observed.require("task", task)
        encoder = observed.encoder_of(task)
    encoder = encoder or DEFAULT_ENCODER
    tasks = [name for name in observed.tasks if observed.encoder_of(name) == encoder]
    if not tasks:
        there = ", ".join(sorted({observed.encoder_of(name) for name in observed.tasks}))
        raise TsdsError(
            f'no task has the encoder "{encoder}"; those of the tasks are: {there}: name one by --encoder'
        )
    return replace(observed, project=observed.project.with_encoder(encoder)), tasks


def _print_radius(findings: "Findings") -> None:
    from tsds_pipeline.calibration.advice import radius_in_words
    from tsds_pipeline.calibration.texts import LENGTHS
    from tsds_pipeline.report.calibration import length_names, radius_rows

    found = findings.radius
    _title("Kernel radius")
    total = sum(found.words)
    shares = ", ".join(
        f"{count / total:.0%} {name}"
        for name, count in zip(length_names(), found.words, strict=True)
        if count
    )
    if found.pairs is not None:
        count = len(found.pairs.distances)
        what = f"{count:,} texts and an edit of each" if found.given is None else f"{count:,} given pairs"
        _sentence(f"{what}; the pool is {shares}; {found.natural:.1%} of it have an edit of theirs in it")
    table = plain_table(
        ">radius", *(f">{name}" for name in LENGTHS), ">all", ">weight", ">merged", ">within", ""
    )
    for row in radius_rows(found):
        cells = row["radius"], *row["lengths"], row["all"], row["weight"], row["merged"], row["touched"]
        table.add_row("", *cells, row["note"])
    print_table(table)
    _sentence(RADIUS_LEGEND, dim=True)
    for line in radius_in_words(found):
        _sentence(line)
    if len(found.examples):
        _sentence("Different texts that would count as about half a duplicate of each other. Should they?")
        table = plain_table(">", "", "")
        for row in found.examples.iter_rows(named=True):
            table.add_row("", f"{row['distance']:.3g}", row["source"], one_line(row["text"]))
            table.add_row("", "", row["other_source"], one_line(row["other_text"]))
        print_table(table)


def _print_alpha(findings: "Findings") -> None:
    from tsds_pipeline.calibration.advice import alpha_in_words
    from tsds_pipeline.report.calibration import alpha_rows

    for one in findings.tasks:
        sweep = one.sweep
        parts = f" in {sweep.folds} parts, each held back once" if sweep.folds > 1 else ""
        _title(f"Alpha, {sweep.task}")
        _sentence(f"{sweep.queries:,} queries{parts}; size {sweep.size:,}")
        names = (">alpha", ">neighbours", ">effective", ">with mass", ">certain", ">energy", ">nearest", "")
        table = plain_table(*names)
        for row in alpha_rows(sweep):
            note = row.pop("note")
            table.add_row("", *row.values(), note)
        print_table(table)
        for line in alpha_in_words(sweep):
            _sentence(line)
    if any(one.sweep.folds > 1 for one in findings.tasks):
        _sentence(ALPHA_LEGEND, dim=True)


def _print_scale(findings: "Findings", observed: "Observed") -> None:
    from tsds_pipeline.calibration.advice import scale_in_words
    from tsds_pipeline.report.calibration import scale_rows

    _title("Distance scale")
    table = plain_table("task", ">in use", ">fitting", ">alpha matters from", ">to", "")
    for row in scale_rows(findings.tasks):
        note = "" if row["fits"] == "yes" else "does not fit"
        table.add_row("", row["task"], row["scale"], row["fitting"], row["low"], row["high"], note)
    print_table(table)
    for line in scale_in_words(findings.tasks, observed.project.settings):
        _sentence(line)


def _print_advice(findings: "Findings") -> None:
    found = findings.advices
    if not found:
        _title("Nothing to write into tsds.toml: what is in use fits")
        return
    _title("To write into tsds.toml")
    tables: dict[str, list[str]] = {}
    for one in found:
        tables.setdefault(one.table, []).append(f"{one.key} = {one.value:g}    # {one.why}")
    for table, lines in tables.items():
        say(f"  [{table}]")
        for line in lines:
            say(f"  {line}")


def _warn_if_stale(observed: "Observed", tasks: list[str]) -> None:
    from tsds_pipeline.status import status

    wanted = {f"query_neighbors|{source}|{task}" for task in tasks for source in observed.sources}
    if any(one.state != "fresh" for one in status(observed) if one.node in wanted):
        complain(
            "warning",
            "something changed since the last refresh: run `tsds refresh`, then this again",
        )


def _title(text: str) -> None:
    say()
    say(text, bold=True)


def _sentence(text: str, **style: bool) -> None:
    """A line that wraps, two columns in."""
    import textwrap

    from tsds_pipeline.cli.terminal import width

    for line in textwrap.wrap(one_line(text), max(width() - 2, 40)):
        say(f"  {line}", **style)
