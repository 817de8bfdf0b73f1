"""Many tasks and sources: how long a cold refresh takes, a hundred edits at once, backfills, and how the UI answers.

    PYTHONPATH=. python benchmarks/load.py PROJECT [--sources 50] [--tasks 100] [--backfills 20]

PROJECT becomes a project of generated records with vectors of their own, 20 a source and 7 a task; one that is there
is brought up to date. Then `tsds dev` runs on it. All query sets are edited at once: seconds until the sensor has told
Dagster of every one, until every sample is made, and how often each partition was. Then so many backfills are launched
at once, each of one task. Meanwhile the page of runs is asked for every two seconds.
"""

import argparse
import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.dev_server import TASK_ASSETS, DevServer, dev_server
from tests.projects import SETTINGS, append_records, clustered, make_project, records
from tsds_pipeline.graph import observe, stored
from tsds_pipeline.lock import refresh_lock
from tsds_pipeline.orchestration.refresh import Refresh
from tsds_pipeline.project import Project
from tsds_pipeline.status import task_nodes

LIMIT = 4 * 3600
_RUNS = "{runsOrError(limit: 25) {... on Runs {results {runId status startTime tags {key value}}}}}"
_TOLD = """{assetOrError(assetKey: {path: ["query_files"]}) {... on Asset {
    assetMaterializations(limit: 400) {partition timestamp}}}}"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("--sources", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--backfills", type=int, default=20)
    options = parser.parse_args()
    root = options.project.resolve()
    if not root.exists():
        make_project(root, options.sources, options.tasks, n=20, settings=SETTINGS)
    cold_refresh(root)
    with dev_server(root) as server:
        edited(server)
        if options.backfills:
            backfilled(server, options.backfills)


def cold_refresh(root: Path) -> None:
    project, started = Project.load(root), time.perf_counter()
    with refresh_lock(project):
        outcomes = Counter(step.outcome for step in Refresh(project).steps())
    say("refresh", f"{time.perf_counter() - started:.0f} s", dict(outcomes))


def edited(server: DevServer) -> None:
    """Edit all query sets at once, and follow what comes of it."""
    observed = observe(Project.load(server.root))
    expected = set(task_nodes(observed, observed.tasks))
    before, seen = versions(server.root, observed.tasks), logged(server.root)
    with answering(server) as answers:
        for task in observed.tasks:
            more = records(f"more-{time.time_ns()}", clustered(6, time.time_ns() % 2**32)[4:])
            append_records(server.root / "tasks" / task / "query.jsonl", more)
        edit, began = time.time(), time.perf_counter()
        wait(lambda: told(server, edit) >= set(observed.tasks), "all are told")
        say("told of all query sets", f"{time.perf_counter() - began:.0f} s", len(observed.tasks))
        wait(
            lambda: not any(versions(server.root, observed.tasks)[t] == v for t, v in before.items()),
            "samples",
        )
        say("last sample", f"{time.perf_counter() - began:.0f} s")
    time.sleep(60)  # for what is made a second time
    made = Counter(line["node"] for line in logged(server.root)[len(seen) :])
    times = Counter(made[node] for node in expected)
    say("partitions by how often they were made", dict(times), "others", len(made.keys() - expected))
    say("runs page, median and longest answer", *(f"{seconds:.2f} s" for seconds in answers_of(answers)))


def backfilled(server: DevServer, number: int) -> None:
    """Launch ``number`` backfills at once, each of the assets of a task."""
    observed = observe(Project.load(server.root))
    tasks, seen = observed.tasks[:number], logged(server.root)
    with answering(server) as answers:
        began = time.perf_counter()
        # These projects have no reports.
        assets = [asset for asset in TASK_ASSETS if asset != "selection_report"]
        ids = [server.backfill([task], assets) for task in tasks]
        wait(lambda: all(server.is_finished(one) for one in ids), "backfills")
        say(f"{number} backfills", f"{time.perf_counter() - began:.0f} s")
    made = Counter(line["node"] for line in logged(server.root)[len(seen) :])
    say("partitions by how often they were made", dict(Counter(made[n] for n in task_nodes(observed, tasks))))
    say("runs page, median and longest answer", *(f"{seconds:.2f} s" for seconds in answers_of(answers)))


def versions(root: Path, tasks: tuple[str, ...]) -> dict[str, str | None]:
    """The version of each task's sample."""
    found = {task: stored(root / "storage", f"sampled_subset|{task}") for task in tasks}
    return {task: artifact and artifact.version for task, artifact in found.items()}


def told(server: DevServer, since: float) -> set[str]:
    """The tasks of whose changed query set Dagster has heard."""
    events = server.ask(_TOLD)["assetOrError"]["assetMaterializations"]
    return {event["partition"] for event in events if float(event["timestamp"]) / 1000 >= since}


def logged(root: Path) -> list[dict]:
    """The lines of the log of what was made, with the node of each."""
    lines = []
    for path in sorted((root / "storage" / "materializations").glob("*.jsonl")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    keys = ("asset", "source", "task")
    return [line | {"node": "|".join(line[key] for key in keys if line[key])} for line in lines]


@contextmanager
def answering(server: DevServer) -> Iterator[list[float]]:
    """Seconds that the web server took to answer, asked every two seconds while the block lasts."""
    seconds, over = [], threading.Event()

    def ask() -> None:
        while not over.wait(2):
            started = time.perf_counter()
            server.ask(_RUNS)
            with urllib.request.urlopen(f"{server.url}/runs", timeout=60) as page:
                page.read()
            seconds.append(time.perf_counter() - started)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield seconds
    finally:
        over.set()
        asking.join()


def answers_of(seconds: list[float]) -> tuple[float, float]:
    return float(np.median(seconds)), max(seconds)


def wait(condition, what: str) -> None:
    until = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"waited {LIMIT} s for: {what}")
        time.sleep(2)


def say(*words: object) -> None:
    print(*words, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
