"""How a wrong tsds.toml is reported: file, place, what was found, what is allowed."""

import datetime
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.keys import KEY_RULE
from tsds_pipeline.settings import (
    EncoderSettings,
    SelectionSettings,
    Settings,
    SourceSettings,
    TaskSettings,
    load_settings,
)

TABLES = (
    "tables: alerts, corpus, dagster, encoder, encoders, exclude, export, mixtures, pool, ray, selection, sources, "
    "storage, tasks"
)
PATHS = (
    "must be a path, or a list of paths, relative to the project folder, or a remote address "
    "(*, ? and ** allowed)"
)
TEMPLATE = 'not a text template: put just the name of a field in every pair of braces, as in "{instruction}"'


def message(content: str | bytes, folder: Path) -> str:
    path = folder / "tsds.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(TsdsError) as caught:
        load_settings(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"seed = \xff", "tsds.toml:1: byte 0xff is not UTF-8: save the file as UTF-8"),
        (b"\n# ok\n# caf\xe9\n", "tsds.toml:3: byte 0xe9 is not UTF-8: save the file as UTF-8"),
        ("[x\n", "tsds.toml:1:3: not valid TOML: Expected ']' at the end of a table declaration"),
        ("\n\nseed 3\n", "tsds.toml:3:6: not valid TOML: Expected '=' after a key in a key/value pair"),
        ("[pool]\n[pool]\n", "tsds.toml:2:6: not valid TOML: Cannot declare ('pool',) twice"),
        ('x = "', "tsds.toml:1:6: not valid TOML: Unterminated string"),
        ("a = 1\n\nb =", "tsds.toml:3:4: not valid TOML: Invalid value"),
        ("x = " + "1" * 5000, "tsds.toml: cannot be read: a number is too long, or lists stand too deep"),
        ("x = " + "[" * 5000, "tsds.toml: cannot be read: a number is too long, or lists stand too deep"),
    ],
)
def test_what_is_not_toml(content, expected, tmp_path):
    assert message(content, tmp_path) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # Unknown names
        ("seeds = 1", f"seeds: not in a table; {TABLES}"),
        ("seed = 1", f"seed: not in a table (it belongs in [encoder] or [selection]); {TABLES}"),
        (
            "[encodr]",
            f'[encodr]: unknown table (did you mean "encoder"?); {TABLES}',
        ),
        (
            "[pool]\nkernel_radios = 1",
            '[pool] kernel_radios: unknown key (did you mean "kernel_radius"?); '
            "allowed: expected_queries, index, kernel_radius",
        ),
        (
            "[export]\nkernel_radius = 1",
            "[export] kernel_radius: unknown key (it belongs in [pool]); "
            "allowed: format, layout, shard_rows, weights",
        ),
        ("[pool]\nzzz = 1", "[pool] zzz: unknown key; allowed: expected_queries, index, kernel_radius"),
        ("[pool.zzz]\nx = 1", "[pool] zzz: unknown key; allowed: expected_queries, index, kernel_radius"),
        ('[pool]\n"a b" = 1', '[pool] "a b": unknown key; allowed: expected_queries, index, kernel_radius'),
        (
            '[pool]\n"[key]" = 1',
            '[pool] "[key]": unknown key; allowed: expected_queries, index, kernel_radius',
        ),
        (
            '[pool]\n"a\\u2028b" = 1',
            '[pool] "a\\u2028b": unknown key; allowed: expected_queries, index, kernel_radius',
        ),
        # Wrong keys of sources and tasks
        (
            '[tasks."My Task"]\nseed = 1',
            f'[tasks."My Task"]: a key has {KEY_RULE}',
        ),
        (
            '[sources."[key]"]',
            f'[sources."[key]"]: a key has {KEY_RULE}',
        ),
        # A webhook is a secret
        (
            '[alerts]\nwebhook = "htp://host/secret"',
            '[alerts] webhook = ...: not the address of a web server, as "https://host/path" is',
        ),
        (
            '[alerts]\nwebhook = ["https://host/secret"]',
            '[alerts] webhook = ...: must be the address of a web server, as "https://host/path" is',
        ),
        (
            '[alerts]\nwebhook = "https://host/secret\\n"',
            '[alerts] webhook = ...: not the address of a web server, as "https://host/path" is',
        ),
        (
            '[alerts]\nwebhook = "https://host/secret"\ncommand = ["mail"]',
            "[alerts]: webhook and command exclude each other: keep one of them",
        ),
        (
            '[alerts]\ncommand = "mail"',
            '[alerts] command = "mail": must be a list: a program and its arguments',
        ),
        ("[alerts]\ncommand = []", "[alerts] command = []: must be a list: a program and its arguments"),
        # Something else where a table belongs
        ("encoder = 1", "encoder = 1: must be a table: write [encoder]"),
        ("tasks = [1]", "tasks = [1]: must be a table: write [tasks]"),
        ("[tasks]\nbbh = true", "tasks.bbh = true: must be a table: write [tasks.bbh]"),
        ("[[selection]]\nseed = 1", 'selection = [{"seed": 1}]: must be a table: write [selection]'),
        # Values
        (
            '[encoder]\nkind = "bert"',
            '[encoder] kind = "bert": must be "sentence-transformers", "causal", "gradient" or "precomputed"',
        ),
        (
            '[encoder]\nkind = "causal"',
            '[encoder]: kind = "causal" needs a causal language model: name its folder or hub name in model',
        ),
        (
            '[encoder]\npooling = "last"\ndimension = 64',
            '[encoder]: pooling: only for kind = "causal", and this is "sentence-transformers": leave it out',
        ),
        (
            '[encoder]\nkind = "gradient"\nmodel = "m"\nquery_prefix = "q"',
            '[encoder]: query_prefix: only for kind = "sentence-transformers" or "causal", and this is "gradient": '
            "leave it out",
        ),
        (
            '[encoder]\nkind = "gradient"\nmodel = "m"\nbackend = "onnx"',
            '[encoder]: backend = "onnx" is not for kind = "gradient": leave it out',
        ),
        (
            '[encoder]\nkind = "gradient"\nmodel = "m"\ncheckpoints = "c"\nlora_rank = 4\nlearning_rate = 1.0',
            "[encoder]: checkpoints are trained already: leave out learning_rate, lora_rank",
        ),
        (
            '[encoder]\nkind = "gradient"\nmodel = "m"\ndimension = 100',
            "[encoder] dimension = 100: must be a multiple of 64",
        ),
        ("[encoder]\nbatch_size = 0", "[encoder] batch_size = 0: must be a whole number from 1"),
        ("[encoder]\nbatch_size = 2.0", "[encoder] batch_size = 2.0: must be a whole number from 1"),
        ('[encoder]\nmodel = " "', '[encoder] model = " ": must be a packaged model, a folder or a hub name'),
        ("[pool]\nkernel_radius = 0", "[pool] kernel_radius = 0: must be a finite number above 0"),
        ("[pool]\nkernel_radius = inf", "[pool] kernel_radius = inf: must be a finite number above 0"),
        ("[corpus]\nmax_quarantined = 5", "[corpus] max_quarantined = 5: must be a share from 0 to 1"),
        ("[selection]\nalpha = 1.5", '[selection] alpha = 1.5: must be "auto" or a number from 0 to 1'),
        ("[selection]\nalpha = nan", '[selection] alpha = nan: must be "auto" or a number from 0 to 1'),
        ("[selection]\nalpha = true", '[selection] alpha = true: must be "auto" or a number from 0 to 1'),
        ('[selection]\nsize = "all"', '[selection] size = "all": must be "auto" or a whole number from 1'),
        (
            "[selection]\nsize = 2026-11-24",
            '[selection] size = "2026-11-24": must be "auto" or a whole number from 1',
        ),
        ("[selection]\nseed = -1", "[selection] seed = -1: must be a whole number from 0, below 2**63"),
        (
            "[selection]\nseed = 9223372036854775808",
            "[selection] seed = 9223372036854775808: must be a whole number from 0, below 2**63",
        ),
        ("[selection]\nepochs = true", "[selection] epochs = true: must be a whole number from 1"),
        ("[selection]\nwith_replacement = 1", "[selection] with_replacement = 1: must be true or false"),
        (
            '[export]\nformat = "csv"',
            '[export] format = "csv": must be "jsonl" or "parquet", or a list of both',
        ),
        ("[export]\nformat = []", '[export] format = []: must be "jsonl" or "parquet", or a list of both'),
        ('[export]\nlayout = "raw"', '[export] layout = "raw": must be "original" or "chat"'),
        ("[export]\nshard_rows = 0", "[export] shard_rows = 0: must be a whole number from 1"),
        ("[export]\nweights = 1", "[export] weights = 1: must be true or false"),
        *(
            (
                f'[storage]\nurl = "{url}"',
                f'[storage] url = "{url}": not the address of a store that can be written to, as '
                '"s3://bucket/folder" is',
            )
            for url in ("bucket/folder", "/somewhere", "https://host/folder")
        ),
        ('[storage]\nurl = "s3://b/*"', '[storage] url = "s3://b/*": a folder is written without * and ?'),
        (
            '[storage]\nurl = "s3://key:secret@bucket/x"',
            '[storage] url = "s3://...@bucket/x": no credentials may stand in an address: take out what is before @ '
            "and give them in the environment",
        ),
        (
            '[storage]\nurl = "file:///x"',
            '[storage] url = "file:///x": a path on this machine is written without file://',
        ),
        ("[tasks.t]\nfraction = 0.0", "[tasks.t] fraction = 0.0: must be a number above 0, at most 1"),
        ("[tasks.t]\nsources = []", "[tasks.t] sources = []: must be a list of at least one source key"),
        ('[tasks.t]\nexclude = "a"', '[tasks.t] exclude = "a": must be a list of source keys'),
        ("[tasks.t]\nsources = [1]", "[tasks.t] sources = [1]: must be a list of at least one source key"),
        ("[sources.a]\npath = []", f"[sources.a] path = []: {PATHS}"),
        ('[sources.a]\npath = ["x", 1]', f'[sources.a] path = ["x", 1]: {PATHS}'),
        (
            '[sources.a]\npath = "a\\u0000"',
            '[sources.a] path = "a\\u0000": no path can hold the character \\u0000',
        ),
        ('[sources.a]\ntext = "text"', f'[sources.a] text = "text": {TEMPLATE}'),
        ('[sources.a]\ntext = "{a} {}"', f'[sources.a] text = "{{a}} {{}}": {TEMPLATE}'),
        ('[sources.a]\ntext = "{a!r}"', f'[sources.a] text = "{{a!r}}": {TEMPLATE}'),
        ('[sources.a]\ntext = "{a[0]}"', f'[sources.a] text = "{{a[0]}}": {TEMPLATE}'),
        (
            '[sources.a]\ntext = "{a"',
            "[sources.a] text = \"{a\": not a text template (expected '}' before "
            "end of string): name fields like {instruction}, write {{ for a brace",
        ),
        (
            "[corpus]\nkeep = {lang = []}",
            '[corpus] keep = {"lang": []}: must be a table of fields, each with a list of values, as in '
            '{language = ["en"]}',
        ),
        (
            '[sources.a]\ndrop = {lang = "en"}',
            '[sources.a] drop = {"lang": "en"}: must be a table of fields, each with a list of values, as in '
            '{language = ["en"]}',
        ),
        ("[corpus]\nkeep = {a = [nan]}", '[corpus] keep = {"a": [NaN]}: a value cannot be NaN or infinite'),
        ("[exclude.e]\n", f"[exclude.e] path: is missing: {PATHS.removeprefix('must be ')}"),
        (
            "[selection]\ncaps = {a = 1}",
            '[selection] caps = {"a": 1}: a: a number below 1 is a share of the sample, a whole one from 2 so many '
            "examples; 1 could be either, and to take nothing of a source is [tasks.X] exclude",
        ),
        (
            '[tasks.t]\nfloors = {a = "x"}',
            '[tasks.t] floors = {"a": "x"}: must be a table of sources, each with a share between 0 and 1 or a '
            "number of examples from 2",
        ),
        ("[selection]\nmin_per_query = -1", "[selection] min_per_query = -1: must be a whole number from 0"),
        *(
            (
                f"[mixtures.m]\ntasks = {value}",
                f"""[mixtures.m] tasks = {value.replace("a =", '"a":')}: must be a table of tasks with """
                "weights above 0, as in {bbh = 2, mmlu = 1}, or a list of tasks",
            )
            for value in ("[]", "{a = 0}", "true")
        ),
        (
            '[mixtures.m]\ntasks = ["a"]\ntokens = 5',
            "[mixtures.m]: tokens are counted by the tokenizer of the model that is trained: name it, tokenizer",
        ),
        # Settings that exclude each other
        (
            "[selection]\nsize = 5\ntokens = 5",
            "[selection]: size and tokens exclude each other: keep one of them",
        ),
        (
            "[tasks.t]\ntokens = 5",
            "[tasks.t]: tokens are counted by the tokenizer of the model that is trained: name its folder or hub name, "
            'tokenizer = "..."',
        ),
        (
            "[selection]\nmin_per_query = 1\n[tasks.t]\nwith_replacement = true",
            "[tasks.t]: min_per_query needs with_replacement = false",
        ),
        (
            '[selection]\ncaps = {a = 0.5}\n[tasks.t]\ntokens = 5\ntokenizer = "x"',
            "[tasks.t]: caps and floors count examples: give a size, or leave out tokens",
        ),
        *(
            (
                f'[encoder]\nbackend = "onnx"\n{other}',
                '[encoder]: backend = "onnx" is 8-bit on a CPU: leave out dtype and device',
            )
            for other in ('dtype = "bfloat16"', 'device = "cuda:0"')
        ),
        (
            "[selection]\nsize = 1\nfraction = 0.5",
            "[selection]: size and fraction exclude each other: keep one of them",
        ),
        (
            '[tasks.t]\nsources = ["a"]\nexclude = ["b"]',
            "[tasks.t]: sources and exclude exclude each other: keep one of them",
        ),
    ],
)
def test_what_is_not_allowed(content, expected, tmp_path):
    assert message(content, tmp_path) == f"tsds.toml: {expected}"


