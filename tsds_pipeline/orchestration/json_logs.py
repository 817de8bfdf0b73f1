"""What Dagster prints about runs and sensors in a process that loads this project, as JSON where that is asked for.

Dagster has a setting for the daemon and the web server (--log-format json), and none for these.
"""

import logging

from dagster import _loggers as run_loggers
from dagster._core.definitions import instigation_logger

from tsds_pipeline import logs


def use_json_if_asked() -> None:
    """From here on runs, sensors and the code server of this process log as ``logs`` says."""
    logs.use_json_if_asked()
    if logs.is_json():
        run_loggers.create_console_logger = logs.json_logger
        instigation_logger.create_console_logger = logs.json_logger
        for handler in logging.getLogger("dagster").handlers:
            handler.setFormatter(logs.JsonFormatter())
