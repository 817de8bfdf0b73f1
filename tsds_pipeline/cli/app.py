"""The command group: options of all commands, and how whatever goes wrong is said in one line.

Exit status: 0 done, 1 failed, 2 not understood, 130 interrupted.
"""

import os
import sys
import traceback
from importlib import metadata
from typing import Any, NoReturn

import click

from tsds_pipeline.cli.alerts import alerts
from tsds_pipeline.cli.backfill import backfill
from tsds_pipeline.cli.calibrate import calibrate
from tsds_pipeline.cli.compare import compare
from tsds_pipeline.cli.demo import demo
from tsds_pipeline.cli.dev import dev
from tsds_pipeline.cli.doctor import doctor
from tsds_pipeline.cli.gc import gc
from tsds_pipeline.cli.init import init
from tsds_pipeline.cli.metrics import metrics
from tsds_pipeline.cli.project import project_option
from tsds_pipeline.cli.redraw import redraw
from tsds_pipeline.cli.refresh import refresh
from tsds_pipeline.cli.select import select
from tsds_pipeline.cli.show import show
from tsds_pipeline.cli.sql import sql
from tsds_pipeline.cli.status import status
from tsds_pipeline.cli.terminal import complain, plain_streams
from tsds_pipeline.errors import TsdsError, chain
from tsds_pipeline.logs import is_json, use_json_if_asked

INTERRUPTED = (
    "interrupted; nothing that was complete is lost, and the same command goes on where this one stopped"
)


class Commands(click.Group):
    """A group that says every error as one line, ``error: ...``, and never shows a traceback unasked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer meets them."""
        return list(self.commands)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        plain_streams()
        use_json_if_asked()
        try:
            status = super().main(*args, **{**extra, "standalone_mode": False})
        except click.UsageError as error:
            where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
            _fail(f"{error.format_message().rstrip('.')}{where}", error.exit_code)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _fail(INTERRUPTED, 130)
        except Exception as error:
            # What went wrong while Ctrl-C was ending it is no news.
            if any(isinstance(one, KeyboardInterrupt) for one in chain(error)):
                _fail(INTERRUPTED, 130)
            _fail(_said(error))
        sys.exit(status if isinstance(status, int) else 0)


def _said(error: Exception) -> str:
    if isinstance(error, TsdsError):
        return str(error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}{error.strerror or error}"
    return f"{type(error).__name__}: {error} (this is a defect of tsds; TSDS_DEBUG=1 shows where it happened)"


def _fail(message: str, status: int = 1) -> NoReturn:
    trace = traceback.format_exc() if os.environ.get("TSDS_DEBUG") and status == 1 else None
    if trace and not is_json():
        click.echo(trace, err=True, nl=False)
    complain("error", message, exception=trace)
    sys.exit(status)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    epilog="Start with `tsds demo`, or with `tsds init DIR` for your own data.",
)
@project_option
@click.version_option(metadata.version("tsds-pipeline"), prog_name="tsds", message="%(prog)s %(version)s")
@click.pass_context
def tsds(ctx: click.Context) -> None:
    """Select training examples whose distribution follows a target task's.

    A project folder holds candidates in sources/ and each task's example queries in tasks/TASK/query.jsonl.
    `tsds refresh` computes what changed; the selected examples are in exports/TASK/.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    name = ctx.invoked_subcommand
    if name is None:
        click.echo(ctx.get_help())
    elif ctx.obj is not None and all(one.name != "project" for one in tsds.commands[name].params):
        raise click.UsageError(f"`tsds {name}` is about no project that there is: leave out -p/--project")


for command in (
    demo,
    init,
    refresh,
    status,
    show,
    compare,
    calibrate,
    sql,
    redraw,
    backfill,
    gc,
    doctor,
    metrics,
    alerts,
    dev,
    select,
):
    tsds.add_command(command)
