"""The sampled subset of one task: drawing, and putting the drawn examples' texts and fields beside them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tsds_pipeline.core.constrained_draw import Bounds, Constraints, constrained_draw
from tsds_pipeline.core.sampling import draw, inclusion_probabilities
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import ResolvedTask
from tsds_pipeline.stages.typed_columns import flat_type

TOKENS, TASK = "tokens", "task"
OWN_COLUMNS = {
    "epoch": pl.Int64,
    "draw": pl.Int64,
    "source": pl.String,
    "id": pl.String,
    "text": pl.String,
    "probability": pl.Float64,
    "density": pl.Float64,
    "nearest_query": pl.String,
    "distance": pl.Float64,
    "content_id": pl.String,
    "copies": pl.List(pl.Struct({"source": pl.String, "id": pl.String})),
    "record": pl.String,
    "variants": pl.List(pl.String),
    TOKENS: pl.Int64,
    TASK: pl.String,
}
"""TOKENS is there where there is a tokenizer, TASK in mixtures. Then follow the original records' fields, as far as
their names are not among these."""


def sampling_units(probabilities: pl.DataFrame) -> pl.DataFrame:
    """A row for each content id of a probability table, in order: the same text in two sources is drawn once."""
    by_source = probabilities.sort("content_id", "source")
    return by_source.group_by("content_id", maintain_order=True).agg(
        pl.col("probability").sum(), pl.col("source", "density", "nearest_query", "distance").first()
    )


@dataclass(frozen=True)
class Drawn:
    """``examples``: the drawn units in order of (epoch, draw); ``certain``: the share of an epoch that is certain."""

    examples: pl.DataFrame
    certain: float


def draw_examples(
    task: str,
    settings: ResolvedTask,
    size: int,
    units: pl.DataFrame,
    redraws: int = 0,
    constraints: Constraints | None = None,
) -> Drawn:
    """``size`` draws an epoch out of ``units``.

    The random number of an example is a hash of (seed, task, epoch, content id), and of the number of
    ``redraws``: the draw depends on no order and on no other task. There must be enough units, see :func:`drawable`.
    TsdsError where ``constraints`` cannot be kept.
    """
    p, ids = units["probability"].to_numpy(), units["content_id"].to_list()
    key = json.dumps(["tsds", settings.seed, task, *([redraws] if redraws else [])])
    if constraints is None:
        with_replacement = settings.with_replacement
        rows = list(
            draw(p, size, epochs=settings.epochs, with_replacement=with_replacement, ids=ids, key=key)
        )
        certain = certain_share(settings, size, units)
    else:
        try:
            rows, certain = constrained_draw(p, size, constraints, epochs=settings.epochs, ids=ids, key=key)
        except ValueError as error:
            raise TsdsError(
                f"task {task}: {error}; change caps, floors, min_per_query or the budget in [tasks.{task}] or "
                "[selection], or set a lower alpha, which gives mass to more candidates"
            ) from None
    sizes = [len(drawn) for drawn in rows]
    places = {
        "epoch": np.repeat(np.arange(len(rows)), sizes),
        "draw": np.concatenate([np.arange(size) for size in sizes]),
    }
    examples = units[np.concatenate(rows)].with_columns(
        **{name: pl.Series(values, dtype=pl.Int64) for name, values in places.items()}
    )
    return Drawn(examples, certain)


def constraints_of(
    settings: ResolvedTask, size: int, units: pl.DataFrame, probabilities: pl.DataFrame
) -> Constraints | None:
    """What a draw of ``units`` has to keep beside its size; None where that is nothing.

    ``units`` are the sampling units of the table ``probabilities``, with their ``tokens`` where there is a tokenizer.
    """
    bounds = _bounds(settings, size, units) if settings.caps or settings.floors else None
    wanted = _wanted(units, probabilities) if settings.min_per_query else []
    if settings.tokens is None and bounds is None and not wanted:
        return None
    costs = None if settings.tokens is None else units["tokens"].to_numpy()
    return Constraints(bounds, wanted, settings.min_per_query, costs, settings.tokens)


def _bounds(settings: ResolvedTask, size: int, units: pl.DataFrame) -> Bounds:
    """The sources with a bound, each a group, and all others as one; a text counts for the first of its sources."""
    caps, floors = settings.caps or {}, settings.floors or {}
    names = sorted({*caps, *floors})
    groups = units["source"].replace_strict(
        names, range(len(names)), default=len(names), return_dtype=pl.Int64
    )
    # To within rounding, as 0.29 * 100 is 28.999...
    lower = [math.ceil(_amount(floors.get(name, 0), size) - 1e-9) for name in names]
    upper = [math.floor(_amount(caps.get(name, size), size) + 1e-9) for name in names]
    return Bounds(
        groups.to_numpy(), [*names, "other sources"], np.array([*lower, 0]), np.array([*upper, size])
    )


def _amount(bound: float, size: int) -> float:
    return bound * size if 0 < bound < 1 else bound


def _wanted(units: pl.DataFrame, probabilities: pl.DataFrame) -> list[np.ndarray]:
    """The rows of ``units`` that each query gives mass to, or where all do, more than others."""
    rows = units.select("content_id").with_row_index("row")
    pairs = probabilities.select("content_id", "plan").explode("plan").drop_nulls("plan").unnest("plan")
    pairs = pairs.filter(pl.col("mass") > 0).select("content_id", "query").unique()
    by_query = pairs.join(rows, on="content_id").group_by("query").agg(pl.col("row").sort()).sort("query")
    return [row.to_numpy().astype(np.int64) for row in by_query["row"]]


def kept_to(settings: ResolvedTask, sample: pl.DataFrame) -> dict[str, Any]:
    """What a manifest says of the budget and the bounds of ``sample``, as far as there are any; JSON types only."""
    said: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("tokens", "tokenizer", "caps", "floors", "min_per_query")
        if getattr(settings, name)
    }
    if TOKENS in sample.columns:
        by_epoch = sample.group_by("epoch", maintain_order=True).agg(pl.len(), pl.col(TOKENS).sum())
        said |= {"tokens_drawn": by_epoch[TOKENS].to_list(), "examples_drawn": by_epoch["len"].to_list()}
    return said


def drawable(settings: ResolvedTask, size: int, units: pl.DataFrame) -> bool:
    """Whether ``units`` are enough for ``size`` draws without repetition."""
    return settings.with_replacement or size <= len(units)


def certain_share(settings: ResolvedTask, size: int, units: pl.DataFrame) -> float:
    """The share of an epoch's draws that is certain: there neither alpha nor density matters any more."""
    if settings.with_replacement:
        return 0.0
    pi = inclusion_probabilities(units["probability"].to_numpy(), size)
    return float(np.count_nonzero(pi == 1.0) / size)


