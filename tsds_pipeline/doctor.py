"""Looks at an installation and at a project for what is wrong, or soon will be, and says what to do about it.

It changes nothing: no file is written, nothing is downloaded. What is stale or failed is said by ``status``.
"""

import fcntl
import json
import os
import shutil
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tsds_pipeline import logs
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.project import AUTOMATION, Project
from tsds_pipeline.sizes import shown_size, size_of

OK, WARNING, PROBLEM = "ok", "warning", "problem"
_DISTRIBUTION = "tsds-pipeline"
_FAR_OFF = 120.0
"""Seconds that clocks of machines which share files may differ by."""
_LEAST_FREE = 2**27
_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    state: str
    """OK, WARNING or PROBLEM."""
    said: str
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.said}: {self.remedy}" if self.remedy else self.said


_Check = Callable[..., Iterator[tuple[str, str, str | None]]]


def examine(root: Path | str | None = None) -> Iterator[Finding]:
    """The findings on the installation, and on the project in ``root`` (as in ``Project.load``), one by one."""
    for check in (_python, _packages, _environment, _faiss):
        yield from _found(check)
    try:
        project = Project.load(root)
    except TsdsError as error:
        yield Finding("project", PROBLEM, str(error))
        return
    yield Finding("project", OK, str(project.root))
    for check in (
        _torch,
        _models,
        _inputs,
        _alerts,
        _permissions,
        _memory,
        _disk,
        _clock,
        _file_locks,
        _locks,
    ):
        yield from _found(check, project)
    for check in (_object_storage, _dagster, _leftovers, _damage):
        yield from _found(check, project)


def _found(check: _Check, *arguments: Project) -> Iterator[Finding]:
    name = check.__name__.strip("_").replace("_", " ")
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


def _python() -> Iterator[tuple[str, str, str | None]]:
    from packaging.specifiers import SpecifierSet

    version = ".".join(map(str, sys.version_info[:3]))
    wanted = metadata.metadata(_DISTRIBUTION).get("Requires-Python") or ""
    if version in SpecifierSet(wanted):
        yield OK, f"{version} ({sys.executable})", None
    else:
        yield PROBLEM, f"{version}, and {wanted} is needed", "make a new environment with such a Python"


