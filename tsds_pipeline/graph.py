"""What depends on what: every asset partition as a node, and its upstream nodes.

How a node is written is in ``node_names``; what a further encoder decides is there once more for it. The
Dagster definitions draw the same graph (a test compares them); it stands here without Dagster so that `tsds
status` answers at once. What a node was made from, and why it is stale, is in ``provenance``; making it again is
``orchestration.refresh``.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.corpus.chat_template import ChatTemplate, load_chat_template
from tsds_pipeline.discovery import Scan, scan
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.node_names import DEFAULT_ENCODER, asset_of, node_name, split_name
from tsds_pipeline.project import Project
from tsds_pipeline.redraws import redraws
from tsds_pipeline.settings_errors import nearest
from tsds_pipeline.settings_parts import (
    corpus_part,
    draw_part,
    index_part,
    mixture_part,
    pool_part,
    query_part,
    solver_part,
)
from tsds_pipeline.sql.models import Model, Models, load_models
from tsds_pipeline.sql.relations import RELATIONS, made_by
from tsds_pipeline.storage import Artifact, artifact_path, find_artifact

# Raised when the same input would give another result.
CODE_VERSIONS = {
    "candidate_corpus": "1",
    "gradient_warmup": "1",
    "candidate_embeddings": "1",
    "faiss_index": "1",
    "kde_densities": "2",
    "pool_summary": "1",
    "pool_map": "1",
    "query_examples": "1",
    "query_embeddings": "1",
    "query_neighbors": "1",
    "selection_probabilities": "1",
    "sampled_subset": "1",
    "selection_report": "2",
    "selection_comparison": "1",
    "training_mixture": "1",
}
BY_SOURCE = ("candidate_corpus", "candidate_embeddings", "faiss_index", "kde_densities")
# Assets of the same partitions, each made from the one before: one run makes all of them.
CHAINS = (
    ("candidate_corpus", "candidate_embeddings", "faiss_index"),
    ("query_examples", "query_embeddings"),
    ("selection_probabilities", "sampled_subset", "selection_report"),
)
BY_MIXTURE = ("training_mixture",)
EXPORTED = ("sampled_subset", *BY_MIXTURE)
OF_POOL = ("pool_summary", "pool_map")
# What there is once for each encoder.
OF_ENCODER = ("gradient_warmup", "candidate_embeddings", "faiss_index", "kde_densities", *OF_POOL)
INPUTS_OF_ENCODER = ("encoder_settings", "pool_settings")
ON_DEMAND = ("selection_comparison",)
# There only for encoders that train adapters (``EncoderSettings.warms_up``).
WARMUP = "gradient_warmup"
# What is observed, not made: files of the user, and resolved settings.
INPUTS_BY_SOURCE = ("source_files",)
INPUTS_BY_TASK = ("query_files", "solver_settings", "draw_settings")
INPUTS_BY_MIXTURE = ("mixture_settings",)
INPUTS_OF_ALL = ("source_registry", "index_settings", *INPUTS_OF_ENCODER)
INPUT_ASSETS = (*INPUTS_BY_SOURCE, *INPUTS_BY_TASK, *INPUTS_BY_MIXTURE, *INPUTS_OF_ALL)


@dataclass(frozen=True)
class Observed:
    """The inputs of the whole graph at one moment."""

    project: Project
    scan: Scan
    settings: dict[str, str]
    """Canonical text of the settings behind the input nodes."""
    versions: dict[str, str]
    """Data versions of the input nodes."""
    sql: Models
    """The SQL models, each of which is a node of its name."""

    @cached_property
    def by_asset(self) -> dict[str, list[str]]:
        """The inputs and what a refresh makes of the pipeline, by asset; of the default encoder."""
        found: dict[str, list[str]] = {}
        for node in (*self.versions, *_pipeline_nodes(self)):
            encoder, asset, _ = split_name(node)
            if encoder == DEFAULT_ENCODER:
                found.setdefault(asset, []).append(node)
        return found

    @property
    def models(self) -> dict[str, Model]:
        return self.sql.models

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with files of the project, those apart that an asset tells of."""
        return (*self.scan.problems, *self.sql.problems)

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self.scan.sources)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.scan.tasks)

    @property
    def mixtures(self) -> tuple[str, ...]:
        """The mixtures all of whose tasks there are; the scan tells of the others."""
        tasks, tables = set(self.tasks), self.project.settings.mixtures
        return tuple(
            name for name in sorted(tables) if name not in tasks and tables[name].weights.keys() <= tasks
        )

    @property
    def keys(self) -> dict[str, tuple[str, ...]]:
        """What there is of each "source", "task" and "mixture"."""
        return {"source": self.sources, "task": self.tasks, "mixture": self.mixtures}

    @property
    def encoders(self) -> tuple[str, ...]:
        """The encoders in use: the default one, then those that a task names."""
        return (DEFAULT_ENCODER, *sorted({self.encoder_of(task) for task in self.tasks} - {DEFAULT_ENCODER}))

    def encoder_of(self, task: str) -> str:
        """The encoder of ``task``."""
        return self._encoders_of.get(task) or self.project.settings.resolved_task(task).encoder

    @cached_property
    def _encoders_of(self) -> dict[str, str]:
        return {task: self.project.settings.resolved_task(task).encoder for task in self.tasks}

    def warms_up(self, encoder: str) -> bool:
        """Whether ``encoder`` trains adapters on the pool before it encodes anything."""
        settings = self.project.settings
        chosen = settings.encoder if encoder == DEFAULT_ENCODER else settings.encoders.get(encoder)
        return chosen is not None and chosen.warms_up

    def require(self, kind: str, key: str) -> None:
        """TsdsError unless there is such a "source", "task" or "mixture"."""
        known = self.keys[kind]
        if kind == "task" and key in self.mixtures:
            tasks = ", ".join(self.project.settings.mixtures[key].weights)
            raise TsdsError(
                f'"{key}" is a mixture of {tasks}: name one of these; `tsds refresh` makes the mixture with them, and '
                f"its training set is in exports/{key}/"
            )
        if key not in known:
            there = ", ".join(known) or "none"
            raise TsdsError(
                f'there is no {kind} "{key}"{nearest(key, known)}; {kind}s of this project: {there}'
            )

    def candidate_sources(self, task: str) -> tuple[str, ...]:
        """The sources that ``task`` draws from, sorted."""
        return self.project.settings.resolved_task(task).candidate_sources(self.sources)


