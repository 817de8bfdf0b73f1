"""Requests that are tried again because that can help, and others that are not, with real servers that fail."""

from collections.abc import Iterator
from http import HTTPStatus

import pytest

from tests.servers import Hub, WebServer
from tsds_pipeline import remote_files
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.hub import model_files
from tsds_pipeline.remote_files import RemoteFile, fetch
from tsds_pipeline.retries import PAUSES_S

CONTENT = b'{"text": "x"}\n' * 1000
LOST = None
"""A connection that ends without an answer."""
BUSY, LIMITED, BROKEN = (
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)


@pytest.fixture(autouse=True)
def _no_memory_of_failures(monkeypatch):
    monkeypatch.setattr(remote_files, "_failed_slowly", {})


@pytest.fixture
def s3(web: WebServer, monkeypatch) -> Iterator[WebServer]:
    """The web server, as an S3 server that the environment names."""
    for name, value in {
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
        "DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.address("").rstrip("/"))
    from s3fs import S3FileSystem

    # One that is kept goes on asking the server that the environment named when it was made.
    S3FileSystem.clear_instance_cache()
    yield web
    S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["web", "s3", "hub"])
def served(request) -> tuple[WebServer, str]:
    """A server, and the address of the only file on it."""
    server: WebServer = request.getfixturevalue(request.param)
    name = "owner/name/a.jsonl" if request.param == "hub" else "bucket/a.jsonl"
    server.files[name] = CONTENT
    before = {"web": server.address(""), "s3": "s3://", "hub": "hf://datasets/"}[request.param]
    return server, before + name


def listed(address: str) -> list[RemoteFile]:
    return remote_files.remote_files("tsds.toml: [sources.a] path", address, [])


class TestWhatMayPass:
    @pytest.mark.parametrize("troubles", [[BUSY], [LOST, LIMITED, BROKEN]])
    def test_a_listing_and_a_download_come_through(self, served, tmp_path, pauses, troubles):
        server, address = served
        server.troubles = list(troubles)
        (file,) = listed(address)
        server.troubles = list(troubles)
        copy = file.copy_in(tmp_path)
        fetch(file, copy)
        assert copy.read_bytes() == CONTENT
        assert server.troubles == []
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [copy]

    def test_each_pause_is_longer_and_there_is_an_end(self, served, pauses):
        server, address = served
        server.troubles = [BUSY] * 1000
        with pytest.raises(
            TsdsError, match=r"try again later|see whether the address is right and the server up"
        ):
            listed(address)
        assert pauses == list(PAUSES_S) == sorted(set(PAUSES_S))
        assert len(server.requests) <= 2 * (len(PAUSES_S) + 1)

    def test_a_download_that_breaks_off(self, web: WebServer, tmp_path, pauses):
        def broken():
            web.halfway = lambda: None
            raise ConnectionAbortedError

        web.files["a.jsonl"], web.halfway = CONTENT, broken
        (file,) = listed(web.address("a.jsonl"))
        fetch(file, copy := file.copy_in(tmp_path))
        assert copy.read_bytes() == CONTENT
        assert len(pauses) == 1

    def test_a_server_that_is_away(self, web: WebServer, pauses):
        address = web.address("a.jsonl")
        web.__exit__()
        with pytest.raises(TsdsError, match="cannot be read"):
            listed(address)
        assert pauses == list(PAUSES_S)


class TestWhatStaysSo:
    @pytest.mark.parametrize("status", [HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST])
    def test_an_answer(self, served, pauses, status):
        server, address = served
        server.troubles = [status] * 1000
        with pytest.raises(TsdsError):
            listed(address)
        assert pauses == []

    def test_content_that_is_another_one(self, web: WebServer, tmp_path, pauses):
        web.files["a.jsonl"] = CONTENT
        (file,) = listed(web.address("a.jsonl"))
        web.files["a.jsonl"] = CONTENT * 2
        with pytest.raises(TsdsError, match="changed while it was downloaded"):
            fetch(file, file.copy_in(tmp_path))
        assert pauses == []


class TestModels:
    @pytest.fixture
    def model(self, hub: Hub, monkeypatch, tmp_path) -> Hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        return hub

    def test_a_hub_that_stays_down(self, model: Hub, pauses):
        model.troubles = [BUSY] * 1000
        with pytest.raises(TsdsError, match="said cannot be found: remedy"):
            model_files("owner/name", "said", "remedy")
        assert pauses == list(PAUSES_S)

    def test_a_model_that_is_not_there(self, model: Hub, pauses):
        model.troubles = [HTTPStatus.NOT_FOUND] * 1000
        with pytest.raises(TsdsError, match="said cannot be found: remedy"):
            model_files("owner/name", "said", "remedy")
        assert pauses == []

    def test_no_hub_wanted(self, model: Hub, pauses, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(TsdsError, match="said cannot be found: remedy"):
            model_files("owner/name", "said", "remedy")
        assert (pauses, model.requests) == ([], [])