def repetitions(sample: pl.DataFrame) -> int:
    """How many rows of ``sample`` repeat an example of their epoch."""
    return len(sample) - sample.select("epoch", "content_id").n_unique()


def with_records(drawn: pl.DataFrame, corpora: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
    """``drawn`` with text, record ids and original fields out of ``corpora``, by source.

    An example that stands in several sources has the fields of its first record in order of source; all its
    records are listed in ``copies``, and records that differ in other fields in ``variants``. The epoch and the draw
    are there where ``drawn`` has them.
    """
    wanted = drawn.select("content_id").unique().lazy()
    found = [
        corpus.join(wanted, on="content_id", how="semi")
        .select("content_id", "text", "record_ids", "variants")
        .collect()
        .with_columns(source=pl.lit(source))
        for source, corpus in sorted(corpora.items())
    ]
    records = pl.DataFrame([_joined(group) for _, group in pl.concat(found).group_by("content_id")])
    # The source of a unit is the first that gives it mass, that of an example the first that has it.
    drawn = drawn.drop("source", strict=False)
    table = drawn.join(records, on="content_id", how="left", maintain_order="left")
    own = {name: dtype for name, dtype in OWN_COLUMNS.items() if name in table.columns}
    fields = _fields(table["record"].to_list(), {*OWN_COLUMNS} - ({TOKENS, TASK} - own.keys()))
    return table.select(pl.col(name).cast(dtype) for name, dtype in own.items()).hstack(fields)


def _joined(group: pl.DataFrame) -> dict[str, Any]:
    """One example out of its rows in all sources."""
    rows = group.sort("source").to_dicts()
    first = rows[0]
    records = list(dict.fromkeys(variant["record"] for row in rows for variant in row["variants"]))
    return {
        "content_id": first["content_id"],
        "source": first["source"],
        "id": first["variants"][0]["record_id"],
        "text": first["text"],
        "copies": [{"source": row["source"], "id": i} for row in rows for i in row["record_ids"]],
        "record": first["variants"][0]["record"],
        "variants": records[1:],
    }


def _fields(records: list[str], taken: set[str]) -> list[pl.Series]:
    """The top-level fields of JSON ``records`` as columns; what has no common simple type stays JSON text."""
    parsed = [json.loads(record) for record in records]
    names = dict.fromkeys(name for record in parsed for name in record if name not in taken)
    return [_column(name, [record.get(name) for record in parsed]) for name in sorted(names)]


def _column(name: str, values: list[Any]) -> pl.Series:
    dtype = flat_type(values)
    if dtype is not None:
        return pl.Series(name, values, dtype=dtype)
    as_text = [value if value is None or isinstance(value, str) else _json(value) for value in values]
    return pl.Series(name, as_text, dtype=pl.String)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