def observe(project: Project) -> Observed:
    """Scan the project folder and resolve the settings. No large file is read twice (see ``discovery``)."""
    from tsds_pipeline.encoders import both_fingerprints

    found, settings = scan(project), project.settings
    template = chat_template(project)
    fingerprint = template.fingerprint if template else None
    texts = {
        "index_settings": index_part(settings),
        "source_registry": json.dumps(list(found.sources)),
    }
    for name in {DEFAULT_ENCODER, *(settings.resolved_task(task).encoder for task in found.tasks)}:
        seen = project.with_encoder(name)
        texts[seen.of_encoder("encoder_settings")] = both_fingerprints(seen.settings.encoder, project.root)
        texts[seen.of_encoder("pool_settings")] = pool_part(seen.settings)
    # A test set is read as the queries are.
    tests = {
        task: content_hash(files.version, query_part(settings, task, fingerprint))
        for task, files in found.tests.items()
    }
    for task in found.tasks:
        tokenizer = _tokenizer(project, settings.resolved_task(task).tokenizer)
        texts[f"solver_settings|{task}"] = solver_part(settings, task, tokenizer, tests.get(task))
        texts[f"draw_settings|{task}"] = draw_part(
            settings, task, _redraws(project, task), tests.get(task), tokenizer
        )
    for mixture, table in settings.mixtures.items():
        tokenizer = _tokenizer(project, table.tokenizer)
        texts[f"mixture_settings|{mixture}"] = mixture_part(settings, mixture, tokenizer, tests)
    versions = {node: content_hash(text) for node, text in texts.items()}
    test_sets = {name: files.version for name, files in found.excluded.items()}
    for key, files in found.sources.items():
        texts[node := f"source_files|{key}"] = corpus_part(settings, key, test_sets, fingerprint)
        versions[node] = content_hash(files.version, texts[node])
    for key, files in found.tasks.items():
        texts[node := f"query_files|{key}"] = query_part(settings, key, fingerprint)
        versions[node] = content_hash(files.version, texts[node])
    return Observed(project, found, texts, versions, project_models(project.root))


def _tokenizer(project: Project, name: str | None) -> str | None:
    """What identifies the tokenizer ``name``; one that is not there stops nothing but what needs it, which says so."""
    if name is None:
        return None
    from tsds_pipeline.encoders.tokenizers import find_tokenizer

    try:
        return find_tokenizer(name, project.root).identity
    except TsdsError as error:
        return str(error)


def _redraws(project: Project, task: str) -> int | str:
    """How often the task's sample was drawn again; what is not readable stops that sample alone, which says so."""
    try:
        return redraws(project, task)
    except TsdsError as error:
        return str(error)


def chat_template(project: Project) -> ChatTemplate | None:
    """The template that makes texts of the chats of ``project``; TsdsError where the named one is not there."""
    name = project.settings.corpus.chat_template
    return None if name is None else load_chat_template(name, project.root)


def project_models(root: Path | None) -> Models:
    """The SQL models of the project folder ``root``; of the package alone without it."""
    return load_models(root, (*CODE_VERSIONS, *INPUT_ASSETS))


