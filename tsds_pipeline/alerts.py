"""What somebody has to hear of: what is wrong with a project, and how that is delivered.

When it is told, and that it is told once, is in ``orchestration.alerts``.
"""

import http.client
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, describe
from tsds_pipeline.settings import AlertSettings
from tsds_pipeline.settings_types import valid_webhook
from tsds_pipeline.status import FAILED, NodeStatus
from tsds_pipeline.wording import shortened

WEBHOOK = "TSDS_ALERT_WEBHOOK"
"""Environment variable: an address that goes before that of tsds.toml."""
_PATIENCE = 15
"""Seconds that a webhook or command has."""
_NAMED = 20
_LONGEST = 500


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, and stays one problem however often it is tried again."""

    text: str
    node: str | None = None
    """The result that it is about: it is over when that is made, not while it is tried."""


def problems_of(observed: Observed, found: Sequence[NodeStatus]) -> dict[str, Problem]:
    """What is wrong with the results and files of a project, by a name that stays the same.

    What a killed process left is none while it is tried again by itself.
    """
    problems = {f"file {text}": Problem(text) for text in observed.problems}
    for one in found:
        name = describe(one.node)
        if one.state == FAILED:
            problems[one.node] = Problem(f"{name}: {one.reasons[0]}", one.node)
        elif one.due and one.tried:
            problems[one.node] = Problem(f"{name}: its process was killed each time", one.node)
        for check, text in one.failed_checks.items():
            problems[f"{one.node} {check}"] = Problem(f"{name}: check {check}: {text}", one.node)
    return problems


def message(project: str, new: Sequence[str], over: Sequence[str]) -> dict[str, Any]:
    """What is sent: ``text`` for people, and the same in parts."""
    counts = [f"{len(new)} new {'problem' if len(new) == 1 else 'problems'}"] if new else []
    counts += [f"{len(over)} over"] if over else []
    lines = [*new, *(f"over: {text}" for text in over)]
    named = [f"* {shortened(line, _LONGEST)}" for line in lines[:_NAMED]]
    more = len(lines) - len(named)
    named += [f"* and {more} more: `tsds status` names them"] if more else []
    text = "\n".join([f"tsds, {project}: {', '.join(counts)}", *named])
    return {"text": text, "project": project, "problems": [*new], "over": [*over]}


def destination(settings: AlertSettings) -> str | None:
    """Where alerts go, in words without a secret; None where they only go to the log."""
    if os.environ.get(WEBHOOK, "").strip():
        return f"the webhook in {WEBHOOK}"
    if settings.webhook is not None:
        return "the webhook in [alerts]"
    # Arguments may hold a secret too.
    return f"the command in [alerts] ({settings.command[0]})" if settings.command is not None else None


def check_destination(settings: AlertSettings) -> None:
    """TsdsError where alerts cannot even be sent; nothing is sent."""
    if address := os.environ.get(WEBHOOK, "").strip():
        try:
            valid_webhook(address)
        except ValueError as error:
            raise TsdsError(f"{destination(settings)} is {error}") from None
    elif settings.command is not None and shutil.which(settings.command[0]) is None:
        raise TsdsError(f"{destination(settings)} cannot be run: there is no such program")


def deliver(settings: AlertSettings, said: Mapping[str, Any]) -> None:
    """Send ``said`` to its :func:`destination`, if there is one.

    TsdsError where it did not arrive, in words that tell no secret.
    """
    where = destination(settings)
    if address := os.environ.get(WEBHOOK, "").strip():
        check_destination(settings)
        _post(where, address, said)
    elif settings.webhook is not None:
        _post(where, settings.webhook.get_secret_value(), said)
    elif settings.command is not None:
        _run(where, settings.command, said["text"])


class _Here(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: urllib would follow it without what was to be sent."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(where: str, address: str, said: Mapping[str, Any]) -> None:
    body = json.dumps(said).encode()
    # The address is a secret, and errors of other libraries may quote it: only what is known not to is passed on.
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.build_opener(_Here).open(request, timeout=_PATIENCE):
            return
    except urllib.error.HTTPError as error:
        reason = f"it answers {error.code}"
        error.close()
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or "it cannot be reached"
    except TimeoutError:
        reason = f"no answer within {_PATIENCE} seconds"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = type(error).__name__
    raise TsdsError(f"{where} did not take an alert: {reason}")


def _run(where: str, command: Sequence[str], text: str) -> None:
    try:
        done = subprocess.run(
            command, input=text, text=True, stdout=subprocess.DEVNULL, timeout=_PATIENCE, check=False
        )
    except OSError as error:
        raise TsdsError(f"{where} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise TsdsError(f"{where} did not end within {_PATIENCE} seconds") from None
    if done.returncode:
        raise TsdsError(f"{where} did not take an alert: exit status {done.returncode}")
