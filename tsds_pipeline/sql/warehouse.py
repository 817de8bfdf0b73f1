"""A database of views over all relations and models: in memory for making models, as a file for a prompt.

Views name the files of the sources, tasks and mixtures there are, and hold no data: nobody who reads them blocks a
writer.
"""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsds_pipeline.graph import Observed, node_path, stored
from tsds_pipeline.sql.embedding_statistics import FOLDER as EMBEDDING_STATISTICS
from tsds_pipeline.sql.embedding_statistics import keep_statistics
from tsds_pipeline.sql.relations import RELATIONS, file_literal, quoted, relation_sql
from tsds_pipeline.storage import write_atomically

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FILE = "warehouse.duckdb"
# Never a download, and no code that is not DuckDB's own.
_CONFIG = {
    "allow_community_extensions": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}


@contextlib.contextmanager
def scratch(observed: Observed) -> Iterator["DuckDBPyConnection"]:
    """A database in memory for making models; :func:`add_view` gives it what they read."""
    import duckdb

    # In one thread sums have one order, so that the same inputs give the same bytes.
    # Where what does not fit in memory goes, made when it is needed.
    storage = observed.project.storage
    settings = {**_CONFIG, "threads": 1, "temp_directory": str(storage / f".duckdb-{os.getpid()}.tmp")}
    with duckdb.connect(config=settings) as connection:
        # A SELECT that somebody put into the project reaches nothing but what the pipeline stores.
        # Where files are read, its path is a pattern.
        connection.execute(f"SET allowed_directories = [{quoted(str(storage))}, {file_literal(storage)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection


def add_view(connection: "DuckDBPyConnection", name: str, observed: Observed) -> None:
    """Make the relation or model ``name`` readable, as it is stored now."""
    if name == EMBEDDING_STATISTICS:
        _keep_statistics(observed)
    connection.execute(_view(name, _query(name, observed)))


def unmade_models(observed: Observed) -> list[str]:
    """The models that have no result yet."""
    return [name for name in observed.models if stored(observed.project.storage, name) is None]


def write_warehouse(observed: Observed) -> Path:
    """Write the database of views beside the one that there is, and put it in its place.

    A model that was never made has none.
    """
    import duckdb

    _keep_statistics(observed)
    unmade = unmade_models(observed)
    made = [name for name in observed.models if name not in unmade]
    views = [(name, _query(name, observed), RELATIONS[name].description) for name in RELATIONS]
    views += [(name, _query(name, observed), observed.models[name].file.description) for name in made]

    def write(path: Path) -> None:
        try:
            with duckdb.connect(str(path), config=_CONFIG) as connection:
                connection.begin()
                for name, query, description in views:
                    connection.execute(_view(name, query))
                    connection.execute(f'COMMENT ON VIEW "{name}" IS {quoted(description)}')
                connection.commit()
        finally:  # where there was no room for the whole of it
            path.with_name(f"{path.name}.wal").unlink(missing_ok=True)

    path = observed.project.storage / FILE
    write_atomically(path, write)
    return path


def open_warehouse(observed: Observed) -> "DuckDBPyConnection":
    """The warehouse of the project as it is now, to be read only."""
    import duckdb

    path = write_warehouse(observed)
    return duckdb.connect(str(path), read_only=True, config=_CONFIG)


def run_query(connection: "DuckDBPyConnection", query: Any) -> "DuckDBPyConnection":
    """Run the statement ``query``, which a Ctrl-C or the end of a run stops at once; ``connection`` with its result.

    In a thread of its own: while DuckDB works in the main one, a signal may wait for the end of the query, or comes out
    as an error of it.
    """
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(connection.execute, query)
        try:
            # Looked for now and then: a signal that another thread was given wakes nobody up.
            while wait([running], 0.1).not_done:
                pass
        except BaseException:
            # More than once: what comes before the query has begun is forgotten.
            while wait([running], 0.1).not_done:
                connection.interrupt()
            raise
        return running.result()


def _view(name: str, query: str) -> str:
    return f'CREATE OR REPLACE VIEW "{name}" AS {query}'


def _query(name: str, observed: Observed) -> str:
    storage = observed.project.storage
    if name in RELATIONS:
        return relation_sql(name, storage, observed.keys)
    return f"SELECT * FROM read_parquet({file_literal(node_path(storage, name))})"


def _keep_statistics(observed: Observed) -> None:
    storage = observed.project.storage
    for source in observed.sources:
        if (embeddings := stored(storage, f"candidate_embeddings|{source}")) is not None:
            keep_statistics(storage, source, embeddings)
