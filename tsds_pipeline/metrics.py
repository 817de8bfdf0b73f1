"""Figures for Prometheus, from what is stored in the project: no process has to have counted anything.

Names follow https://prometheus.io/docs/practices/naming: base units, and a time at which something happened instead of
its age (``time() - tsds_task_sample_timestamp_seconds`` is that).
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, observe
from tsds_pipeline.node_names import asset_of, split_name
from tsds_pipeline.project import Project
from tsds_pipeline.sizes import project_sizes
from tsds_pipeline.sql.relations import MATERIALIZATIONS, relation_sql
from tsds_pipeline.status import FAILED, FRESH, MISSING, STALE, NodeStatus, status

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

_STATES = (FRESH, STALE, MISSING, FAILED)
_OF_SOURCES = {
    "records": ("records_read", "Records that were read of the source."),
    "quarantined_records": ("quarantined", "Records of the source that cannot be used."),
}
_OF_SAMPLES = {
    "queries": ("queries", "Example queries of the task."),
    "sampled_examples": ("size", "Examples in an epoch of the task's sample."),
}


def registry(root: Path | str | None) -> "CollectorRegistry":
    """What looks at the project in ``root`` (as in ``Project.load``) anew whenever it is asked for its figures."""
    from prometheus_client import CollectorRegistry

    found = CollectorRegistry(auto_describe=False)
    found.register(_Collector(root))
    return found


class _Collector:
    def __init__(self, root: Path | str | None):
        self._root = root
        self._lock = threading.Lock()

    def describe(self) -> list["Metric"]:
        """Nothing: the names are known once the project was looked at."""
        return []

    def collect(self) -> list["Metric"]:
        """All of them; one look at a time, however many ask."""
        with self._lock:
            return list(self._looked())

    def _looked(self) -> Iterator["Metric"]:
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        version = {"version": metadata.version("tsds-pipeline")}
        yield InfoMetricFamily("tsds_build", "The version of tsds.", value=version)
        readable = GaugeMetricFamily(
            "tsds_project_readable",
            "1 where the project can be read, 0 where tsds.toml or a folder is wrong.",
        )
        try:
            observed = observe(Project.load(self._root))
            found = status(observed)
        except TsdsError:
            readable.add_metric([], 0)
            yield readable
            return
        readable.add_metric([], 1)
        yield readable
        yield from _of_states(observed, found)
        yield from _of_sources(found)
        yield from _of_tasks(found)
        yield from _of_costs(observed)


def _of_states(observed: Observed, found: Sequence[NodeStatus]) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    states = GaugeMetricFamily(
        "tsds_partitions", "Partitions of each asset by state.", labels=["asset", "state"]
    )
    counts = Counter((asset_of(one.node), one.state) for one in found)
    for asset in dict.fromkeys(asset_of(one.node) for one in found):
        for state in _STATES:
            states.add_metric([asset, state], counts[asset, state])
    yield states
    checks = GaugeMetricFamily(
        "tsds_failed_checks", "Partitions whose result fails a check.", labels=["asset", "check"]
    )
    failed = Counter((asset_of(one.node), check) for one in found for check in one.failed_checks)
    for labels, number in sorted(failed.items()):
        checks.add_metric(labels, number)
    yield checks
    problems = [*observed.scan.all_problems(), *observed.sql.problems]
    yield GaugeMetricFamily(
        "tsds_problems", "Files and settings of the project that cannot be used.", value=len(problems)
    )


def _of_sources(found: Sequence[NodeStatus]) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    notes = {split_name(one.node).partition: _notes(one) for one in found if _is(one, "candidate_corpus")}
    for name, (key, said) in _OF_SOURCES.items():
        family = GaugeMetricFamily(f"tsds_source_{name}", said, labels=["source"])
        for source, figures in notes.items():
            if key in figures:
                family.add_metric([source], figures[key])
        yield family
    candidates = GaugeMetricFamily(
        "tsds_source_candidates", "Different candidates of the source.", labels=["source"]
    )
    for one in found:
        if _is(one, "pool_summary") and "/" not in one.node and one.artifact is not None:
            table = one.artifact.scan().select("source", pl.col("candidates").cast(pl.Int64)).collect()
            for source, number in table.iter_rows():
                candidates.add_metric([source], number)
    yield candidates
    recall = GaugeMetricFamily(
        "tsds_source_index_recall_ratio",
        "Share of the nearest candidates that the index of the source finds, where it finds least.",
        labels=["source"],
    )
    lowest: dict[str, float] = {}
    for one in found:
        if _is(one, "query_neighbors") and "recall" in (figures := _notes(one)):
            source = split_name(one.node).partition.partition("|")[0]
            lowest[source] = min(lowest.get(source, 1.0), figures["recall"])
    for source, share in lowest.items():
        recall.add_metric([source], share)
    yield recall


def _of_tasks(found: Sequence[NodeStatus]) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    notes: dict[str, dict] = {}
    made = GaugeMetricFamily(
        "tsds_task_sample_timestamp_seconds", "When the task's sample was drawn.", labels=["task"]
    )
    for one in found:
        task = split_name(one.node).partition
        if _is(one, "selection_probabilities"):
            notes[task] = {"queries": _notes(one).get("queries")}
        elif _is(one, "sampled_subset") and one.artifact is not None:
            notes[task] = notes.get(task, {}) | {"size": _notes(one).get("size")}
            made.add_metric([task], one.artifact.path.stat().st_mtime)
    for name, (key, said) in _OF_SAMPLES.items():
        family = GaugeMetricFamily(f"tsds_task_{name}", said, labels=["task"])
        for task, figures in notes.items():
            if figures.get(key) is not None:
                family.add_metric([task], figures[key])
        yield family
    yield made


class Cost(NamedTuple):
    """What it took to make the partitions of an asset so far."""

    asset: str
    made: int
    seconds: float
    peak_memory: int | None
    """Of the last of each partition, in bytes."""


def costs(storage: Path) -> list[Cost]:
    """What the log in ``storage`` says of each asset."""
    import duckdb

    query = f"""
        SELECT asset, count(*), sum(coalesce(seconds, 0)), max(latest) FROM (
            SELECT asset, seconds, CASE WHEN row_number() OVER (
                PARTITION BY asset, source, task ORDER BY made_at DESC) = 1 THEN peak_memory END AS latest
            FROM ({relation_sql(MATERIALIZATIONS, storage, {})})
        ) GROUP BY asset ORDER BY asset"""
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        return [Cost(*row) for row in connection.execute(query).fetchall()]


def _of_costs(observed: Observed) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily

    seconds = SummaryMetricFamily(
        "tsds_materialization_duration_seconds",
        "What it took to make partitions of the asset.",
        labels=["asset"],
    )
    memory = GaugeMetricFamily(
        "tsds_materialization_peak_memory_bytes",
        "The most memory of the process that made a partition of the asset, of the last of each.",
        labels=["asset"],
    )
    for one in costs(observed.project.storage):
        seconds.add_metric([one.asset], count_value=one.made, sum_value=one.seconds)
        if one.peak_memory is not None:
            memory.add_metric([one.asset], one.peak_memory)
    yield seconds
    yield memory
    stored = GaugeMetricFamily("tsds_stored_bytes", "What is stored, by what it is for.", labels=["part"])
    for part, size in project_sizes(observed.project).items():
        stored.add_metric([part], size)
    yield stored


def _is(one: NodeStatus, asset: str) -> bool:
    return asset_of(one.node) == asset


def _notes(one: NodeStatus) -> dict:
    return one.artifact.header.notes if one.artifact else {}
