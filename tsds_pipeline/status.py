"""Where every asset partition stands: fresh, stale (and why), missing or failed. Without Dagster."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tsds_pipeline.graph import (
    BY_SOURCE,
    EXPORTED,
    OF_POOL,
    Observed,
    chained,
    describe,
    input_versions,
    node_path,
    nodes,
    reported,
    required,
    stored,
    upstream,
)
from tsds_pipeline.node_names import asset_of, node_name, split_name
from tsds_pipeline.provenance import model_header, stale_reasons
from tsds_pipeline.report.pages import PAGES, version_of
from tsds_pipeline.stages.export import why_not_exported
from tsds_pipeline.storage import Artifact, Attempt, find_artifact, read_attempt

# What was killed is tried again by itself this often; what failed only when something changed.
MAX_TRIES = 3
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
    tried: bool = False
    """Whether it failed with just these inputs: only a person, or a change, has it tried again."""

    @property
    def failed_checks(self) -> dict[str, str]:
        """Asset checks that failed and stop nothing: what is wrong, by check."""
        return dict(self.artifact.header.notes.get("failed_checks", {})) if self.artifact else {}

    @property
    def due(self) -> bool:
        """Whether a refresh makes it again; what failed is tried again whenever a person asks for one."""
        return self.state != FRESH


def node_status(node: str, observed: Observed, versions: Mapping[str, str]) -> NodeStatus:
    """The status of ``node`` alone; ``versions`` are the current data versions of its upstream nodes."""
    _, asset, partition = split_name(node)
    path = node_path(observed.project.storage, node)
    attempt = read_attempt(path)
    failure = attempt.problem if attempt else None
    tried = attempt is not None and _is_exhausted(attempt, input_versions(node, observed, versions))
    artifact = find_artifact(path)
    if asset in observed.models and (broken := observed.models[asset].problem):
        return NodeStatus(node, FAILED, (broken,), artifact, tried)
    unreadable = _problem(asset, partition, observed)
    if artifact is None:
        why = failure or unreadable
        return NodeStatus(node, FAILED if failure else MISSING, (why,) if why else (), None, tried)
    reasons = tuple(stale_reasons(node, artifact.header, observed, versions))
    if reasons and unreadable:
        reasons = (f"{unreadable} (its last result stays in use)",)
    if asset in EXPORTED:
        folder, wanted = observed.project.exports / partition, observed.project.settings.export
        lacking = why_not_exported(folder, artifact.version, wanted)
        reasons += (lacking,) if lacking else ()
    if asset in PAGES and version_of(PAGES[asset](observed.project, partition)) != artifact.version:
        reasons += ("its page is gone",)
    if failure:
        failure = f"{failure} (its last result stays in use)"
        return NodeStatus(node, FAILED, (failure, *reasons), artifact, tried)
    if artifact.header.problem:
        return NodeStatus(node, FAILED, (artifact.header.problem,), artifact, tried)
    return NodeStatus(node, STALE if reasons else FRESH, reasons, artifact, tried)


def _problem(asset: str, key: str, observed: Observed) -> str | None:
    """Why the files that an asset reads cannot be used, if it reads any."""
    if asset not in ("candidate_corpus", "query_examples"):
        return None
    files = (observed.scan.sources if asset == "candidate_corpus" else observed.scan.tasks).get(key)
    return files.problem if files else None


def _is_exhausted(attempt: Attempt, inputs: Mapping[str, str]) -> bool:
    return attempt.inputs == inputs and (attempt.ended or attempt.tries >= MAX_TRIES)


def status(observed: Observed) -> list[NodeStatus]:
    """Every node, upstream first; what lies downstream of something that is not fresh is stale too."""
    versions = dict(observed.versions)
    found: dict[str, NodeStatus] = {}
    stuck: set[str] = set()
    for node in nodes(observed):
        own = node_status(node, observed, versions)
        # What failed keeps its last result, if it has one: what comes after it is not touched by that.
        behind = [name for name in upstream(node, observed) if name in found and found[name].state in _MOVING]
        if node in observed.models:
            behind = [name for name in behind if name not in stuck]
        if (own.state in _MOVING and stuck.intersection(required(node, observed))) or _fails(own):
            stuck.add(node)
        if own.state == FRESH and behind:
            own = NodeStatus(node, STALE, (f"comes after {describe(behind[0])}",), own.artifact)
        found[node] = own
        if own.artifact is not None:
            versions[node] = own.artifact.version
    return list(found.values())


def _fails(own: NodeStatus) -> bool:
    """Whether it failed and left no stand-in to go on with."""
    return own.state == FAILED and (own.artifact is None or own.artifact.header.problem is None)


def is_left_behind(
    node: str,
    artifact: Artifact | None,
    failed: bool,
    behind: Collection[str],
    observed: Observed,
    versions: Mapping[str, str],
) -> bool:
    """Whether nothing can be made of the last result of ``node``, as it does not go with what is beside it.

    That is where it ``failed`` and what the pipeline made it from has another version now, and where it needs a node
    that was left ``behind`` itself. Models read whatever is stored.
    """
    if node in observed.models:
        return False
    inputs = artifact.header.inputs if artifact else {}
    made = (name for name in inputs if name not in observed.versions)
    moved = any(versions.get(name, inputs[name]) != inputs[name] for name in made)
    return (failed and moved) or any(name in behind for name in required(node, observed))


def due_models(observed: Observed, versions: Mapping[str, str]) -> list[str]:
    """The models that are due once all upstream of them is as in ``versions``: what one run makes, in order."""
    ahead, found = dict(versions), []
    for node in observed.models:
        own = node_status(node, observed, ahead)
        if own.due:
            found.append(node)
        if own.due and observed.models[node].problem is None:
            ahead[node] = model_header(node, observed, ahead).version
    return found


def next_nodes(observed: Observed, busy: Collection[str] = ()) -> set[str]:
    """What can be made at this moment so that nothing is made twice: what is due, with all upstream settled.

    Upstream is settled when nothing there is due or under way; ``busy`` are the nodes that runs were making when the
    look began. What was tried with the same inputs is left alone, and so is what needs it. What follows in one
    run with another (``graph.CHAINS``, and all models) is asked for with it.
    """
    versions = dict(observed.versions)
    unsettled: set[str] = set()  # due, or under way, or after what is: what comes after waits
    lacking: set[str] = set()  # without a result that could be used, and without hope of one
    left_behind: set[str] = set()
    asked: set[str] = set()
    for node in nodes(observed):
        own = node_status(node, observed, versions)
        if own.artifact is not None:
            versions[node] = own.artifact.version
        before, needed = upstream(node, observed), required(node, observed)
        is_model = node in observed.models
        along = asked.intersection(needed if is_model else [chained(node)])
        unknown = [name for name in needed if name not in versions]
        held = (unsettled.intersection(before) | lacking.intersection(needed) | set(unknown)) - along
        due = own.due and not own.tried
        if not held and (due or (along and not is_model)) and node not in busy:
            asked.add(node)
            if is_model and observed.models[node].problem is None:
                # So that those that read it are asked for with it where its result will be another.
                versions[node] = model_header(node, observed, versions).version
        if (due and not held) or not unsettled.isdisjoint(before) or node in busy:
            unsettled.add(node)
        stands_in = own.artifact is not None and own.artifact.header.problem is not None
        failed = own.due and not stands_in and (own.tried or unknown or not lacking.isdisjoint(needed))
        if is_left_behind(node, own.artifact, failed, left_behind, observed, versions):
            left_behind.add(node)
        if failed or node in left_behind:
            lacking.add(node)
    return asked


def wanted_nodes(observed: Observed, task: str | None, source: str | None) -> list[str]:
    """All nodes, or those that ``task`` or ``source`` needs, upstream first. TsdsError for an unknown key."""
    if task is not None:
        observed.require("task", task)
    if source is not None:
        observed.require("source", source)
    ends = drawn_nodes(observed, task) if task else []
    ends += [node_name("kde_densities", source, encoder) for encoder in observed.encoders if source]
    behind_them = behind(ends, observed)
    return [node for node in nodes(observed) if not ends or node in behind_them]


def unseen_fields(observed: Observed) -> list[str]:
    """The fields in which [corpus] drop looks for something and of which no record of any source has anything."""
    unseen = set(observed.project.settings.corpus.drop or ())
    for source in observed.sources if unseen else ():
        corpus = stored(observed.project.storage, f"candidate_corpus|{source}")
        unseen &= set(corpus.header.notes.get("unseen", ())) if corpus else set()
    return sorted(unseen) if observed.sources else []


def behind(ends: Iterable[str], observed: Observed) -> set[str]:
    """``ends`` and everything that they are made from."""
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node not in found and node not in observed.versions:
            found.add(node)
            waiting += upstream(node, observed)
    return found


def drawn_nodes(observed: Observed, task: str) -> list[str]:
    """The sample of ``task`` and its report, in order, with the map that this needs where there is none yet."""
    sample = f"sampled_subset|{task}"
    if not reported(observed, task):
        return [sample]
    pool_map = node_name("pool_map", encoder=observed.encoder_of(task))
    lacking = [] if stored(observed.project.storage, pool_map) else [pool_map]
    return [*lacking, sample, f"selection_report|{task}"]


def task_nodes(observed: Observed, tasks: Iterable[str]) -> list[str]:
    """The partitions of ``tasks`` alone, upstream first: nothing of the pool. TsdsError for an unknown task."""
    chosen = set(tasks)
    for task in sorted(chosen):
        observed.require("task", task)
    of_pool = (*BY_SOURCE, *OF_POOL)
    own = [node for node in nodes(observed) if "|" in node and asset_of(node) not in of_pool]
    return [node for node in own if node.rpartition("|")[2] in chosen]
