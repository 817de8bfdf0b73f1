"""What a project needs and holds: models, inputs, locks, servers, what was left behind, damage."""

import os
from pathlib import Path

from tsds_pipeline.doctor.finding import NAMED, OK, PROBLEM, WARNING, Found
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.project import Project
from tsds_pipeline.sizes import shown_size


def torch(project: Project) -> Found:
    encoders = (project.settings.encoder, *project.settings.encoders.values())
    encoding = [one for one in encoders if one.kind != "precomputed"]
    if not encoding:
        yield OK, "not needed: the records bring their vectors", None
        return
    import torch

    from tsds_pipeline.encoders.loading import found_device

    devices = ", ".join(dict.fromkeys(found_device(one.device) for one in encoding))
    yield OK, f"{torch.__version__}, encodes on {devices}", None


def models(project: Project) -> Found:
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


def inputs(project: Project) -> Found:
    from tsds_pipeline.discovery import scan

    found = scan(project)
    problems, hints = found.all_problems(), found.hints
    yield from ((PROBLEM, text, None) for text in problems)
    yield from ((WARNING, text, None) for text in hints)
    if not (problems or hints):
        yield OK, f"the files of {len(found.sources)} sources and {len(found.tasks)} tasks are there", None


def results(project: Project) -> Found:
    from tsds_pipeline.graph import describe, observe
    from tsds_pipeline.status import FAILED, FRESH, status

    try:
        found = status(observe(project))
    except TsdsError as error:
        yield WARNING, f"were not looked at ({error})", None
        return
    failed = [one for one in found if one.state == FAILED]
    for one in failed[:NAMED]:
        yield PROBLEM, f"{describe(one.node)} failed: {one.reasons[0]}", None
    if len(failed) > NAMED:
        yield PROBLEM, f"{len(failed) - NAMED} more failed", "`tsds status` lists them"
    if not failed:
        due = sum(one.state != FRESH for one in found)
        yield OK, f"none failed; {due} of {len(found)} are stale or missing", None


def alerts(project: Project) -> Found:
    from tsds_pipeline.alerts import check_destination, destination

    check_destination(project.settings.alerts)
    where = destination(project.settings.alerts)
    yield OK, f"go to {where} (`tsds alerts --test` tries it)" if where else "go to the log alone", None


def locks(project: Project) -> Found:
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


def object_storage(project: Project) -> Found:
    from tsds_pipeline.object_lock import holder_at

    if (url := project.settings.storage.url) is None:
        yield OK, "none: results are in this folder alone", None
    elif (who := holder_at(url.rstrip("/"))) is not None:
        yield OK, f"{url} answers; a refresh is under way there ({who})", None
    else:
        yield OK, f"{url} answers", None


def leftovers(project: Project) -> Found:
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


def damage(project: Project) -> Found:
    from tsds_pipeline.damage import find_damage
    from tsds_pipeline.graph import nodes, observe
    from tsds_pipeline.stages.history import damaged_records

    try:
        found = list(nodes(observe(project)))
    except TsdsError as error:
        yield WARNING, f"was not looked for ({error})", None
        return
    damage = find_damage(project.storage, found)
    for problem in list(damage.values())[:NAMED]:
        yield PROBLEM, problem, "`tsds refresh` makes it again"
    if len(damage) > NAMED:
        yield PROBLEM, f"{len(damage) - NAMED} more results are damaged", "`tsds refresh` makes them again"
    records = damaged_records(project.storage)
    for path in records[:NAMED]:
        yield (
            PROBLEM,
            f"{path} cannot be read",
            "delete it: only that version is lost to the history of its task",
        )
    if not (damage or records):
        yield OK, "every stored result is what was written", None
