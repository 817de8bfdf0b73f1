"""What tests share: a quiet, offline, repeatable environment, servers, and example data where there is some."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

if TYPE_CHECKING:
    from tests.servers import Bucket, Hub, WebServer

# Before numpy or torch is imported: two workers on two cores must not start four threads each.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ.setdefault(name, "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
# Servers of the tests are on this machine.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
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

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
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


@pytest.fixture(scope="session", autouse=True)
def migrations_read_once() -> Iterator[None]:
    """Dagster reads its hundred migration scripts again whenever it opens a database, which tests do all the time."""
    original, read = ScriptDirectory.from_config, {}

    def from_config(config: Config) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in read:
            read[location] = original(config)
        return read[location]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", from_config)
        yield


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """The pauses before requests that are tried again: noted instead of made."""
    noted: list[float] = []
    monkeypatch.setattr("tsds_pipeline.retries.sleep", noted.append)
    return noted


@pytest.fixture
def web() -> Iterator["WebServer"]:
    """A web server on this machine."""
    from tests.servers import WebServer

    with WebServer() as server:
        yield server


@pytest.fixture
def hub(monkeypatch) -> Iterator["Hub"]:
    """A Hugging Face hub on this machine, which the environment names."""
    from huggingface_hub import constants

    from tests.servers import Hub

    monkeypatch.delenv("HF_TOKEN", raising=False)
    with Hub() as server:
        # Read from the environment when huggingface_hub is imported, which was long ago.
        endpoint = server.address("").rstrip("/")
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch) -> "Bucket":
    """An empty bucket of the S3 server that the environment names."""
    from tests.servers import Bucket

    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return Bucket(f"bucket-{secrets.token_hex(4)}")
