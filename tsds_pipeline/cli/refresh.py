"""`tsds refresh`: bring a project up to date, and say what is going on while it lasts."""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from tsds_pipeline.cli.project import chosen_project, project_option
from tsds_pipeline.cli.terminal import Ticker, complain, cut, tell

if TYPE_CHECKING:
    from tsds_pipeline.orchestration.refresh import Step
    from tsds_pipeline.project import Project

SECONDS_BETWEEN_LINES = 15.0
_LONGEST_REASON = 60


@click.command()
@click.option("--task", metavar="TASK", help="Only what this task needs.")
@click.option("--source", metavar="SOURCE", help="Only what this source needs.")
@project_option
@click.pass_context
def refresh(ctx: click.Context, task: str | None, source: str | None) -> None:
    """Compute whatever is missing or stale, and nothing else.

    What fails stops only what cannot do without it, and is tried again by the next refresh. Exit status 1 when
    something failed, or when a file of the project cannot be used.

    \b
    Examples:
        tsds refresh
        tsds refresh --task bbh
        tsds -p my-project refresh --source alpaca
    """
    if not run_refresh(chosen_project(), task=task, source=source):
        ctx.exit(1)


def run_refresh(project: "Project", prepare: Callable[[], object] | None = None, **wanted: Any) -> bool:
    """Refresh ``project`` and tell about it; whether all went well.

    ``prepare`` is called first, under the project's lock; ``wanted`` as in :class:`Refresh`.
    """
    from tsds_pipeline.lock import refresh_lock

    started = time.monotonic()
    with refresh_lock(project), warnings.catch_warnings():
        # What Dagster warns of concerns us, who wrote the assets, and not whoever runs them.
        warnings.simplefilter("ignore")
        from tsds_pipeline.orchestration.refresh import Refresh
        from tsds_pipeline.status import unseen_fields

        if prepare is not None:
            prepare()
        work = Refresh(project, **wanted)
        problems = work.observed.problems
        for problem in problems:
            complain("problem", problem)
        work.wait_for_runs(tell)
        steps = _follow(work.nodes, work.steps())
    for node, problem in work.damage.items():
        complain("warning", f"{problem}: it was set aside and made again", node=node)
    _tell_failures(steps)
    _tell_warnings(project, steps)
    for name in unseen_fields(work.observed):
        complain(
            "warning",
            f'tsds.toml: [corpus] drop: no record has anything in "{name}", so nothing is left out: correct the '
            "name, or remove it",
        )
    for hint in work.observed.scan.hints:
        complain("hint", hint)
    summary = _summed_up(steps, time.monotonic() - started)
    tell(f"{summary}; problems: {len(problems)}, told at the beginning" if problems else summary)
    return not problems and all(step.outcome in ("made", "fresh") for step in steps)


def _follow(nodes: Sequence[str], steps: Iterator["Step"]) -> list["Step"]:
    """All of ``steps``, one for each of ``nodes``, with a line for each group in which something happened."""
    from tsds_pipeline.graph import describe

    groups: dict[str, list[str]] = {}
    for node in nodes:
        groups.setdefault(_group(node), []).append(node)
    width = max((len(name) for name in groups), default=0)
    ticker, found, spoken = Ticker(), [], time.monotonic()
    try:
        for name, members in groups.items():
            began, done = time.monotonic(), []
            for node in members:
                so_far = f"{name}: {len(done)} of {len(members)}"
                ticker.show(f"{so_far}, {describe(node)}")
                if not ticker.live and time.monotonic() - spoken > SECONDS_BETWEEN_LINES:
                    tell(f"{so_far} ...")
                    spoken = time.monotonic()
                done.append(next(steps))
            ticker.clear()
            if any(step.outcome != "fresh" for step in done):
                tell(f"{name:{width}}  {_line(done, time.monotonic() - began)}")
                spoken = time.monotonic()
            found += done
    finally:
        ticker.clear()
    return found


def _group(node: str) -> str:
    """What a step belongs to: the sources, the pool of an encoder as a whole, one task, or the SQL models."""
    from tsds_pipeline.graph import BY_MIXTURE, BY_SOURCE, OF_POOL, WARMUP, is_model
    from tsds_pipeline.node_names import DEFAULT_ENCODER, split_name

    if is_model(node):
        return "sql"
    encoder, asset, key = split_name(node)
    whose = "" if encoder == DEFAULT_ENCODER else f" ({encoder})"
    if asset in ("kde_densities", *OF_POOL):
        return f"pool{whose}"
    if asset in BY_MIXTURE:
        return f"mixture {key}"
    return f"sources{whose}" if asset in (*BY_SOURCE, WARMUP) else f"task {key.rpartition('|')[2]}"


def _line(steps: Sequence["Step"], seconds: float) -> str:
    reasons = [reason for step in steps if step.outcome == "made" for reason in step.reasons]
    why = next((reason for reason in reasons if reason != "missing"), "")
    counts = Counter(step.outcome for step in steps)
    said = ", ".join(f"{counts[name]} {name}" for name in ("made", "failed", "waiting") if counts[name])
    return f"{said:<22} {_duration(seconds):>8}  {cut(why, _LONGEST_REASON)}".rstrip()


def _tell_failures(steps: Sequence["Step"]) -> None:
    from tsds_pipeline.graph import describe

    for step in steps:
        if step.outcome == "failed":
            complain("failed", f"{describe(step.node)}: {'; '.join(step.reasons)}", node=step.node)
    waiting = Counter(step.reasons[0] for step in steps if step.outcome == "waiting")
    for reason, number in waiting.items():
        complain("waiting", f"{number} more, each {reason}")


def _tell_warnings(project: "Project", steps: Sequence["Step"]) -> None:
    """Checks that failed without stopping anything, bad records, and what the solver found strange about a task."""
    from tsds_pipeline.graph import describe, stored

    for step in steps:
        artifact = stored(project.storage, step.node) if step.outcome == "made" else None
        notes = artifact.header.notes if artifact else {}
        for name, problem in notes.get("failed_checks", {}).items():
            complain("warning", f"{describe(step.node)}: check {name}: {problem}", node=step.node)
        for warning in notes.get("warnings", ()):
            asset, _, key = step.node.partition("|")
            whose = "source" if asset == "candidate_corpus" else "task"
            complain("warning", f"{whose} {key}: {warning}", node=step.node)


def _summed_up(steps: Sequence["Step"], seconds: float) -> str:
    from tsds_pipeline.graph import is_model

    models = [step for step in steps if is_model(step.node)]
    said = f"{_counted(step for step in steps if not is_model(step.node))} in {_duration(seconds)}"
    return f"{said}; SQL models: {_counted(models)}" if models else said


def _counted(steps: Iterable["Step"]) -> str:
    counts = Counter(step.outcome for step in steps)
    rare = [f"{counts[name]} {name}" for name in ("failed", "waiting") if counts[name]]
    return ", ".join([f"{counts['made']} made", f"{counts['fresh']} fresh", *rare])


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60} min {int(seconds) % 60:02} s"
