"""A PostgreSQL cluster of a test's own, on a free port of this machine."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "a pass:word/with@marks"


@dataclass(frozen=True)
class Cluster:
    """A running server; ``environment`` holds the variables of libpq for its database "tsds"."""

    environment: dict[str, str]

    def ask(self, sql: str, database: str = "tsds") -> list[str]:
        """The lines that psql prints for ``sql``."""
        command = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql]
        env = os.environ | self.environment | {"PGDATABASE": database}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _programs() -> Path:
    """The folder of initdb: Debian keeps it off the path."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[4]))
    assert versions, "PostgreSQL is needed: `make test-infra` installs it on Debian and Ubuntu"
    return versions[-1].parent


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A new cluster with a database "tsds", which ends and is gone after the block."""
    # PostgreSQL does not run as root, and others cannot enter pytest's folders.
    user = {}
    if os.getuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = {"user": "postgres" if "postgres" in names else "nobody"}
    with tempfile.TemporaryDirectory(prefix="tsds-postgres-") as name:
        folder, port = Path(name), free_port()
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if user:
            shutil.chown(data, user["user"])
        initdb = [_programs() / "initdb", "--pgdata", data, "--username", "tsds", "--encoding", "UTF8"]
        initdb += ["--auth", "scram-sha-256", "--pwfile", folder / "password", "--no-sync"]
        subprocess.run(initdb, **user, cwd="/", check=True, stdout=subprocess.DEVNULL)
        options = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
        }
        command = [_programs() / "postgres", "-D", data]
        for option, value in options.items():
            command += ["-c", f"{option}={value}"]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(command, **user, cwd="/", stdout=log, stderr=log)
        try:
            environment = {
                "PGHOST": "127.0.0.1",
                "PGPORT": str(port),
                "PGUSER": "tsds",
                "PGPASSWORD": PASSWORD,
                "PGDATABASE": "tsds",
            }
            ready = [_programs() / "pg_isready", "--quiet", "--timeout", "5"]
            while subprocess.run(ready, env=os.environ | environment, check=False).returncode:
                assert server.poll() is None, (folder / "log").read_text()
            running = Cluster(environment)
            running.ask("CREATE DATABASE tsds", "postgres")
            yield running
        finally:
            server.terminate()
            server.wait(60)
