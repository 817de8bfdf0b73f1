"""What each column of each asset's table is, and which columns upstream it comes from, for the catalogue."""

from typing import NamedTuple

import dagster as dg
import polars as pl

from tsds_pipeline.graph import EXPORTED, OF_ENCODER
from tsds_pipeline.node_names import DEFAULT_ENCODER, node_name
from tsds_pipeline.orchestration.partitions import asset_key
from tsds_pipeline.stages.comparison import METRICS


class Column(NamedTuple):
    """``made_from`` names columns upstream, as "asset.column"."""

    description: str
    made_from: tuple[str, ...] = ()


def _column(description: str, *made_from: str) -> Column:
    return Column(description, made_from)


_CONTENT_ID = (
    "Hash of the normalised text (and of the vector, where vectors are given): the example's identity."
)
_COUNT = "How many exact copies of the record its source has."
_DENSITY = "Kernel density under the whole pool: near-duplicates, itself and its copies included; at least the count."
_PROBABILITY = "How probable the example is in the task's training set; all of a task sum to 1."
_NEAREST = "Record id of the query that is nearest."
_DISTANCE = "Plain L2 distance to the nearest query."

_METRICS = {
    name: _column(f"{metric.meaning}; {metric.better} is better.", "sampled_subset.content_id")
    for name, metric in METRICS.items()
}

