"""`tsds dev` as a process of its own, and questions to it."""

import json
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.commands import TYPED
from tsds_pipeline.graph import is_model, observe
from tsds_pipeline.project import Project
from tsds_pipeline.status import status

TASK_ASSETS = (
    "query_examples",
    "query_embeddings",
    "query_neighbors",
    "selection_probabilities",
    "sampled_subset",
    "selection_report",
)


@dataclass
class DevServer:
    """A running `tsds dev`; ``output`` and ``errors`` are what it said, once it has ended."""

    root: Path
    url: str
    process: int
    output: str = ""
    errors: str = ""
    exit_status: int | None = None

    def ask(self, query: str, **variables: Any) -> Any:
        """The data of the answer to a GraphQL ``query``."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def runs(self) -> list[dict[str, Any]]:
        """All runs, the first one first, with the partition and the names of the assets that each makes."""
        query = """{runsOrError(limit: 500) {... on Runs {results {
            runId status startTime endTime assetSelection {path} tags {key value}}}}}"""
        found = reversed(self.ask(query)["runsOrError"]["results"])
        return [
            run
            | {
                "tags": (tags := {tag["key"]: tag["value"] for tag in run["tags"]}),
                "partition": tags.get("dagster/partition"),
                "assets": [key["path"][0] for key in run["assetSelection"] or []],
            }
            for run in found
        ]

    def materialized(self, runs: Sequence[dict[str, Any]]) -> list[str]:
        """The nodes of the pipeline that ``runs`` made, sorted; all must have succeeded."""
        assert {run["status"] for run in runs} == {"SUCCESS"}
        return self.made_in(runs)

    def made_in(self, runs: Sequence[dict[str, Any]]) -> list[str]:
        """The nodes of the pipeline that ``runs`` made, sorted, however they ended."""
        query = """query ($id: ID!) {runOrError(runId: $id) {... on Run {
            assetMaterializations {assetKey {path} partition}}}}"""
        found = [
            "|".join(filter(None, (made["assetKey"]["path"][0], made["partition"])))
            for run in runs
            for made in self.ask(query, id=run["runId"])["runOrError"]["assetMaterializations"]
        ]
        return sorted(node for node in found if not is_model(node))

    def backfill(self, tasks: Sequence[str], assets: Sequence[str] = TASK_ASSETS) -> str:
        """Launch a backfill of ``assets`` of ``tasks``; its id."""
        found = self.ask(
            """mutation ($params: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $params) {
                ... on LaunchBackfillSuccess {backfillId} ... on PartitionKeysNotFoundError {message}
                ... on PythonError {message}}}""",
            params={
                "assetSelection": [{"path": [asset]} for asset in assets],
                "partitionNames": [*tasks],
                "title": f"tasks {', '.join(tasks)}",
            },
        )["launchPartitionBackfill"]
        if "message" in found:
            raise ValueError(found["message"])
        return found["backfillId"]

    def is_finished(self, backfill: str) -> bool:
        """Whether ``backfill`` has come to its end; it may not fail."""
        query = """query ($id: String!) {partitionBackfillOrError(backfillId: $id) {
            ... on PartitionBackfill {status} ... on PythonError {message}}}"""
        state = self.ask(query, id=backfill)["partitionBackfillOrError"]["status"]
        assert state in ("REQUESTED", "COMPLETED", "COMPLETED_SUCCESS"), state
        return state != "REQUESTED"

    def is_at_rest(self) -> bool:
        """Whether everything is fresh and nothing is running."""
        query = """{runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) {
            ... on Runs {results {runId}}}}"""
        busy = self.ask(query)["runsOrError"]["results"]
        return not busy and {n.state for n in status(observe(Project.load(self.root)))} == {"fresh"}

    def made_after(self, before: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The runs that are not among those ``before``."""
        known = {run["runId"] for run in before}
        return [run for run in self.runs() if run["runId"] not in known]

    def wait_for(
        self, condition: Callable[[], Any], what: str, seconds: float = 180, pause: float = 1
    ) -> Any:
        """What ``condition``, asked every ``pause`` seconds, gives as soon as that is true."""
        until = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < until, f"waited {seconds} s for {what}"
            time.sleep(pause)
        return found


@contextmanager
def dev_server(root: Path, *options: str) -> Iterator[DevServer]:
    """`tsds dev` on the project in ``root``, ended as Ctrl-C does."""
    # A pipe that nobody reads would fill up and stop whoever writes.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [TYPED, "-p", str(root), "dev", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        server = DevServer(root, "", process.pid)
        try:
            assert process.stdout.readline() == f"starting the Dagster UI of {root}\n"
            server.url = process.stdout.readline().split()[1]
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            server.output, _ = process.communicate(timeout=60)
            server.exit_status = process.returncode
            errors.seek(0)
            server.errors = errors.read()
