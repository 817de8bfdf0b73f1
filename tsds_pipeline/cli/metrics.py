"""`tsds metrics`: figures of the project for Prometheus."""

import sys
from pathlib import Path

import click

from tsds_pipeline.cli.dev import is_loopback
from tsds_pipeline.cli.project import fetched_project, project_option
from tsds_pipeline.cli.terminal import check_output, complain, say, tell
from tsds_pipeline.errors import TsdsError

DEFAULT_PORT = 9464


@click.command()
@click.option("--serve", is_flag=False, flag_value="", metavar="[HOST:PORT]", help="Answer GET /metrics.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write them to this file.")
@project_option
def metrics(serve: str | None, output: Path | None) -> None:
    """Print the project's figures in the text format of Prometheus.

    They are counted from what is stored, whoever made it: partitions by state, records, candidates, examples,
    failed checks, when each sample was made, seconds, memory and bytes. --output replaces a file at once, as the
    textfile collector of node_exporter wants it; --serve looks anew for each request until Ctrl-C, and listens on
    this machine alone (127.0.0.1:9464) unless told otherwise.

    \b
    Examples:
        tsds metrics
        tsds metrics --output /var/lib/node_exporter/tsds.prom
        tsds metrics --serve 127.0.0.1:9464
    """
    from prometheus_client import generate_latest, write_to_textfile

    from tsds_pipeline.metrics import registry

    if serve is not None and output is not None:
        raise click.UsageError("--serve and --output exclude each other: leave out one")
    if output is not None:
        check_output("--output", output)
    unreadable = None
    try:
        fetched_project()
    except TsdsError as error:
        if serve is None and output is None:
            raise
        # Whoever watches has to hear of it: tsds_project_readable is 0.
        unreadable = error
    found = registry(click.get_current_context().obj)
    if serve is not None:
        if unreadable:
            complain("warning", str(unreadable))
        _serve(serve, found)
    elif output is not None:
        write_to_textfile(str(output.resolve()), found)
        if unreadable:
            raise unreadable
    else:
        sys.stdout.write(generate_latest(found).decode())


def _serve(where: str, found: object) -> None:
    from prometheus_client import start_http_server

    host, port = _address(where)
    if not is_loopback(host):
        complain(
            "warning", f"whoever reaches {host}:{port} can read the names of sources and tasks, and figures"
        )
    try:
        server, thread = start_http_server(port, host, found)
    except OSError as error:
        raise TsdsError(f"cannot listen on {host}:{port}: {error.strerror}: name another address") from None
    tell(
        f"ready: http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics  (Ctrl-C ends it)"
    )
    sys.stdout.flush()
    try:
        while thread.is_alive():
            thread.join(0.5)  # a signal may go to another thread, which wakes this one only now
    except KeyboardInterrupt:
        say("ending ...")
    finally:
        server.shutdown()


def _address(where: str) -> tuple[str, int]:
    """("127.0.0.1", 9464) of "127.0.0.1:9464", of ":9464" and of nothing."""
    host, _, port = where.rpartition(":")
    if not where:
        return "127.0.0.1", DEFAULT_PORT
    if not port.isdecimal() or int(port) > 65535:
        raise click.UsageError(f'--serve "{where}": write HOST:PORT, as in 127.0.0.1:{DEFAULT_PORT}')
    return host.strip("[]") or "127.0.0.1", int(port)
