"""The relations that SQL may read beside models: what the pipeline stores, with the key of each file as a column.

A relation whose files are not there yet is empty, and of the same types.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tsds_pipeline.sql.embedding_statistics import FOLDER as EMBEDDING_STATISTICS

MATERIALIZATIONS = "materializations"


@dataclass(frozen=True)
class Relation:
    """Files of one kind as one table."""

    description: str
    columns: dict[str, str]
    """DuckDB's types of the columns that every file has, in order."""
    keys: tuple[str, ...] = ()
    """What the files are by, in the order of their path, and columns of the relation: "source", "task", "mixture"."""
    made_by: tuple[str, ...] = ()
    """The assets and inputs whose change makes what reads it stale; by default the asset of its name."""
    growing: bool = False
    """Whether a key has a folder of files, and files may have more columns than ``columns``."""
    of_everything: bool = False
    """Whether it tells of all results, so that what reads it is stale with any of them."""


_CANDIDATE = {"content_id": "VARCHAR", "count": "BIGINT"}
RELATIONS = {
    "candidate_corpus": Relation(
        "The records of each source; exact copies are one row.",
        {"content_id": "VARCHAR", "text": "VARCHAR", "count": "BIGINT", "record_ids": "VARCHAR[]",
         "variants": "STRUCT(record_id VARCHAR, record VARCHAR)[]"},
        ("source",),
    ),
    "candidate_embeddings": Relation("Which candidates have a vector.", _CANDIDATE, ("source",)),
    EMBEDDING_STATISTICS: Relation(
        "What the vectors of each source are like.",
        {"vectors": "BIGINT", "dimensions": "BIGINT", "mean_length": "DOUBLE", "concentration": "DOUBLE"},
        ("source",),
        ("candidate_embeddings",),
    ),
    "faiss_index": Relation("Which candidates each search index holds.", _CANDIDATE, ("source",)),
    "kde_densities": Relation(
        "How many near-duplicates each candidate has in the whole pool.",
        {**_CANDIDATE, "density": "DOUBLE"},
        ("source",),
    ),
    "pool_summary": Relation(
        "The pool, a row a source.",
        {"source": "VARCHAR", "candidates": "BIGINT", "copies": "BIGINT", "total_weight": "DOUBLE",
         "near_duplicates": "BIGINT"},
    ),
    "pool_map": Relation(
        "Where a sample of the candidates lies on the map of the pool.",
        {"source": "VARCHAR", "content_id": "VARCHAR", "x": "FLOAT", "y": "FLOAT"},
    ),
    "query_examples": Relation(
        "The queries of each task.",
        {"content_id": "VARCHAR", "record_id": "VARCHAR", "text": "VARCHAR", "record": "VARCHAR"},
        ("task",),
    ),
    "query_embeddings": Relation(
        "Which queries have a vector.", {"content_id": "VARCHAR", "record_id": "VARCHAR"}, ("task",)
    ),
    "query_neighbors": Relation(
        "The candidates of a source that are nearest to each query of a task.",
        {"query": "BIGINT", "candidate": "BIGINT", "content_id": "VARCHAR", "count": "BIGINT",
         "distance": "DOUBLE", "density": "DOUBLE"},
        ("source", "task"),
    ),
    "selection_probabilities": Relation(
        "Every candidate that has mass for a task.",
        {"source": "VARCHAR", "id": "VARCHAR", "content_id": "VARCHAR", "probability": "DOUBLE",
         "density": "DOUBLE", "count": "BIGINT", "nearest_query": "VARCHAR", "distance": "DOUBLE",
         "plan": "STRUCT(query INTEGER, mass DOUBLE)[]"},
        ("task",),
    ),
    "sampled_subset": Relation(
        "What was drawn for each task; the records' own fields are in `record`, as JSON.",
        {"epoch": "BIGINT", "draw": "BIGINT", "source": "VARCHAR", "id": "VARCHAR", "text": "VARCHAR",
         "probability": "DOUBLE", "density": "DOUBLE", "nearest_query": "VARCHAR", "distance": "DOUBLE",
         "content_id": "VARCHAR", "copies": "STRUCT(source VARCHAR, id VARCHAR)[]", "record": "VARCHAR",
         "variants": "VARCHAR[]"},
        ("task",),
    ),
    "training_mixture": Relation(
        "What was drawn for each mixture of tasks; the records' own fields are in `record`, as JSON.",
        {"task": "VARCHAR", "epoch": "BIGINT", "draw": "BIGINT", "source": "VARCHAR", "id": "VARCHAR",
         "text": "VARCHAR", "probability": "DOUBLE", "density": "DOUBLE", "nearest_query": "VARCHAR",
         "distance": "DOUBLE", "content_id": "VARCHAR", "copies": "STRUCT(source VARCHAR, id VARCHAR)[]",
         "record": "VARCHAR", "variants": "VARCHAR[]"},
        ("mixture",),
    ),
    "selection_report": Relation(
        "How good each task's selection is by parts of its queries that were held back, and what others would be.",
        {"method": "VARCHAR", "fold": "BIGINT", **dict.fromkeys(
            ("transport_distance", "energy_distance", "maximum_mean_discrepancy", "held_back_distance",
             "facility_location", "kl_reduction", "vendi_score", "near_duplicate_rate", "unique_share",
             "effective_sample_size", "leaks"), "DOUBLE")},
        ("task",),
    ),
    "quarantine": Relation(
        "The records that cannot be used.",
        {"file": "VARCHAR", "line": "BIGINT", "reason": "VARCHAR", "excerpt": "VARCHAR"},
        ("source",),
        # The files too: the corpus may be what it was while its bad records are others.
        ("source_files", "candidate_corpus"),
    ),
    "excluded": Relation(
        "The records that are not wanted, by a field's value or for a test set.",
        {"file": "VARCHAR", "line": "BIGINT", "rule": "VARCHAR", "reason": "VARCHAR", "excerpt": "VARCHAR"},
        ("source",),
        ("source_files", "candidate_corpus"),
    ),
    "leaks": Relation(
        "What gives away a query or a test record of each task, and whether it was left out.",
        {"source": "VARCHAR", "id": "VARCHAR", "content_id": "VARCHAR", "why": "VARCHAR", "of": "VARCHAR",
         "record_id": "VARCHAR", "distance": "DOUBLE", "excerpt": "VARCHAR", "dropped": "BOOLEAN"},
        ("task",),
        ("selection_probabilities", "sampled_subset"),
    ),
    "selection_history": Relation(
        "Every sample that a task has had; then follow the measures of its quality.",
        {"task": "VARCHAR", "version": "VARCHAR", "number": "BIGINT", "made_at": "TIMESTAMP", "size": "BIGINT",
         "epochs": "BIGINT", "seed": "BIGINT", "algorithm": "VARCHAR", "alpha": "DOUBLE",
         "kernel_radius": "DOUBLE", "redraws": "BIGINT", "kept": "BIGINT", "added": "BIGINT",
         "dropped": "BIGINT", "content_ids": "VARCHAR[]"},
        ("task",),
        ("selection_report",),
        growing=True,
    ),
    MATERIALIZATIONS: Relation(
        "Every result that was stored, when and what it cost.",
        {"made_at": "TIMESTAMP", "asset": "VARCHAR", "source": "VARCHAR", "task": "VARCHAR",
         "version": "VARCHAR", "seconds": "DOUBLE", "peak_memory": "BIGINT", "rows": "BIGINT", "bytes": "BIGINT",
         "made_because": "VARCHAR", "run_id": "VARCHAR"},
        of_everything=True,
    ),
}  # fmt: skip


