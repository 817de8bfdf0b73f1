"""The sampled subset of one task: drawing, and putting the drawn examples' texts and fields beside them."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import polars as pl

from tsds_pipeline.core.sampling import draw, inclusion_probabilities
from tsds_pipeline.settings import ResolvedTask
from tsds_pipeline.stages.typed_columns import flat_type

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
}
"""Then follow the original records' fields, as far as their names are not among these."""


def sampling_units(probabilities: pl.DataFrame) -> pl.DataFrame:
    """A row for each content id of a probability table, in order: the same text in two sources is drawn once."""
    by_source = probabilities.sort("content_id", "source")
    return by_source.group_by("content_id", maintain_order=True).agg(
        pl.col("probability").sum(), pl.col("density", "nearest_query", "distance").first()
    )


def draw_examples(
    task: str, settings: ResolvedTask, size: int, units: pl.DataFrame, redraws: int = 0
) -> pl.DataFrame:
    """``size`` draws an epoch out of ``units``, in order of (epoch, draw).

    The random number of an example is a hash of (seed, task, epoch, content id), and of the number of
    ``redraws``: the draw depends on no order and on no other task. There must be enough units, see :func:`drawable`.
    """
    rows = draw(
        units["probability"].to_numpy(),
        size,
        epochs=settings.epochs,
        with_replacement=settings.with_replacement,
        ids=units["content_id"].to_list(),
        key=json.dumps(["tsds", settings.seed, task, *([redraws] if redraws else [])]),
    )
    places = {"epoch": np.repeat(np.arange(len(rows)), size), "draw": np.tile(np.arange(size), len(rows))}
    return units[rows.ravel()].with_columns(
        **{name: pl.Series(values, dtype=pl.Int64) for name, values in places.items()}
    )


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


def examples_among(sample: pl.DataFrame, texts: Collection[str]) -> pl.DataFrame:
    """The examples of ``sample``, each once, whose text is one of ``texts``, which are normalised like theirs."""
    return sample.filter(pl.col("text").is_in(list(texts))).unique("content_id", maintain_order=True)


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
    table = drawn.join(records, on="content_id", how="left", maintain_order="left")
    fields = _fields(table["record"].to_list(), set(OWN_COLUMNS))
    own = {name: dtype for name, dtype in OWN_COLUMNS.items() if name in table.columns}
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
