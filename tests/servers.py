"""Servers of remote files, on this machine: a web server that counts, the Hugging Face hub, and S3."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from functools import cache
from http import HTTPStatus
from typing import Any, Self

from tests.projects import as_jsonl


class Receiver:
    """A web server that takes what is posted to it: ``bodies``. It answers ``status``."""

    def __init__(self):
        self.bodies: list[Any] = []
        self.status = HTTPStatus.OK

    def __enter__(self) -> Self:
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if owner.status == HTTPStatus.OK:
                    owner.bodies.append(json.loads(body))
                self.send_response(owner.status)
                if owner.status == HTTPStatus.FOUND:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self):
                raise AssertionError("what was to be sent is lost")

            def log_message(self, *_: object):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/services/a-secret"


class WebServer:
    """Serves ``files`` by path and notes in ``requests`` what it was asked. It can be stopped and started again."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        """Which path another one is found under, query included."""
        self.headers: Callable[[bytes], dict[str, str]] = etag
        self.status = HTTPStatus.OK
        self.requests: list[str] = []
        self.troubles: list[HTTPStatus | None] = []
        """What the next requests get instead of an answer, each one: a status, or (None) a connection that ends."""
        self.halfway: Callable[[], None] = lambda: None
        """Called when half of a body is sent."""
        self._port = 0

    def __enter__(self) -> Self:
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self._answer(with_body=False)

            def do_GET(self):
                self._answer(with_body=True)

            def log_message(self, *_: object):
                pass

            def _answer(self, with_body: bool):
                if not owner.troubles:
                    owner._answer(self, with_body)
                    return
                owner.requests.append(f"{self.command} {self.path.removeprefix('/')}")
                if (status := owner.troubles.pop(0)) is not None:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                self.close_connection = True

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self._port}/{path}"

    def asked(self, method: str) -> list[str]:
        """The paths that ``method`` was asked of."""
        return [path for name, path in map(str.split, self.requests) if name == method]

    def _answer(self, handler: http.server.BaseHTTPRequestHandler, with_body: bool) -> None:
        path = handler.path.removeprefix("/")
        self.requests.append(f"{handler.command} {path}")
        if path in self.redirects:
            handler.send_response(HTTPStatus.FOUND)
            handler.send_header("Location", self.address(self.redirects[path]))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = self.files.get(path)
        handler.send_response(self.status if body is not None else HTTPStatus.NOT_FOUND)
        body = body or b""
        for name, value in (self.headers(body) | {"Content-Length": str(len(body))}).items():
            handler.send_header(name, value)
        handler.end_headers()
        if with_body:
            half = len(body) // 2
            handler.wfile.write(body[:half])
            self.halfway()
            with contextlib.suppress(BrokenPipeError):  # a client that has seen enough
                handler.wfile.write(body[half:])


def etag(body: bytes) -> dict[str, str]:
    return {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}


def last_modified(_: bytes) -> dict[str, str]:
    return {"Last-Modified": formatdate(time.time() - 3600, usegmt=True)}


class Hub(WebServer):
    """What ``huggingface_hub`` asks of the hub: ``files`` of datasets and models by "owner/name/path", all at main.

    With a ``token``, who does not give it is told, as by the hub, that there is no such dataset.
    """

    def __init__(self):
        super().__init__()
        self.token = ""
        self.commit = "0" * 40
        self.breaks_off_after: int | None = None

    def _answer(self, handler: http.server.BaseHTTPRequestHandler, with_body: bool) -> None:
        path = urllib.parse.unquote(urllib.parse.urlparse(handler.path).path).removeprefix("/")
        self.requests.append(f"{handler.command} {path}")
        given = handler.headers.get("Authorization") == f"Bearer {self.token}"
        status, body = (200, b"") if given or not self.token else (401, b"RepoNotFound")
        if status == 200:
            status, body = self._found(path, "recursive=True" in handler.path)
        if self.status != HTTPStatus.OK:
            status, body = self.status, b""
        handler.send_response(status)
        if status != 200 and body:
            handler.send_header("X-Error-Code", body.decode())
        handler.send_header("Content-Length", str(len(body)))
        for name, value in (etag(body) | {"X-Repo-Commit": self.commit}).items():
            handler.send_header(name, value)
        handler.end_headers()
        if with_body:
            handler.wfile.write(body[: self.breaks_off_after])

    def _found(self, path: str, recursive: bool) -> tuple[int, bytes]:
        """The status and the body, which is the hub's code for what is wrong where anything is."""
        repository, asked, revision, inner = re.fullmatch(
            r"(?:api/)?(?:datasets/|models/)?([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)/?(.*))?", path
        ).groups()
        files = {
            name.removeprefix(f"{repository}/"): body
            for name, body in self.files.items()
            if name.startswith(f"{repository}/")
        }
        if not files:
            return 404, b"RepoNotFound"
        if revision not in (None, "main", self.commit):
            return 404, b"RevisionNotFound"
        if asked == "resolve":
            return (200, files[inner]) if inner in files else (404, b"EntryNotFound")
        if asked != "tree":
            return 200, json.dumps({"id": repository, "sha": self.commit}).encode()
        entries = _tree(files, inner, recursive)
        return (200, json.dumps(entries).encode()) if entries else (404, b"EntryNotFound")


def _tree(files: Mapping[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The entries of ``folder`` as the hub describes them."""
    before = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for name, body in files.items():
        if not name.startswith(before):
            continue
        parts = name.removeprefix(before).split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            inner = before + "/".join(parts[:depth])
            entries[inner] = {"type": "directory", "path": inner, "oid": "0", "size": 0}
        if recursive or len(parts) == 1:
            oid = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            entries[name] = {"type": "file", "path": name, "oid": oid, "size": len(body)}
    return list(entries.values())


class Bucket:
    """One bucket of the S3 server that the environment names, the same for the whole session."""

    def __init__(self, name: str):
        self._client, self.name = _client(), name
        self._client.create_bucket(Bucket=name)

    def put(self, key: str, content: bytes | Sequence[Mapping]) -> None:
        body = content if isinstance(content, bytes) else as_jsonl(content).encode()
        self._client.put_object(Bucket=self.name, Key=key, Body=body)

    def address(self, path: str) -> str:
        return f"s3://{self.name}/{path}"


@cache
def _client() -> Any:
    import boto3

    return boto3.client("s3")
