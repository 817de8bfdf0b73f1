"""What is logged, as lines of JSON where TSDS_LOG=json says so: for whoever collects the logs of many processes.

Without it everything prints as it always did. What is logged, and when, is where it happens.
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

from tsds_pipeline.node_names import asset_of

VARIABLE = "TSDS_LOG"
NAME = "tsds_pipeline"
FIELDS = "tsds"
"""Attribute of a record with further fields of its line; "node" stands for asset, partition, source and task."""
_PARTITION = "dagster/partition"


def is_json() -> bool:
    """Whether the environment asks for lines of JSON."""
    return os.environ.get(VARIABLE, "").strip().lower() == "json"


def use_json_if_asked() -> None:
    """From here on log lines of JSON on standard error, if the environment asks for them."""
    logger = logging.getLogger(NAME)
    if not is_json() or any(isinstance(one.formatter, JsonFormatter) for one in logger.handlers):
        return
    logging.captureWarnings(True)
    for name in (NAME, "py.warnings"):
        one = logging.getLogger(name)
        one.handlers, one.propagate = [_handler()], False
    logger.setLevel(logging.INFO)


def json_logger(name: str, level: str | int) -> logging.Logger:
    """A logger apart from all others that prints lines of JSON: what Dagster's runs and sensors log to."""
    logger = logging.Logger(name, level.upper() if isinstance(level, str) else level)
    logger.addHandler(_handler())
    return logger


def log(level: int, message: str, **fields: Any) -> None:
    """Log ``message`` outside of a run, with further ``fields``."""
    logging.getLogger(NAME).log(level, message, extra=extra(**fields))


def extra(**fields: Any) -> dict[str, Any]:
    """``extra`` of a call that logs, for further ``fields`` of its line."""
    return {FIELDS: fields}


def _handler() -> logging.Handler:
    handler = _StandardError()
    handler.setFormatter(JsonFormatter())
    return handler


class _StandardError(logging.StreamHandler):
    """Writes to what standard error is at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, and what it is about as far as that is known.

    That is asset, partition, source, task and run_id; for a sensor its name, for an error its traceback as exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        # Of a record that went through Dagster, what it adds: the run, the step, the event.
        meta = getattr(record, "dagster_meta", None) or {}
        fields = dict(getattr(record, FIELDS, {}))
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": meta.get("orig_message") or record.getMessage(),
            **_about(fields.pop("node", None) or _node(meta)),
            "run_id": meta.get("run_id"),
            "job": meta.get("job_name"),
            "sensor": meta.get("name"),
            "exception": self._error(record, meta),
            **fields,
        }
        return json.dumps({name: value for name, value in line.items() if value is not None}, default=str)

    def _error(self, record: logging.LogRecord, meta: dict[str, Any]) -> str | None:
        if record.exc_info and record.exc_info[0]:
            return self.formatException(record.exc_info)
        error = getattr(getattr(meta.get("dagster_event"), "event_specific_data", None), "error", None)
        return error.to_string() if error is not None else None


def _about(node: str | None) -> dict[str, str | None]:
    if node is None:
        return {}
    from tsds_pipeline.graph import keys_of

    asset, _, partition = node.partition("|")
    source, task = keys_of(node)
    return {"asset": asset, "partition": partition or None, "source": source, "task": task}


def _node(meta: dict[str, Any]) -> str | None:
    """The node of the step that logs, as far as there is one."""
    from tsds_pipeline.graph import CODE_VERSIONS

    event = meta.get("dagster_event")
    key = getattr(event, "asset_key", None)
    asset = key.to_user_string() if key is not None else (meta.get("op_name") or meta.get("step_key") or "")
    # Dagster writes the key of an asset, a/b, as the name of an op, a__b.
    asset = asset.replace("__", "/")
    if key is None and asset_of(asset) not in CODE_VERSIONS:
        return None
    partition = getattr(event, "partition", None) or (meta.get("job_tags") or {}).get(_PARTITION)
    return f"{asset}|{partition}" if partition else asset