def made_by(name: str) -> tuple[str, ...]:
    """The assets and inputs behind the relation ``name``; none where it tells of everything."""
    relation = RELATIONS[name]
    return () if relation.of_everything else relation.made_by or (name,)


def relation_sql(name: str, storage: Path, known: Mapping[str, Sequence[str]]) -> str:
    """The query behind the relation ``name``: only of the ``known`` sources, tasks and mixtures (by "source", "task"
    and "mixture"), whatever else is stored.
    """
    relation = RELATIONS[name]
    files = [path for path in _files(name, storage, known) if path.is_file()]
    keys = [key for key in relation.keys if key not in relation.columns]
    if not files:
        types = dict.fromkeys(keys, "VARCHAR") | relation.columns
        empty = ", ".join(f'NULL::{dtype} AS "{column}"' for column, dtype in types.items())
        return f"SELECT {empty} WHERE false"
    listed = ", ".join(file_literal(path) for path in files)
    own = [f'"{column}"::{dtype} AS "{column}"' for column, dtype in relation.columns.items()]
    if name == MATERIALIZATIONS:
        types = ", ".join(f"'{column}': '{dtype}'" for column, dtype in relation.columns.items())
        # A line that a killed process left half-written has no asset.
        return (
            f"SELECT * FROM read_json([{listed}], format = 'newline_delimited', ignore_errors = true, "
            f"columns = {{{types}}}) WHERE asset IS NOT NULL"
        )
    if relation.growing:
        # Files have instants, and only a plain time is the same wherever it is read.
        times = [column for column, dtype in relation.columns.items() if dtype == "TIMESTAMP"]
        plain = ", ".join(f"make_timestamp(epoch_us({column})) AS {column}" for column in times)
        return f"SELECT * REPLACE ({plain}) FROM read_parquet([{listed}], union_by_name = true)"
    # Keys are names of files and folders; the last one of the path comes first here.
    places = {keys[-1]: "parse_filename(filename, true)"} if keys else {}
    places |= dict.fromkeys(keys[:-1], "parse_path(filename)[-2]")
    columns = ", ".join([*(f"{places[key]} AS {key}" for key in keys), *own])
    return f"SELECT {columns} FROM read_parquet([{listed}])"


def file_literal(path: Path) -> str:
    """``path`` as a string of SQL, in which nothing is a wildcard."""
    return quoted(re.sub(r"([*?\[])", r"[\1]", str(path)))


def quoted(text: str) -> str:
    """``text`` as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _files(name: str, storage: Path, known: Mapping[str, Sequence[str]]) -> list[Path]:
    relation, folder = RELATIONS[name], storage / name
    if name == MATERIALIZATIONS:
        return sorted(folder.glob("*.jsonl"))
    if relation.growing:
        (key,) = relation.keys
        return [path for value in known[key] for path in sorted((folder / value).glob("*.parquet"))]
    match relation.keys:
        case ():
            return [storage / f"{name}.parquet"]
        case (key,):
            return [folder / f"{value}.parquet" for value in known[key]]
    first, second = (known[key] for key in relation.keys)
    return [folder / one / f"{other}.parquet" for one in first for other in second]
