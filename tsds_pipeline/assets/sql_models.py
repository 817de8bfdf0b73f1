"""Assets of dbt_like_sql/: every model is one, and all that are due are made in one step.

A model that fails stops only those that read it. What a model is, and how it is made, is in ``tsds_pipeline.sql``.
"""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import polars as pl

from tsds_pipeline.assets.columns import COLUMNS
from tsds_pipeline.assets.stage import PREVIEW_ROWS, Stage, preview_table
from tsds_pipeline.graph import Observed, asset_parents, describe
from tsds_pipeline.materializations import log_materialization
from tsds_pipeline.memory import peak_memory
from tsds_pipeline.orchestration.resources import ProjectResource
from tsds_pipeline.sql.making import Verdict, make_model
from tsds_pipeline.sql.models import STAGING, Check, Model, Models
from tsds_pipeline.sql.warehouse import scratch, write_warehouse
from tsds_pipeline.storage import Artifact

GROUP = "sql"


def model_assets(found: Models, automation: dg.AutomationCondition) -> list[dg.AssetsDefinition]:
    """The assets of all models, in one definition; none where there are no models."""
    if not found.models:
        return []

    @dg.multi_asset(
        name="sql_models",
        specs=[_spec(model, automation) for model in found.models.values()],
        check_specs=[_check_spec(check) for model in found.models.values() for check in model.checks],
        can_subset=True,
    )
    def sql_models(context: dg.AssetExecutionContext, project: ProjectResource) -> Iterator[Any]:
        """Makes the models that are asked for, each after those that it reads."""
        observed, failed = project.observe(), {}
        yield from _made(context, observed, failed)
        write_warehouse(observed)
        errors = [error for error in failed.values() if error is not None]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise dg.Failure("; ".join(map(str, errors)))

    return [sql_models]


def _made(
    context: dg.AssetExecutionContext, observed: Observed, failed: dict[str, Exception | None]
) -> Iterator[Any]:
    """Make the models that are asked for; those that could not be made are then in ``failed``, with the reason."""
    asked = {key.to_user_string() for key in context.selected_asset_keys}
    checks = {(key.asset_key.to_user_string(), key.name) for key in context.selected_asset_check_keys}
    with scratch(observed) as connection:
        for model in observed.models.values():
            if model.name not in asked:
                continue
            if before := [name for name in model.reads if name in failed]:
                context.log.warning(f"{model.name} is left as it is: it needs {before[0]}")
                failed[model.name] = None
                continue
            try:
                with Stage.of_node(model.name, observed, context) as stage:
                    made, verdicts = make_model(connection, model, observed)
            except Exception as error:
                context.log.error(f"{describe(model.name)}: {error}")
                # Without what leads to the connection: where that lives on until Python ends, DuckDB complains.
                error.__context__ = None
                failed[model.name] = error.with_traceback(None)
                continue
            results = [_result(one) for one in verdicts if (model.name, one.check.name) in checks]
            yield _materialized(stage, model, made, results, context.run_id)


def _spec(model: Model, automation: dg.AutomationCondition) -> dg.AssetSpec:
    fallback = f"The result of {model.file.path}."
    return dg.AssetSpec(
        model.name,
        description=model.file.description or fallback,
        deps=asset_parents(model),
        group_name=GROUP,
        code_version=model.code,
        kinds={"duckdb", "sql"},
        tags={"tsds/role": "intermediate" if model.file.folder == STAGING else "mart"},
        metadata={"sql": _as_code(model.file.text), "file": model.file.path},
        automation_condition=automation,
        skippable=True,
    )


def _check_spec(check: Check) -> dg.AssetCheckSpec:
    described = check.file.description or f"{check.file.path} returns no rows."
    return dg.AssetCheckSpec(
        check.name, asset=check.of, description=described, metadata={"sql": _as_code(check.file.text)}
    )


def _materialized(
    stage: Stage,
    model: Model,
    made: Artifact,
    results: Sequence[dg.AssetCheckResult],
    run_id: str,
) -> dg.MaterializeResult:
    table = made.scan()
    rows = table.select(pl.len()).collect().item()
    said = {
        "seconds": stage.seconds,
        "peak_memory": peak_memory(),
        "made_because": "; ".join(stage.reasons),
    }
    storage = stage.observed.project.storage
    log_materialization(storage, model.name, made, rows, run_id=run_id, **said)
    descriptions = _column_descriptions(model, stage.observed)
    columns = [
        dg.TableColumn(name, str(dtype), description=descriptions.get(name))
        for name, dtype in table.collect_schema().items()
    ]
    return dg.MaterializeResult(
        model.name,
        data_version=dg.DataVersion(made.version),
        check_results=results,
        metadata={
            "dagster/row_count": rows,
            "dagster/column_schema": dg.TableSchema(columns),
            **said,
            "preview": preview_table(table.head(PREVIEW_ROWS).collect()),
            "sql": _as_code(model.file.text),
        },
    )


def _column_descriptions(model: Model, observed: Observed) -> dict[str, str]:
    """What the comments in the SQL say of its columns; a column that is only passed on is what it was."""
    described = {"source": "Key of the source.", "task": "Key of the task."}
    for name in reversed(model.reads):
        if name in observed.models:
            described |= _column_descriptions(observed.models[name], observed)
        else:
            described |= {column: of.description for column, of in COLUMNS.get(name, {}).items()}
    return described | model.file.columns


def _result(verdict: Verdict) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"failing_rows": verdict.failing}
    if verdict.rows:
        frame = pl.DataFrame({name: [str(row[name]) for row in verdict.rows] for name in verdict.rows[0]})
        metadata["first_rows"] = preview_table(frame)
    severity = dg.AssetCheckSeverity.WARN if verdict.is_warning else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        passed=verdict.problem is None,
        asset_key=verdict.check.of,
        check_name=verdict.check.name,
        description=verdict.problem,
        severity=severity,
        metadata=metadata,
    )


def _as_code(text: str) -> dg.MarkdownMetadataValue:
    """``text`` as a block of code that nothing in it can end: four spaces before each line."""
    return dg.MetadataValue.md(textwrap.indent(text, "    ", lambda line: True))
