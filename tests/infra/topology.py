"""What infra/compose.yaml says of its services, with the variables of infra/env.example filled in."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

INFRA = Path(__file__).resolve().parent.parent.parent / "infra"
OURS = ("code", "daemon", "web")
"""The services that run the image and that the pipeline needs."""
METRICS = "metrics"
"""The one that runs it, and that only Prometheus needs."""
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def env_example() -> dict[str, str]:
    """The variables of infra/env.example; those that the user has to fill in are there and empty."""
    lines = (INFRA / "env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """``value`` with each ${NAME}, ${NAME:-default} and ${NAME:?message} in its texts replaced, as Compose does."""
    if isinstance(value, dict):
        return {key: interpolated(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def given(found: re.Match) -> str:
        name, kind, default = found.groups()
        if text := variables.get(name):
            return text
        assert kind != "?", f"{name}: {default}"
        return default or ""

    return _VARIABLE.sub(given, value).replace("$$", "$")


def compose() -> dict[str, Any]:
    """compose.yaml as it stands."""
    return yaml.safe_load((INFRA / "compose.yaml").read_text("utf-8"))


def services(**variables: str) -> dict[str, dict[str, Any]]:
    """The services of compose.yaml, by name."""
    filled = {name: "x" for name, value in env_example().items() if not value}
    return interpolated(compose()["services"], env_example() | filled | variables)


def commands_of(readme: str, language: str) -> list[str]:
    """The commands in the code blocks of this ``language``, one a line, in order."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [line for line in lines if line and not line.startswith("#") and shlex.split(line)]