def _packages() -> Iterator[tuple[str, str, str | None]]:
    from packaging.requirements import Requirement

    required = [Requirement(text) for text in metadata.requires(_DISTRIBUTION) or ()]
    required = [one for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in required:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is not installed")
        else:
            if not one.specifier.contains(version, prereleases=True):
                wrong.append(f"{one.name} is {version}, and {one.specifier} is needed")
    if wrong:
        yield PROBLEM, "; ".join(wrong), f"pip install --upgrade {_DISTRIBUTION}"
    else:
        yield (
            OK,
            f"tsds {metadata.version(_DISTRIBUTION)} and the {len(required)} packages that it needs",
            None,
        )


def _environment() -> Iterator[tuple[str, str, str | None]]:
    known = {logs.VARIABLE: ("", "json", "text"), AUTOMATION: ("", "on", "off")}
    for name, values in known.items():
        if (given := os.environ.get(name, "")).strip().lower() not in values:
            allowed = " or ".join(filter(None, values))
            yield WARNING, f"{name}={given} means nothing", f"set it to {allowed}, or unset it"
    named = {name: os.environ[name] for name in ("TSDS_PROJECT", "DAGSTER_HOME") if os.environ.get(name)}
    if "DAGSTER_HOME" in named and "TSDS_PROJECT" not in named:
        yield (
            WARNING,
            f"DAGSTER_HOME={named['DAGSTER_HOME']} is not used, as TSDS_PROJECT does not say whose instance it is",
            "set both, or neither",
        )
    else:
        yield OK, ", ".join(f"{name}={value}" for name, value in named.items()) or "nothing is set", None


def _faiss() -> Iterator[tuple[str, str, str | None]]:
    import faiss

    from tsds_pipeline.core.machine import cores

    threads, there = faiss.omp_get_max_threads(), cores()
    if threads > there:
        yield (
            WARNING,
            f"{threads} threads for {there} cores, which wait for each other",
            f"set OMP_NUM_THREADS={there}",
        )
    else:
        yield OK, f"{faiss.__version__}, {threads} of {there} cores", None


def _torch(project: Project) -> Iterator[tuple[str, str, str | None]]:
    encoders = (project.settings.encoder, *project.settings.encoders.values())
    encoding = [one for one in encoders if one.kind != "precomputed"]
    if not encoding:
        yield OK, "not needed: the records bring their vectors", None
        return
    import torch

    from tsds_pipeline.encoders.loading import found_device

    devices = ", ".join(dict.fromkeys(found_device(one.device) for one in encoding))
    yield OK, f"{torch.__version__}, encodes on {devices}", None


def _models(project: Project) -> Iterator[tuple[str, str, str | None]]:
    from tsds_pipeline.encoders import both_fingerprints

    tables = {"[encoder]": project.settings.encoder}
    tables |= {f"[encoders.{name}]": one for name, one in project.settings.encoders.items()}
    for table, encoder in tables.items():
        if encoder.kind == "precomputed":
            yield OK, f"{table} needs none", None
            continue
        try:
            both_fingerprints(encoder, project.root)
        except TsdsError as error:
            # The hub was not asked; whether it may be is the user's choice.
            of_hub = "cannot be found" in str(error) and os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0")
            remedy = "the next refresh downloads it, if the hub can be reached" if of_hub else None
            yield WARNING if of_hub else PROBLEM, f"{table} {error}", remedy
        else:
            yield OK, f'{table} "{encoder.model}" is on this machine', None


def _inputs(project: Project) -> Iterator[tuple[str, str, str | None]]:
    from tsds_pipeline.discovery import scan

    found = scan(project)
    problems, hints = found.all_problems(), found.hints
    yield from ((PROBLEM, text, None) for text in problems)
    yield from ((WARNING, text, None) for text in hints)
    if not (problems or hints):
        yield OK, f"{len(found.sources)} sources and {len(found.tasks)} tasks can be read", None


def _alerts(project: Project) -> Iterator[tuple[str, str, str | None]]:
    from tsds_pipeline.alerts import check_destination, destination

    check_destination(project.settings.alerts)
    where = destination(project.settings.alerts)
    yield OK, f"go to {where} (`tsds alerts --test` tries it)" if where else "go to the log alone", None


def _permissions(project: Project) -> Iterator[tuple[str, str, str | None]]:
    remedy = f"give it to the user that runs tsds (here {os.geteuid()})"
    wrong = []
    for folder in (project.storage, project.exports, project.reports, project.dagster_home):
        if not folder.exists():
            if not os.access(folder.parent, os.W_OK | os.X_OK):
                wrong.append(f"{folder} cannot be made")
        elif not folder.is_dir():
            wrong.append(f"{folder} is no folder")
        else:
            inside = (path for path, _, _ in os.walk(folder))
            wrong += [
                f"{path} cannot be written" for path in inside if not os.access(path, os.W_OK | os.X_OK)
            ]
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        yield PROBLEM, "; ".join(wrong[:_NAMED]) + more, remedy
    else:
        yield OK, "what the pipeline writes to can be written", None


def _memory(project: Project) -> Iterator[tuple[str, str, str | None]]:
    from tsds_pipeline.core.machine import available_memory
    from tsds_pipeline.metrics import costs

    free = available_memory()
    peaks = {one.asset: one.peak_memory for one in costs(project.storage) if one.peak_memory}
    if not peaks:
        yield OK, f"{shown_size(free)} free; how much is needed is known after the first refresh", None
        return
    asset, peak = max(peaks.items(), key=lambda item: item[1])
    said = f"{shown_size(free)} free; {asset} took {shown_size(peak)}"
    if free < peak:
        yield WARNING, said, "end what else runs here, or give the machine more"
    else:
        yield OK, said, None


def _disk(project: Project) -> Iterator[tuple[str, str, str | None]]:
    inputs = sum(size_of(project.root / name) for name in ("sources", "tasks"))
    # A result is written beside the one that it replaces; a first refresh stores what it reads, and vectors.
    stored = [size_of(path) for path in (project.storage, project.exports) if path.is_dir()]
    needed = max(sum(stored) or 3 * inputs, _LEAST_FREE)
    for folder in dict.fromkeys([project.root, Path(os.environ.get("TMPDIR") or "/tmp")]):
        usage, statistics = shutil.disk_usage(folder), os.statvfs(folder)
        said = f"{shown_size(usage.free)} free in {folder}"
        remedy = "make room: `tsds gc --dry-run` says what nothing needs, `tsds status` what takes how much"
        if statistics.f_files and statistics.f_favail < 1000:
            yield PROBLEM, f"{statistics.f_favail} more files can be made in {folder}", remedy
        elif usage.free < _LEAST_FREE:
            yield PROBLEM, said, remedy
        elif usage.free < needed:
            yield WARNING, f"{said}, and making everything again may take {shown_size(needed)}", remedy
        else:
            yield OK, said, None


def _clock(project: Project) -> Iterator[tuple[str, str, str | None]]:
    now = time.time()
    built = Path(__file__).stat().st_mtime
    newest = max(((path.stat().st_mtime, path) for path in _tables(project)), default=(0.0, None))
    if newest[0] > now + _FAR_OFF:
        yield (
            PROBLEM,
            f"{newest[1]} is {(newest[0] - now) / 60:.0f} minutes from the future",
            "set the clock (of this machine, or of that which wrote it) by NTP",
        )
    elif now < built - 86400:
        yield PROBLEM, f"{time.ctime(now)} is before tsds was installed", "set the clock by NTP"
    else:
        yield (
            OK,
            f"{time.strftime('%Y-%m-%d %H:%M:%S %Z', time.localtime(now))}, no result is from the future",
            None,
        )


def _tables(project: Project) -> Iterator[Path]:
    return project.storage.rglob("*.parquet") if project.storage.is_dir() else iter(())


def _file_locks(project: Project) -> Iterator[tuple[str, str, str | None]]:
    folder = project.storage if project.storage.is_dir() else project.root
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        yield (
            PROBLEM,
            f"the file system of {folder} has no locks ({error.strerror})",
            "keep the project on a local disk or NFS 4: two refreshes at once would spoil each other's results",
        )
    else:
        yield OK, f"the file system of {folder} has them", None
    finally:
        os.close(handle)


def _locks(project: Project) -> Iterator[tuple[str, str, str | None]]:
    from tsds_pipeline.lock import LOCK_FILE, holder_of

    found = False
    for what, folder in (("refresh", project.storage), ("`tsds dev`", project.dagster_home)):
        if (holder := holder_of(folder / LOCK_FILE)) is not None:
            found = True
            who = (
                f"process {holder} ({_command(holder)})"
                if holder
                else "a process that does not say its number"
            )
            yield OK, f"{what}: held by {who}", None
    if not found:
        yield OK, "no refresh and no `tsds dev` is under way", None


def _command(process: str) -> str:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "on another machine, or gone"
    return " ".join(words).strip()[:80]


def _object_storage(project: Project) -> Iterator[tuple[str, str, str | None]]:
    from tsds_pipeline.object_lock import holder_at

    if (url := project.settings.storage.url) is None:
        yield OK, "none: results are in this folder alone", None
    elif (who := holder_at(url.rstrip("/"))) is not None:
        yield OK, f"{url} answers; a refresh is under way there ({who})", None
    else:
        yield OK, f"{url} answers", None


def _dagster(project: Project) -> Iterator[tuple[str, str, str | None]]:
    given = project.given_dagster_home()
    home = given or project.dagster_home
    if given is None and not (home / "dagster.yaml").is_file():
        yield OK, f"no instance yet: the first refresh makes {home}", None
        return
    from tsds_pipeline.orchestration.refresh import daemon_is_alive, project_instance

    try:
        for database in home.rglob("*.db") if given is None else ():
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
                connection.execute("PRAGMA schema_version")
        with project_instance(project) as instance:
            old = [
                type(one).__name__
                for one in (instance.event_log_storage, instance.run_storage, instance.schedule_storage)
                if (versions := one.alembic_version()) and versions[0] != versions[1]
            ]
            alive = daemon_is_alive(instance)
            off = [
                state.instigator_name
                for state in instance.all_instigator_state()
                if state.status.value == "STOPPED"
            ]
            errors = [
                f"{kind}: {beat.errors[0].message.strip()}"
                for kind, beat in instance.get_daemon_heartbeats().items()
                if beat.errors
            ]
    except TsdsError:
        raise
    except Exception as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        remedy = f"move {home} away: only the history of runs is lost"
        yield PROBLEM, f"the instance in {home} cannot be opened ({cause})", remedy
        return
    if old:
        yield (
            PROBLEM,
            f"the database of {home} is of another version of Dagster ({', '.join(old)})",
            f"DAGSTER_HOME={home} dagster instance migrate",
        )
    else:
        yield OK, f"the instance in {home} can be used", None
    if alive:
        yield OK, "a daemon is alive", None
        yield from ((WARNING, f"the daemon says: {text}", "see its log") for text in errors if text)
    elif given is not None:
        yield PROBLEM, "no daemon was heard of for two minutes", "start it: nothing happens by itself"
    else:
        yield OK, "no daemon: nothing happens by itself, until `tsds dev`", None
    if off:
        yield WARNING, f"switched off in the UI: {', '.join(sorted(set(off)))}", "switch it on there"


def _leftovers(project: Project) -> Iterator[tuple[str, str, str | None]]:
    from tsds_pipeline.garbage import left_behind

    found = left_behind([project.storage, project.exports, project.reports])
    if found:
        size = shown_size(sum(one.size for one in found))
        yield (
            WARNING,
            f"{len(found)} files that are damaged or half-written, {size}",
            "`tsds gc` deletes them",
        )
    else:
        yield OK, "none of processes that were killed", None


def _damage(project: Project) -> Iterator[tuple[str, str, str | None]]:
    from tsds_pipeline.damage import find_damage
    from tsds_pipeline.graph import nodes, observe

    try:
        found = list(nodes(observe(project)))
    except TsdsError as error:
        yield WARNING, f"was not looked for ({error})", None
        return
    damage = find_damage(project.storage, found)
    for problem in list(damage.values())[:_NAMED]:
        yield PROBLEM, problem, "`tsds refresh` makes it again"
    if len(damage) > _NAMED:
        yield PROBLEM, f"{len(damage) - _NAMED} more results are damaged", "`tsds refresh` makes them again"
    if not damage:
        yield OK, "every stored result is what was written", None


def as_document(findings: list[Finding]) -> str:
    """The findings as JSON, for programs."""
    checks = [
        {"check": one.check, "state": one.state, "said": one.said, "remedy": one.remedy} for one in findings
    ]
    sound = all(one.state != PROBLEM for one in findings)
    return json.dumps({"ok": sound, "checks": checks}, indent=1, ensure_ascii=False)
