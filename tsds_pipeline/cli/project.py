"""Which project a command works on: -p/--project, before or after the command's name, else TSDS_PROJECT, else here."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tsds_pipeline.cli.terminal import complain
from tsds_pipeline.errors import TsdsError

if TYPE_CHECKING:
    from tsds_pipeline.project import Project


def project_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add -p/--project to ``command``; what it names is for :func:`chosen_project`."""
    return click.option(
        "-p",
        "--project",
        metavar="DIR",
        expose_value=False,
        callback=_remember,
        help="The project folder (default: $TSDS_PROJECT, else the current folder).",
    )(command)


def _remember(ctx: click.Context, _: click.Parameter, folder: str | None) -> None:
    if folder is not None:
        ctx.obj = folder


def chosen_project() -> "Project":
    """The project that the command line names."""
    from tsds_pipeline.project import Project

    return Project.load(click.get_current_context().obj)


def fetched_project() -> "Project":
    """The project that the command line names, with what other machines made; a store that is down is told of."""
    from tsds_pipeline.object_storage import Mirror

    project = chosen_project()
    if (mirror := Mirror.of(project)) is not None:
        try:
            mirror.pull()
        except TsdsError as error:
            complain("warning", f"{error}; this is what was last seen of it")
    return project