def test_every_problem_has_its_line_in_the_order_of_the_tables(tmp_path):
    lines = message(
        '[tasks.t]\nsizes = 3\nseed = "x"\n[selection]\nsize = 0\n[encoder]\nkind = "x"\n', tmp_path
    ).splitlines()
    places = [line.split(":")[1].strip() for line in lines]
    assert places == [
        '[encoder] kind = "x"',
        "[selection] size = 0",
        '[tasks.t] seed = "x"',
        "[tasks.t] sizes",
    ]


def test_a_long_value_is_cut(tmp_path):
    text = message(f'[selection]\nsize = "{"x" * 500}"', tmp_path)
    assert f'size = "{"x" * 76}...: must be' in text


@pytest.mark.parametrize("model", [EncoderSettings, SelectionSettings, TaskSettings, SourceSettings])
def test_every_key_says_what_it_allows(model):
    assert all(field.description for field in model.model_fields.values())


TABLE_NAMES = list(Settings.model_fields)
KEYS = sorted(
    {*TaskSettings.model_fields, *EncoderSettings.model_fields, *SourceSettings.model_fields, "index"}
)
NAMES = st.sampled_from([*TABLE_NAMES, *KEYS, "[key]", "a", ""]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=6
)
SCALARS = st.one_of(
    st.sampled_from(["auto", "knn_kde", "precomputed", "{a}", "{", "a/*.csv", "s3://a/b", "", " "]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.integers(),
    st.sampled_from([2**63, -(2**63), 2**64, 10**400]),
    st.floats(),
    st.booleans(),
    st.datetimes(timezones=st.sampled_from([None, datetime.UTC])),
    st.dates(),
    st.times(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
# Half of the tables are ones that exist, so that their keys are reached.
ONE_TABLE = st.dictionaries(st.sampled_from(KEYS) | NAMES, VALUES, max_size=4)
DOCUMENTS = st.dictionaries(
    st.sampled_from(TABLE_NAMES) | NAMES,
    VALUES | ONE_TABLE | st.dictionaries(NAMES, ONE_TABLE, max_size=3),
    max_size=4,
)


def to_toml(value: Any) -> str:
    """``value`` as an inline value of TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            return "{" + ", ".join(f"{to_toml(key)} = {to_toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(to_toml, value)) + "]"
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case _:
            return repr(value)


def check_outcome(path: Path) -> None:
    """Settings, or an error of which every line names the file."""
    try:
        found = load_settings(path)
    except TsdsError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(line.startswith(("tsds.toml: ", "tsds.toml:")) and line.isprintable() for line in lines)
    else:
        assert isinstance(found, Settings)


@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=DOCUMENTS)
@example(document={"tasks": {"[key]": {"x": 1}}})
def test_any_document_gives_settings_or_one_clear_error(tmp_path, document):
    path = tmp_path / "tsds.toml"
    text = "\n".join(f"{to_toml(key)} = {to_toml(value)}" for key, value in document.items())
    tomllib.loads(text)
    path.write_bytes(text.encode())
    check_outcome(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=40)
    | st.text(st.sampled_from("[]{}=\"'\n#.,ab1\r\x00\ufeff"), max_size=30).map(str.encode)
)
def test_any_bytes_give_settings_or_one_clear_error(tmp_path, content):
    path = tmp_path / "tsds.toml"
    path.write_bytes(content)
    check_outcome(path)