def upstream(node: str, observed: Observed) -> list[str]:
    """The nodes that ``node`` is made from: a change of any makes it stale."""
    encoder, asset, key = split_name(node)
    sources = observed.sources
    if asset in observed.models:
        return [name for read in observed.models[asset].reads for name in _behind_table(read, observed)]
    if asset not in (*OF_ENCODER, *BY_SOURCE, *BY_MIXTURE):
        encoder = observed.encoder_of(key.rpartition("|")[2])
    decided = partial(node_name, encoder=encoder)
    encoded_by = [decided("encoder_settings"), *([decided(WARMUP)] if observed.warms_up(encoder) else [])]
    match asset:
        case "candidate_corpus":
            return [f"source_files|{key}"]
        case "candidate_embeddings":
            return [f"candidate_corpus|{key}", *encoded_by]
        case "gradient_warmup":
            return [decided("encoder_settings")]
        case "faiss_index":
            return [decided("candidate_embeddings", key), "index_settings"]
        case "kde_densities":
            return [
                "source_registry",
                decided("pool_settings"),
                *(decided("faiss_index", source) for source in sources),
            ]
        case "pool_summary":
            return [decided("kde_densities", source) for source in sources]
        case "pool_map":
            return [decided("candidate_embeddings", source) for source in sources]
        case "query_examples":
            return [f"query_files|{key}"]
        case "query_embeddings":
            return [f"query_examples|{key}", *encoded_by]
        case "query_neighbors":
            source, _, task = key.partition("|")
            return [decided("kde_densities", source), f"query_embeddings|{task}"]
        case "selection_probabilities":
            neighbors = [f"query_neighbors|{s}|{key}" for s in sources]
            return [*neighbors, decided("pool_summary"), f"solver_settings|{key}"]
        case "sampled_subset":
            return [f"selection_probabilities|{key}", f"draw_settings|{key}"]
        case "selection_report":
            return [f"sampled_subset|{key}", decided("pool_map")]
        case "selection_comparison":
            return [f"sampled_subset|{key}"]
        case "training_mixture":
            tasks = observed.project.settings.mixtures[key].weights
            return [*(f"selection_probabilities|{task}" for task in tasks), f"mixture_settings|{key}"]
    raise ValueError(f"{node} is not made by any asset")


def _behind_table(name: str, observed: Observed) -> list[str]:
    """The nodes behind a relation or model that a model reads."""
    if name in observed.models:
        return [name]
    if RELATIONS[name].of_everything:
        return list(_pipeline_nodes(observed))
    return [node for asset in made_by(name) for node in observed.by_asset.get(asset, ())]


def asset_parents(model: Model) -> list[str]:
    """The assets that ``model`` is made from."""
    parents: dict[str, None] = {}
    for name in model.reads:
        if name not in RELATIONS:
            parents[name] = None
        else:
            everything = RELATIONS[name].of_everything
            assets = [asset for asset in CODE_VERSIONS if asset not in (*ON_DEMAND, WARMUP)]
            parents |= dict.fromkeys(assets if everything else made_by(name))
    return list(parents)


def required(node: str, observed: Observed) -> list[str]:
    """The nodes without which ``node`` cannot be made: all upstream, but for a model only other models.

    A warm-up also needs the records that it samples, though their changes are no reason to train again. What the
    pipeline failed to make is empty for a model, or as it was: one broken task must not stop them all.
    """
    names = upstream(node, observed)
    if asset_of(node) == WARMUP:
        return [*names, *(f"candidate_corpus|{source}" for source in observed.sources)]
    return [name for name in names if name in observed.models] if node in observed.models else names


def is_model(node: str) -> bool:
    """Whether ``node``, one of ``nodes``, is an SQL model."""
    return asset_of(node) not in CODE_VERSIONS


def code_version(asset: str, observed: Observed) -> str:
    """The code version of ``asset``."""
    return observed.models[asset].code if asset in observed.models else CODE_VERSIONS[asset]


def current_versions(nodes: Iterable[str], observed: Observed) -> dict[str, str]:
    """The data versions of all inputs, and of what is stored directly upstream of ``nodes``."""
    versions = dict(observed.versions)
    read = {name for node in nodes for name in (*upstream(node, observed), *required(node, observed))}
    for name in read - versions.keys():
        if (artifact := stored(observed.project.storage, name)) is not None:
            versions[name] = artifact.version
    return versions


def input_versions(node: str, observed: Observed, versions: Mapping[str, str]) -> dict[str, str]:
    """What ``node`` would be made from now: its code, and the data versions of those upstream that there are."""
    asset = asset_of(node)
    known = {name: versions[name] for name in upstream(node, observed) if name in versions}
    # Decides no version, but whether it is worth to try again.
    how = {"export": observed.project.settings.export.model_dump_json()} if asset in EXPORTED else {}
    return {"code": code_version(asset, observed), **known, **how}


