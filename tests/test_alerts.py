"""How alerts are delivered, without Dagster."""

import sys
from http import HTTPStatus

import pytest
from pydantic import SecretStr

from tests.servers import Receiver
from tsds_pipeline.alerts import WEBHOOK, deliver, destination, message
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import AlertSettings

SAID = message("books", ["a is broken", "b is late"], ["c was broken"])


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    monkeypatch.delenv(WEBHOOK, raising=False)


@pytest.fixture
def receiver():
    with Receiver() as server:
        yield server


def to_webhook(address: str) -> AlertSettings:
    return AlertSettings(webhook=SecretStr(address))


def test_what_is_said():
    assert SAID["text"].splitlines() == [
        "tsds, books: 2 new problems, 1 over",
        "* a is broken",
        "* b is late",
        "* over: c was broken",
    ]
    assert SAID["problems"] == ["a is broken", "b is late"]
    assert SAID["over"] == ["c was broken"]


def test_many_problems_are_one_short_message():
    many = message("books", [f"{n} {'x' * 1000}" for n in range(100)], [])
    assert len(many["text"]) < 12_000
    assert many["text"].endswith("* and 80 more: `tsds status` names them")
    assert len(many["problems"]) == 100


def test_a_webhook_gets_json(receiver):
    deliver(to_webhook(receiver.address), SAID)
    assert receiver.bodies == [SAID]


def test_the_environment_goes_before_the_file(receiver, monkeypatch):
    monkeypatch.setenv(WEBHOOK, f" {receiver.address}\n")
    assert destination(AlertSettings(command=("false",))) == f"the webhook in {WEBHOOK}"
    deliver(AlertSettings(command=("false",)), SAID)
    assert receiver.bodies == [SAID]


@pytest.mark.parametrize("status", [HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.FOUND])
def test_what_a_webhook_does_not_take_is_an_error_without_the_secret(receiver, status):
    receiver.status = status
    with pytest.raises(TsdsError, match=f"in .alerts. did not take an alert: it answers {status.value}$"):
        deliver(to_webhook(receiver.address), SAID)
    assert receiver.bodies == []


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/a-secret",
        "http://no-such-host.invalid/a-secret",
        "http://[::1/a-secret",
        "http://127.0.0.1:99999/a-secret",
        "http://user:a-secret@127.0.0.1:9/",
    ],
)
def test_a_webhook_that_is_not_there_is_an_error_without_the_secret(address):
    with pytest.raises(TsdsError) as caught:
        deliver(to_webhook(address), SAID)
    assert "did not take an alert: " in str(caught.value)
    assert "a-secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_variable_that_is_no_address_is_not_shown(monkeypatch):
    monkeypatch.setenv(WEBHOOK, "a-secret")
    with pytest.raises(TsdsError, match=rf"^the webhook in {WEBHOOK} is not the address of a web server"):
        deliver(AlertSettings(), SAID)


def test_a_command_gets_the_text(tmp_path):
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    deliver(AlertSettings(command=(sys.executable, "-c", code, str(tmp_path / "told; $(x)"))), SAID)
    assert (tmp_path / "told; $(x)").read_text() == SAID["text"]


@pytest.mark.parametrize(
    ("command", "why"),
    [(("false", "a-secret"), "exit status 1"), (("/no/such/program", "a-secret"), "No such file")],
)
def test_a_command_that_fails_is_an_error_without_its_arguments(command, why):
    with pytest.raises(TsdsError, match=why) as caught:
        deliver(AlertSettings(command=command), SAID)
    assert "a-secret" not in str(caught.value)


def test_the_settings_do_not_show_the_secret():
    settings = to_webhook("https://host/a-secret")
    assert "a-secret" not in f"{settings!r} {settings} {settings.model_dump_json()} {destination(settings)}"


def test_without_a_place_nothing_is_sent():
    assert destination(AlertSettings()) is None
    deliver(AlertSettings(), SAID)
