"""The services of infra/compose.yaml as processes of this machine: their commands, variables and health checks.

What differs from the containers is where things are: ports, and the folders of the project and of the instance.
"""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.dev_server import DevServer
from tests.infra.postgres import Cluster, cluster, free_port
from tests.infra.topology import INFRA, METRICS, OURS, services

REPOSITORY = INFRA.parent
PATIENCE = 240


@dataclass
class Stack:
    """The services that run. ``environment`` is that of the container "code": of `tsds refresh`, backup.sh, psql."""

    root: Path
    postgres: Cluster
    ports: Mapping[str, int]
    environment: dict[str, str]
    logs: Path
    services: Mapping[str, Any]
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def web(self) -> DevServer:
        """Questions to the web server."""
        return DevServer(self.root, f"http://127.0.0.1:{self.ports['3000']}", 0)

    def here(self, command: Sequence[str]) -> list[str]:
        """``command`` of a container as it is on this machine."""
        changed = [word.replace("0.0.0.0", "127.0.0.1") for word in command]
        for port, mine in self.ports.items():
            changed = [
                str(mine) if word == port else word.replace(f":{port}", f":{mine}") for word in changed
            ]
        return changed

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess:
        """``command`` as typed into a shell of the container "code"."""
        return subprocess.run(
            ["bash", "-c", command],
            env=self.environment | variables,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    def start(self, name: str) -> None:
        """Start the service ``name`` and wait until its health check passes."""
        with (self.logs / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                self.here(self.services[name]["command"]),
                env=self.environment,
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + PATIENCE
        while not self.is_healthy(name):
            assert self.processes[name].poll() is None, self.log(name)
            assert time.monotonic() < until, self.log(name)
            time.sleep(0.5)

    def is_healthy(self, name: str) -> bool:
        """Whether the health check of the service passes."""
        check = self.here(self.services[name]["healthcheck"]["test"][1:])
        return not subprocess.run(check, env=self.environment, cwd=REPOSITORY, capture_output=True).returncode

    def send(self, name: str, number: int) -> None:
        """Send a signal to all processes of the service, those of runs among them."""
        os.killpg(self.processes[name].pid, number)

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        """End the service; with SIGKILL all of its processes at once, as when its machine dies."""
        process = self.processes.pop(name)
        with suppress(subprocess.TimeoutExpired):
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log(self, name: str) -> str:
        """The end of what the service said."""
        return (self.logs / f"{name}.log").read_text()[-4000:]


def environment_of(
    service: Mapping[str, Any], root: Path, home: Path, ports: Mapping[str, int]
) -> dict[str, str]:
    """The variables of a container, where it runs on this machine."""
    places = {
        "DAGSTER_HOME": str(home),
        "TSDS_PROJECT": str(root),
        "TSDS_CODE_HOST": "127.0.0.1",
        "TSDS_CODE_PORT": str(ports["4000"]),
    }
    given = service["environment"]
    assert places.keys() <= given.keys()
    bin_folder = Path(sys.executable).parent
    path = {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"}
    return dict(os.environ) | path | given | places


@contextmanager
def proxy(running: Stack, folder: Path, login: str, password: str) -> Iterator[str]:
    """The service "proxy" before the web server; its address, and its authority's certificate is in ``folder``."""
    caddy = shutil.which("caddy", path=running.environment["PATH"])
    assert caddy, "`make test-infra` installs Caddy"
    hashed = subprocess.run(
        [caddy, "hash-password", "--plaintext", password], capture_output=True, text=True, check=True
    ).stdout.strip()
    http, https, health = free_port(), free_port(), free_port()
    given = running.services["proxy"]["environment"]
    upstream = {
        name: running.here([given[name]])[0].replace(service, "127.0.0.1")
        for name, service in (("TSDS_WEB", "web"), ("TSDS_METRICS", METRICS))
    }
    variables = {
        "TSDS_DOMAIN": "localhost",
        "TSDS_LOGIN": login,
        "TSDS_LOGIN_HASH": hashed,
        **upstream,
    }
    assert variables.keys() == given.keys()
    elsewhere = {"TSDS_HTTP_PORT": http, "TSDS_HTTPS_PORT": https, "TSDS_HEALTH_PORT": health}
    places = {"XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder, "HOME": folder}
    command = [word.replace("/etc/caddy", str(INFRA)) for word in running.services["proxy"]["command"]]
    with (running.logs / "proxy.log").open("a") as log:
        process = subprocess.Popen(
            [caddy, *command[1:]],
            env=running.environment
            | variables
            | {name: str(value) for name, value in (elsewhere | places).items()},
            stdout=log,
            stderr=log,
        )
    try:
        certificate = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        until = time.monotonic() + PATIENCE
        while not (certificate.exists() and _listens(health) and _greets(https, certificate)):
            assert process.poll() is None, running.log("proxy")
            assert time.monotonic() < until, running.log("proxy")
            time.sleep(0.2)
        yield f"https://localhost:{https}"
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _greets(port: int, authority: Path) -> bool:
    """Whether there is a certificate of ``authority`` already, which takes longer than to listen."""
    trusting = ssl.create_default_context(cafile=authority)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            trusting.wrap_socket(plain, server_hostname="localhost"),
        ):
            return True
    except OSError:
        return False


@contextmanager
def stack(root: Path, folder: Path) -> Iterator[Stack]:
    """PostgreSQL and all of ours, in the order of compose.yaml, on the project in ``root``."""
    ports = {port: free_port() for port in ("4000", "3000", "9464")}
    home = folder / "dagster"
    home.mkdir()
    shutil.copy(INFRA / "dagster.yaml", home)
    with cluster() as postgres, ExitStack() as ending:
        found = services(**postgres.environment)
        environment = environment_of(found["code"], root, home, ports)
        running = Stack(root, postgres, ports, environment, folder, found)
        for name in OURS:
            ending.callback(lambda name=name: name in running.processes and running.end(name))
            running.start(name)
        yield running
