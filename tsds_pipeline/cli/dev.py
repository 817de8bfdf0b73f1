"""`tsds dev`: the Dagster UI on a project, until Ctrl-C."""

import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from tsds_pipeline.cli.project import fetched_project, project_option
from tsds_pipeline.cli.terminal import complain, say
from tsds_pipeline.errors import TsdsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

    from tsds_pipeline.project import Project

DEFAULT_PORT = 3000
_NOISE = re.compile(
    r" - automation - (Prefetching|Done prefetching) asset records| - dagster - DEBUG - "
    r"|^The above exception was caused by the following exception:$|^\s*$"
)
"""What the evaluator says every few seconds and each run of its steps, at levels that cannot be set here."""
_WRAPPING = "dagster._core.errors.DagsterExecutionStepExecutionError: "
_FOR_PEOPLE = "tsds_pipeline.errors."
_STACK, _STEP_FAILED = "Stack Trace:", " - STEP_FAILURE - "
_PATIENCE = 15.0
"""Seconds that Dagster has to end after it was asked to."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="0 takes any that is free.",
)
@click.option(
    "--automation/--no-automation",
    default=True,
    show_default=True,
    help="Whether sensors and schedules run, unless they were switched in the UI.",
)
@project_option
@click.pass_context
def dev(ctx: click.Context, host: str, port: int, automation: bool) -> None:
    """Open the Dagster UI on the project; Ctrl-C ends it.

    While it is open, a changed file or setting is noticed within seconds, and what depends on it is made again.
    The UI has no login. It listens on this machine alone unless --host says otherwise.

    \b
    Example:
        tsds dev --port 3001
    """
    from tsds_pipeline.lock import dev_lock

    project = fetched_project()
    if (home := project.given_dagster_home()) is not None:
        raise TsdsError(
            f"DAGSTER_HOME={home} runs {project.root}, and `tsds dev` would do everything a second time: "
            "open the UI of that instance, or unset DAGSTER_HOME where nothing uses it"
        )
    port = _free_port(host, port)
    if not is_loopback(host):
        complain(
            "warning", f"the UI has no login: whoever reaches {host}:{port} can run and delete everything"
        )
    lock = ctx.with_resource(dev_lock(project))
    _prepare(project)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with _dagster(project, host, port, automation, lock) as process:
        say(f"starting the Dagster UI of {project.root}")
        if _answers(url, process):
            say(f"ready: {url}  (Ctrl-C ends it)")
        status = process.wait()
    complain("error", f"Dagster ended by itself (exit status {status}); what it wrote is above")
    ctx.exit(1)


def _free_port(host: str, port: int) -> int:
    """``port``, or a free one for 0; TsdsError where it cannot be listened on."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return probe.getsockname()[1]
    except OSError as error:
        raise TsdsError(
            f"cannot listen on {host}:{port}: {error.strerror}: name another --port or --host"
        ) from None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _prepare(project: "Project") -> None:
    """End what an earlier `tsds dev` left under way when it ended, and tell of the project as it is now."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tsds_pipeline.graph import observe
        from tsds_pipeline.lock import is_refreshing
        from tsds_pipeline.orchestration.inputs import register
        from tsds_pipeline.orchestration.instances import end_dead_runs, project_instance, tick_again

        with project_instance(project) as instance:
            tick_again(instance)
            if not is_refreshing(project):
                end_dead_runs(instance, all_of_them=True)
                register(instance, observe(project))


@contextmanager
def _dagster(
    project: "Project", host: str, port: int, automation: bool, lock: "TextIO"
) -> "Iterator[subprocess.Popen]":
    """Dagster's processes, in a group of their own that ends with the block."""
    from tsds_pipeline.lock import hold
    from tsds_pipeline.project import AUTOMATION

    environment = os.environ | {
        "TSDS_PROJECT": str(project.root),
        "DAGSTER_HOME": str(project.dagster_home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        # A look may hash and upload what is new, many GB.
        "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "3600",
        AUTOMATION: "on" if automation else "off",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "dagster", "dev", "-m", "tsds_pipeline.definitions"]
    command += ["--host", host, "--port", str(port), "--log-level", "warning"]
    command += ["--code-server-log-level", "warning"]
    # Each ends it as Ctrl-C does, also where a shell started it in the background, with SIGINT ignored.
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _interrupt) for number in endings}
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=project.root,
        start_new_session=True,
        stderr=subprocess.PIPE,
        # It outlives this process where that is killed, and keeps the lock then.
        pass_fds=(lock.fileno(),),
        encoding="utf-8",
        errors="replace",
    )
    hold(lock, process.pid)
    threading.Thread(target=_pass_on, args=(process.stderr,), daemon=True).start()
    try:
        yield process
    except KeyboardInterrupt:
        say("ending ...")
        raise click.exceptions.Exit(0) from None
    finally:
        _end(process)
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(lines: "Iterable[str]") -> None:
    for line in without_noise(lines):
        sys.stderr.write(line)
        sys.stderr.flush()


def without_noise(lines: "Iterable[str]") -> "Iterator[str]":
    """``lines`` of Dagster's log but for noise, and for the stacks of errors that are about somebody's input.

    Such an error is said once a failure: Dagster repeats it with that of the run. Its stack is in the UI.
    """
    before = told = ""
    in_stack = False
    for line in lines:
        in_stack = in_stack and (line.startswith("  ") or not line.strip())
        if in_stack or _NOISE.search(line):
            continue
        if line.startswith(_STACK) and before.startswith((_WRAPPING, _FOR_PEOPLE)):
            in_stack = True
            continue
        before = line
        if line.startswith(_WRAPPING) or line == told:
            continue
        if line.startswith(_FOR_PEOPLE):
            told = line
        elif _STEP_FAILED in line:
            told = ""
        yield line


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end(process: subprocess.Popen) -> None:
    """First politely, so that Dagster ends its own children; whatever is left of the group after that, at once."""
    with suppress(subprocess.TimeoutExpired):
        process.send_signal(signal.SIGINT)
        process.wait(_PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answers(url: str, process: subprocess.Popen) -> bool:
    """Wait until the web server answers; False when Dagster has ended instead."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False
