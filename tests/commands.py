"""The `tsds` command as it is typed, in this process or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from tsds_pipeline.cli import main

TYPED = str(Path(sys.executable).with_name("tsds"))
ENDLESS = "SELECT count(*) AS n FROM range(100000000) a, range(1000000) b WHERE (a.range * b.range) % 7 = 3"
"""SQL for whose end nobody waits."""


def tsds(*arguments: str | Path, **environment: str) -> Result:
    """The command in this process."""
    return CliRunner(env=environment).invoke(main, [str(argument) for argument in arguments])


def imported_by(*arguments: str | Path) -> set[str]:
    """The modules that a process has imported once it did the command."""
    code = (
        "import sys; from tsds_pipeline.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return set(done.stderr.splitlines()[-1].split())


def typed(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    command = [TYPED, *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
    )
