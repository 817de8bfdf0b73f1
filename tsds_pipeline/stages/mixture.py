"""One training set for several tasks, drawn from their probabilities; the turns are in ``core.mixing``."""

import json
from collections.abc import Mapping

import numpy as np
import polars as pl

from tsds_pipeline.core.mixing import Part, mixed_draw
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import MixtureSettings
from tsds_pipeline.stages.sample import TASK, TOKENS, sampling_units
from tsds_pipeline.stages.token_budget import CandidateTokens


def draw_mixture(
    name: str,
    settings: MixtureSettings,
    probabilities: Mapping[str, pl.DataFrame],
    tokens: CandidateTokens | None,
) -> pl.DataFrame:
    """The drawn units of the mixture ``name`` with ``task``, ``epoch`` and ``draw``; ``probabilities`` by task.

    The random numbers of a task are those of its own sample, if that has the same seed. TsdsError where a task cannot
    give its share.
    """
    tables, parts = [], []
    for task, weight in settings.weights.items():
        units = sampling_units(probabilities[task]).with_columns(pl.lit(task).alias(TASK))
        if tokens:
            units = units.with_columns(pl.Series(TOKENS, tokens.of(units["content_id"])))
        tables.append(units)
        parts.append(
            Part(
                f"task {task}",
                units["probability"].to_numpy(),
                units["content_id"].to_list(),
                weight,
                json.dumps(["tsds", settings.seed, task]),
                units[TOKENS].to_numpy() if settings.tokens else None,
            )
        )
    total, key = settings.tokens or settings.size, json.dumps(["tsds", settings.seed, "mixture", name])
    try:
        epochs = mixed_draw(parts, total, epochs=settings.epochs, key=key)
    except ValueError as error:
        raise TsdsError(
            f"mixture {name}: {error}: change [mixtures.{name}], or give that task more sources or a lower alpha"
        ) from None
    starts = np.cumsum([0, *(len(table) for table in tables)])
    rows = [starts[mixed.part] + mixed.row for mixed in epochs]
    places = {
        "epoch": np.repeat(np.arange(len(rows)), [len(drawn) for drawn in rows]),
        "draw": np.concatenate([np.arange(len(drawn)) for drawn in rows]),
    }
    return pl.concat(tables)[np.concatenate(rows)].with_columns(
        **{name: pl.Series(values, dtype=pl.Int64) for name, values in places.items()}
    )
