"""Which remote addresses tsds.toml may hold, and that no message repeats a secret in one that it may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsds_pipeline.addresses import server_of, without_secrets
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.settings import load_settings

SECRET = "hunter2"


def settings_error(path: str, tmp_path) -> str:
    file = tmp_path / "tsds.toml"
    file.write_text(f"[sources.a]\npath = {path}\n")
    with pytest.raises(TsdsError) as caught:
        load_settings(file)
    return str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://host/a.jsonl",
        "https://host:8000/a@b.jsonl",
        "s3://bucket/a/**/*.parquet",
        "s3://bucket/day=?/[1].csv",
        "gs://bucket/a",
        "sftp://user@host/a.csv",
        "abfs://container@account.dfs.core.windows.net/a.csv",
    ],
)
def test_plain_addresses_are_taken(address, tmp_path):
    file = tmp_path / "tsds.toml"
    file.write_text(f'[sources.a]\npath = "{address}"\n')
    assert load_settings(file).sources["a"].path == (address,)


@pytest.mark.parametrize(
    "address",
    [
        f"https://user:{SECRET}@host/a.jsonl",
        f"https://{SECRET}@host/a.jsonl",
        f"s3://key:{SECRET}@bucket/a.jsonl",
        f"sftp://user:p@{SECRET}@host/a.jsonl",
        f" https://user:{SECRET}@host/a.jsonl",
        f"https://host/a.jsonl?X-Amz-Signature={SECRET}",
        f"s3://bucket/a.jsonl?Signature={SECRET}/x",
        f"abfs://c@account.dfs.core.windows.net/a.csv?sv=1&sig={SECRET}",
        f"simplecache::https://user:{SECRET}@host/a.jsonl",
        f"zip://a.jsonl::https://host/a.zip?token={SECRET}",
    ],
)
def test_credentials_are_refused_and_not_repeated(address, tmp_path):
    alone = settings_error(f'"{address}"', tmp_path)
    assert "environment" in alone or "::" in alone
    assert alone.startswith("tsds.toml: [sources.a] path = ")
    for path in (f'"{address}"', f'["s3://bucket/a", "{address}"]', f'["{address}", 1]'):
        assert SECRET not in settings_error(path, tmp_path)


def test_what_else_is_refused(tmp_path):
    assert "without file://" in settings_error('"file:///data/a.jsonl"', tmp_path)
    assert "without ::" in settings_error('"simplecache::s3://bucket/a.jsonl"', tmp_path)
    assert "no query" in settings_error('"https://host/a?.jsonl"', tmp_path)


WORDS = st.text("abc123/:.", min_size=1, max_size=8)


@given(before=WORDS, secret=st.text("XYZ/:@?&=%", min_size=1, max_size=12), after=WORDS)
def test_no_part_of_a_login_or_a_query_is_left(before, secret, after):
    assert not set("XYZ") & set(without_secrets(f"{before} https://{secret}@{after}"))
    assert not set("XYZ") & set(without_secrets(f"{before} https://{after}?{secret}"))


@pytest.mark.parametrize("text", ["no address", "what? a@b", "s3://bucket/a.jsonl", ""])
def test_what_holds_no_secret_stays(text):
    assert without_secrets(text) == text


def test_the_server_of_an_address():
    assert server_of("s3://bucket/a/b") == server_of("s3://bucket") == "s3://bucket"
    assert server_of("http://host:1/a") == "http://host:1"
