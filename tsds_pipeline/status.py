"""Where every asset partition stands: fresh, stale (and why), missing or failed. Without Dagster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tsds_pipeline.graph import Observed, describe, nodes, stale_reasons, stored, upstream
from tsds_pipeline.stages.export import is_exported
from tsds_pipeline.storage import Artifact, artifact_path, read_failure

FRESH, STALE, MISSING, FAILED = "fresh", "stale", "missing", "failed"
_MOVING = (STALE, MISSING)


@dataclass(frozen=True)
class NodeStatus:
    """How one asset partition stands."""

    node: str
    state: str
    """FRESH, STALE, MISSING or FAILED."""
    reasons: tuple[str, ...]
    """Why it is not fresh, in plain words."""
    artifact: Artifact | None
    """What is stored, whatever its state."""

    @property
    def due(self) -> bool:
        """Whether a refresh makes it again; what failed is tried again every time."""
        return self.state != FRESH


def node_status(node: str, observed: Observed, versions: Mapping[str, str]) -> NodeStatus:
    """The status of ``node`` alone; ``versions`` are the current data versions of its upstream nodes."""
    asset, _, partition = node.partition("|")
    base = observed.project.storage
    failure = read_failure(artifact_path(base, asset, partition or None))
    artifact = stored(base, node)
    if artifact is None:
        return NodeStatus(node, FAILED if failure else MISSING, (failure,) if failure else (), None)
    reasons = tuple(stale_reasons(node, artifact.header, observed, versions))
    if asset == "sampled_subset" and not is_exported(observed.project.exports / partition, artifact.version):
        reasons += ("its export is gone or incomplete",)
    if failure:
        return NodeStatus(node, FAILED, (f"{failure} (its last result stays in use)", *reasons), artifact)
    if artifact.header.problem:
        return NodeStatus(node, FAILED, (artifact.header.problem,), artifact)
    return NodeStatus(node, STALE if reasons else FRESH, reasons, artifact)


def status(observed: Observed) -> list[NodeStatus]:
    """Every node, upstream first; what lies downstream of something that is not fresh is stale too."""
    versions = dict(observed.versions)
    found: dict[str, NodeStatus] = {}
    for node in nodes(observed):
        own = node_status(node, observed, versions)
        # What failed keeps its last result, if it has one: what comes after it is not touched by that.
        behind = [name for name in upstream(node, observed) if name in found and found[name].state in _MOVING]
        if own.state == FRESH and behind:
            own = NodeStatus(node, STALE, (f"comes after {describe(behind[0])}",), own.artifact)
        found[node] = own
        if own.artifact is not None:
            versions[node] = own.artifact.version
    return list(found.values())


def wanted_nodes(observed: Observed, task: str | None, source: str | None) -> list[str]:
    """All nodes, or those that ``task`` or ``source`` needs, upstream first. TsdsError for an unknown key."""
    if task is not None:
        observed.require("task", task)
    if source is not None:
        observed.require("source", source)
    ends = [f"sampled_subset|{task}"] if task else []
    ends += [f"kde_densities|{source}"] if source else []
    everything = list(nodes(observed))
    return everything if not ends else [node for node in everything if node in _behind(ends, observed)]


def _behind(ends: Iterable[str], observed: Observed) -> set[str]:
    """``ends`` and everything that they are made from."""
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node not in found and node not in observed.versions:
            found.add(node)
            waiting += upstream(node, observed)
    return found