def chained(node: str) -> str | None:
    """The node before ``node`` in its chain; None where it begins one."""
    encoder, asset, partition = split_name(node)
    for chain in CHAINS:
        if asset in chain[1:]:
            before = chain[chain.index(asset) - 1]
            return node_name(before, partition, encoder if before in OF_ENCODER else DEFAULT_ENCODER)
    return None


def nodes(observed: Observed) -> Iterator[str]:
    """Every node that a refresh makes, each after its upstream: sources, the pool, task by task, and the SQL models.

    ``selection_comparison`` is made when somebody asks for it, and models where there is data.
    """
    yield from _pipeline_nodes(observed)
    if observed.sources:
        yield from observed.models


def _pipeline_nodes(observed: Observed) -> Iterator[str]:
    sources = observed.sources
    # As one run makes them, source by source: a text that two sources share is encoded among those of the first, also
    # where the run of that one was killed and left only the corpus.
    chained = not observed.warms_up(DEFAULT_ENCODER)
    for source in sources:
        yield f"candidate_corpus|{source}"
        if chained:
            yield from _encoded(source, DEFAULT_ENCODER)
    for encoder in observed.encoders:
        if sources and observed.warms_up(encoder):
            yield node_name(WARMUP, encoder=encoder)
        if not (chained and encoder == DEFAULT_ENCODER):
            for source in sources:
                yield from _encoded(source, encoder)
        yield from (node_name("kde_densities", source, encoder) for source in sources)
        if sources:
            yield node_name("pool_summary", encoder=encoder)
            if any(
                reported(observed, task) for task in observed.tasks if observed.encoder_of(task) == encoder
            ):
                yield node_name("pool_map", encoder=encoder)
    for task in observed.tasks:
        yield from (f"query_examples|{task}", f"query_embeddings|{task}")
        yield from (f"query_neighbors|{source}|{task}" for source in sources)
        yield from (f"selection_probabilities|{task}", f"sampled_subset|{task}")
        if reported(observed, task):
            yield f"selection_report|{task}"
    if sources:
        yield from (f"training_mixture|{mixture}" for mixture in observed.mixtures)


def _encoded(source: str, encoder: str) -> Iterator[str]:
    return (node_name(asset, source, encoder) for asset in ("candidate_embeddings", "faiss_index"))


def reported(observed: Observed, task: str) -> bool:
    """Whether a refresh makes the report of ``task``, and for that the map of the pool."""
    return observed.project.settings.resolved_task(task).report


def stored(base: Path, node: str) -> Artifact | None:
    """What is stored for ``node``, None where nothing sound is."""
    return find_artifact(node_path(base, node))


def not_made(node: str) -> TsdsError:
    """The error that nothing is stored for ``node``."""
    for_whom = ", which makes it where a task has report = true" if asset_of(node) == "pool_map" else " first"
    return TsdsError(f"{describe(node)} is not there yet: run `tsds refresh`{for_whom}")


def node_path(base: Path, node: str) -> Path:
    """Where the artifact of ``node`` is."""
    folder, _, partition = node.partition("|")
    return artifact_path(base, folder, partition or None)


_READ_TO_JUDGE = (
    "selection_probabilities",
    "query_examples",
    "query_embeddings",
    "query_neighbors",
    "faiss_index",
    "kde_densities",
    "candidate_corpus",
)
# Read for the lineage or for deeper looks, never a reason to run again: another input changes with it.
ALSO_READ = {
    "gradient_warmup": ("candidate_corpus",),
    "query_neighbors": ("faiss_index",),
    "selection_probabilities": (
        "faiss_index",
        "kde_densities",
        "query_embeddings",
        "query_examples",
        "candidate_corpus",
    ),
    "sampled_subset": ("candidate_corpus", "query_examples", "query_embeddings"),
    "training_mixture": ("candidate_corpus", "query_examples", "query_embeddings"),
    "selection_report": _READ_TO_JUDGE,
    "selection_comparison": _READ_TO_JUDGE,
}


def keys_of(node: str) -> tuple[str | None, str | None]:
    """The source and the task that ``node`` belongs to, as far as it does."""
    _, asset, partition = split_name(node)
    if asset in BY_MIXTURE:
        return None, None
    first, bar, second = partition.partition("|")
    if bar:
        return first, second
    return (first or None, None) if asset in BY_SOURCE else (None, first or None)


def describe(node: str) -> str:
    """``node`` for a person: query_neighbors[alpaca x bbh], kde_densities[alpaca] of encoder gradients."""
    encoder, asset, partition = split_name(node)
    whose = "" if encoder == DEFAULT_ENCODER else f" of encoder {encoder}"
    return f"{asset}[{partition.replace('|', ' x ')}]{whose}" if partition else f"{asset}{whose}"