COLUMNS: dict[str, dict[str, Column]] = {
    "candidate_corpus": {
        "content_id": _column(_CONTENT_ID),
        "text": _column("The normalised text, which is embedded."),
        "count": _column(_COUNT),
        "record_ids": _column("The ids of all copies, sorted."),
        "variants": _column("The different records among the copies: first id, and all fields as JSON."),
        "vector": _column("The vector that was given with the record."),
    },
    "gradient_warmup": {
        "epoch": _column("Number of the epoch, from 1."),
        "step": _column("Optimizer steps up to its end."),
        "learning_rate": _column("Mean learning rate of its steps, which its gradients are weighted with."),
        "loss": _column(
            "Mean loss of its texts, each before the step it took part in.", "candidate_corpus.text"
        ),
        "checkpoint": _column(
            "Its adapter: the folder in storage/gradient_warmups.", "candidate_corpus.text"
        ),
        "content": _column("Hash of the adapter and of Adam's moments."),
    },
    "candidate_embeddings": {
        "content_id": _column(_CONTENT_ID, "candidate_corpus.content_id"),
        "count": _column(_COUNT, "candidate_corpus.count"),
    },
    "faiss_index": {
        "content_id": _column(_CONTENT_ID, "candidate_embeddings.content_id"),
        "count": _column(_COUNT, "candidate_embeddings.count"),
    },
    "kde_densities": {
        "content_id": _column(_CONTENT_ID, "faiss_index.content_id"),
        "count": _column(_COUNT, "faiss_index.count"),
        "density": _column(_DENSITY, "faiss_index.count"),
    },
    "pool_summary": {
        "source": _column("Key of the source."),
        "candidates": _column("Its distinct records.", "kde_densities.content_id"),
        "copies": _column("Its records with all copies.", "kde_densities.count"),
        "total_weight": _column(
            "Its share of S, the sum of count / density over the pool: distinct candidates, near-duplicates as one.",
            "kde_densities.count",
            "kde_densities.density",
        ),
        "near_duplicates": _column(
            "Its records that another one is within the kernel radius of.",
            "kde_densities.count",
            "kde_densities.density",
        ),
        "densities_version": _column("Data version of its densities."),
    },
    "pool_map": {
        "source": _column("Source of the candidate."),
        "content_id": _column(_CONTENT_ID, "candidate_embeddings.content_id"),
        "x": _column("Place on the map; its units mean nothing.", "candidate_embeddings.content_id"),
        "y": _column("Place on the map; its units mean nothing.", "candidate_embeddings.content_id"),
    },
    "query_examples": {
        "content_id": _column("Hash of the normalised text (and of the vector, where vectors are given)."),
        "record_id": _column("The query's own id, or a hash of its content."),
        "text": _column("The normalised text, which is embedded."),
        "record": _column("The other fields of the record, as JSON."),
        "vector": _column("The vector that was given with the query."),
    },
    "query_embeddings": {
        "content_id": _column("Hash of the query's normalised text.", "query_examples.content_id"),
        "record_id": _column("The query's own id.", "query_examples.record_id"),
    },
    "query_neighbors": {
        "query": _column("Row of the query in its table.", "query_embeddings.record_id"),
        "candidate": _column("Row of the candidate in its source.", "faiss_index.content_id"),
        "content_id": _column(_CONTENT_ID, "kde_densities.content_id"),
        "count": _column(_COUNT, "kde_densities.count"),
        "distance": _column("Plain L2 distance of the query and the candidate."),
        "density": _column(_DENSITY, "kde_densities.density"),
    },
    "selection_probabilities": {
        "source": _column("Source of the candidate.", "pool_summary.source"),
        "id": _column("Its first record id.", "candidate_corpus.variants"),
        "content_id": _column(_CONTENT_ID, "kde_densities.content_id"),
        "probability": _column(
            _PROBABILITY, "query_neighbors.distance", "kde_densities.density", "kde_densities.count"
        ),
        "density": _column(_DENSITY, "kde_densities.density"),
        "count": _column(_COUNT, "kde_densities.count"),
        "nearest_query": _column(_NEAREST, "query_embeddings.record_id"),
        "distance": _column(_DISTANCE, "query_neighbors.distance"),
        "plan": _column(
            "The queries (by row) that give it mass, and how much; where the notes of the result have a background, "
            "how much more or less than that gives it.",
            "query_neighbors.query",
            "query_neighbors.distance",
            "kde_densities.density",
            "kde_densities.count",
        ),
    },
    "sampled_subset": {
        "epoch": _column("The epoch of training, from 0."),
        "draw": _column("Place within the epoch, from 0; the order is random."),
        "source": _column("Source of the example, the first of several.", "candidate_corpus.record_ids"),
        "id": _column("Id of the example's first record.", "candidate_corpus.variants"),
        "text": _column("The normalised text.", "candidate_corpus.text"),
        "probability": _column(_PROBABILITY, "selection_probabilities.probability"),
        "density": _column(_DENSITY, "selection_probabilities.density"),
        "nearest_query": _column(_NEAREST, "selection_probabilities.nearest_query"),
        "distance": _column(_DISTANCE, "selection_probabilities.distance"),
        "content_id": _column(_CONTENT_ID, "selection_probabilities.content_id"),
        "copies": _column("All records with this text: source and id.", "candidate_corpus.record_ids"),
        "record": _column("All fields of the first record, as JSON.", "candidate_corpus.variants"),
        "variants": _column("Records with this text but other fields, as JSON.", "candidate_corpus.variants"),
    },
    "selection_report": {
        "method": _column("What selected: the task's own settings (selection), or a baseline."),
        "fold": _column("Which part of the queries was held back and judged it."),
        "size": _column("How many examples it selected."),
        **_METRICS,
    },
    "selection_comparison": {
        "method": _column("What selected: the task's own settings (selection), or a baseline."),
        "fold": _column("Which part of the queries was held back and judged it."),
        "size": _column("How many examples it selected."),
        **_METRICS,
    },
}
COLUMNS["training_mixture"] = {
    **COLUMNS["sampled_subset"],
    "task": _column("The task that took the example.", "selection_probabilities.content_id"),
}
# What follows in a sample are the fields of the user's own records.
_TOKENS = _column("How many tokens the text has, by the tokenizer of the settings.", "candidate_corpus.text")
_FIELD = _column("A field of the record, as its source has it.", "candidate_corpus.variants")


def column_schema(asset: str, frame: pl.DataFrame) -> dg.TableSchema:
    """The columns of the table that ``asset`` stores, with what they are."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, str(dtype), description=_described(asset, name).description)
            for name, dtype in frame.schema.items()
        ]
    )


def column_lineage(asset: str, frame: pl.DataFrame, encoder: str) -> dg.TableColumnLineage:
    """Which columns upstream those of the table come from, as far as they come from any.

    What an encoder decides is that of ``encoder``.
    """
    dependencies = {name: _dependencies(_described(asset, name), encoder) for name in frame.columns}
    return dg.TableColumnLineage({name: found for name, found in dependencies.items() if found})


def _described(asset: str, name: str) -> Column:
    columns = COLUMNS[asset]
    if name == "tokens" and asset in EXPORTED:
        return _TOKENS
    return columns.get(name, _FIELD) if asset in EXPORTED else columns[name]


def _dependencies(column: Column, encoder: str) -> list[dg.TableColumnDep]:
    named = (name.split(".") for name in column.made_from)
    return [
        dg.TableColumnDep(
            asset_key(node_name(asset, encoder=encoder if asset in OF_ENCODER else DEFAULT_ENCODER)), name
        )
        for asset, name in named
    ]
