"""Making one model: its SELECT straight into a Parquet file, and its checks on that."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsds_pipeline.damage import put_aside
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import Observed, current_versions, node_path, not_made, stored
from tsds_pipeline.provenance import model_header
from tsds_pipeline.sql.lineage import sql_error
from tsds_pipeline.sql.models import WARN, Check, Model
from tsds_pipeline.sql.relations import file_literal, quoted
from tsds_pipeline.sql.warehouse import add_view, run_query
from tsds_pipeline.stages.history import FOLDER as HISTORY
from tsds_pipeline.stages.history import damaged_records
from tsds_pipeline.storage import Artifact, Header, file_metadata, write_table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROWS_SHOWN = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    check: Check
    problem: str | None
    """None where it passed."""
    failing: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The first failing rows."""

    @property
    def is_warning(self) -> bool:
        return self.check.severity == WARN


def make_model(
    connection: "DuckDBPyConnection", model: Model, observed: Observed
) -> tuple[Artifact, list[Verdict]]:
    """Store the result of ``model`` as it comes out of what is stored now. TsdsError where that does not work.

    Records of the history that cannot be read are set aside, and told of: nothing could make them again.
    """
    try:
        return _make_model(connection, model, observed)
    except TsdsError:
        damaged = damaged_records(observed.project.storage) if HISTORY in model.reads else []
        if not damaged:
            raise
        for path in damaged:
            put_aside(path)
            logger.warning(
                "%s: cannot be read, so it was set aside: that version is lost to the history", path
            )
        return _make_model(connection, model, observed)


def _make_model(
    connection: "DuckDBPyConnection", model: Model, observed: Observed
) -> tuple[Artifact, list[Verdict]]:
    if model.problem is not None or model.select is None:
        raise TsdsError(model.problem or f"{model.file.path}: cannot be made")
    # Before anything is read: what changes meanwhile makes it stale.
    versions = current_versions([model.name], observed)
    _add_views(connection, model.reads, observed)
    verdicts: list[Verdict] = []

    def write(path: Path) -> Header:
        header = model_header(model.name, observed, versions)
        _copy(connection, model, path, header)
        table = f"SELECT * FROM read_parquet({file_literal(path)})"
        connection.execute(f'CREATE OR REPLACE VIEW "{model.name}" AS {table}')
        verdicts.extend(_verdict(connection, check, observed) for check in model.checks)
        failed = {one.check.name: one.problem for one in verdicts if one.problem is not None}
        if not failed:
            return header
        header = model_header(model.name, observed, versions, failed)
        complete = path.with_name(f"{path.name}.checked.tmp")
        try:
            _copy_to(connection, table, complete, header)
            complete.replace(path)
        finally:
            complete.unlink(missing_ok=True)
        return header

    made = write_table(node_path(observed.project.storage, model.name), write)
    add_view(connection, model.name, observed)
    return made, verdicts


def _add_views(connection: "DuckDBPyConnection", names: tuple[str, ...], observed: Observed) -> None:
    for name in names:
        if name in observed.models and stored(observed.project.storage, name) is None:
            raise not_made(name)
        add_view(connection, name, observed)


def _copy(connection: "DuckDBPyConnection", model: Model, path: Path, header: Header) -> None:
    import duckdb

    try:
        _copy_to(connection, model.select.text, path, header)
    except duckdb.Error as error:
        raise sql_error(model.file.path, error) from None


def _copy_to(connection: "DuckDBPyConnection", query: str, path: Path, header: Header) -> None:
    metadata = ", ".join(f"{key}: {quoted(text)}" for key, text in file_metadata(header).items())
    # The query begins on the first line, so that lines in messages are those of its file.
    run_query(
        connection,
        f"COPY ({query}\n) TO {quoted(str(path))} (FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{metadata}}})",
    )


def _verdict(connection: "DuckDBPyConnection", check: Check, observed: Observed) -> Verdict:
    import duckdb

    others = tuple(name for name in _reads(check) if name != check.of)
    try:
        _add_views(connection, others, observed)
        (failing,) = run_query(connection, f"SELECT count(*) FROM ({check.select.text}\n)").fetchone()
        if not failing:
            return Verdict(check, None)
        found = run_query(connection, f"FROM ({check.select.text}\n) LIMIT {ROWS_SHOWN}")
        columns = [column[0] for column in found.description]
        rows = [dict(zip(columns, row, strict=True)) for row in found.fetchall()]
    except duckdb.Error as error:
        return Verdict(check, str(sql_error(check.file.path, error)))
    except TsdsError as error:
        return Verdict(check, f"{check.file.path}: {error}")
    return Verdict(check, f"{failing:,} failing rows, the first: {_shown(rows[0])}", failing, rows)


def _reads(check: Check) -> tuple[str, ...]:
    return tuple(dict.fromkeys(table.name.removeprefix("main.") for table in check.select.tables))


def _shown(row: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
    )
