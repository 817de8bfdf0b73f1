"""Looks at an installation and at a project for what is wrong, or soon will be, and says what to do about it.

It changes nothing: no file is written, nothing is downloaded. What is stale is said by ``status``.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tsds_pipeline.doctor.dagster_instance import dagster
from tsds_pipeline.doctor.finding import OK, PROBLEM, Finding, Found
from tsds_pipeline.doctor.installation import environment, faiss, packages, python
from tsds_pipeline.doctor.machine import clock, disk, file_locks, memory, permissions
from tsds_pipeline.doctor.project import (
    alerts,
    damage,
    inputs,
    leftovers,
    locks,
    models,
    object_storage,
    results,
    torch,
)
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.project import Project

_OF_INSTALLATION = (python, packages, environment, faiss)
_OF_PROJECT = (
    torch,
    models,
    inputs,
    results,
    alerts,
    permissions,
    memory,
    disk,
    clock,
    file_locks,
    locks,
    object_storage,
    dagster,
    leftovers,
    damage,
)


def examine(root: Path | str | None = None) -> Iterator[Finding]:
    """The findings on the installation, and on the project in ``root`` (as in ``Project.load``), one by one."""
    for check in _OF_INSTALLATION:
        yield from _found(check)
    try:
        project = Project.load(root)
    except TsdsError as error:
        yield Finding("project", PROBLEM, str(error))
        return
    yield Finding("project", OK, str(project.root))
    for check in _OF_PROJECT:
        yield from _found(check, project)


def _found(check: Callable[..., Found], *arguments: Project) -> Iterator[Finding]:
    name = check.__name__.replace("_", " ")
    try:
        with _changing_nothing():
            for state, said, remedy in check(*arguments):
                yield Finding(name, state, said, remedy)
    except TsdsError as error:
        yield Finding(name, PROBLEM, str(error))
    except Exception as error:
        yield Finding(name, PROBLEM, f"could not be looked at ({type(error).__name__}: {error})")


@contextmanager
def _changing_nothing() -> Iterator[None]:
    """Inside, no hashes are noted, and no model is downloaded."""
    from tsds_pipeline.file_hashes import not_noted
    from tsds_pipeline.hub import offline

    with not_noted(), offline(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def as_document(findings: list[Finding]) -> str:
    """The findings as JSON, for programs."""
    checks = [
        {"check": one.check, "state": one.state, "said": one.said, "remedy": one.remedy} for one in findings
    ]
    sound = all(one.state != PROBLEM for one in findings)
    return json.dumps({"ok": sound, "checks": checks}, indent=1, ensure_ascii=False)
