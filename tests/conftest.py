"""What tests share: a quiet, offline, repeatable environment, and example data where there is some."""

import os
from pathlib import Path

import hypothesis
import pytest

# Before numpy or torch is imported: two workers on two cores must not start four threads each.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ.setdefault(name, "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
# No test sees the project or the Dagster instance of whoever runs it.
for name in ("TSDS_PROJECT", "DAGSTER_HOME"):
    os.environ.pop(name, None)

# No example database and a fixed choice of examples: a test passes or fails for everybody.
hypothesis.settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Example data in the layout of a project (sources/, tasks/); skips where there is none.

    TSDS_SHARED_DATA names the folder; the default is shared/data beside the repository.
    """
    folder = Path(os.environ.get("TSDS_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "sources").is_dir():
        pytest.skip(f"no example data in {folder} (set TSDS_SHARED_DATA)")
    return folder
