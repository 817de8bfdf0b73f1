"""The types of the values in tsds.toml, and the words that say what they allow."""

import math
import re
import zoneinfo
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from tsds_pipeline.addresses import REMOTE, WEB, check_address, protocol_of
from tsds_pipeline.keys import KEY_PATTERN, KEY_RULE


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _usable_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    if any("\0" in path for path in paths):
        raise ValueError("no path can hold the character \\u0000")
    for path in paths:
        if "://" in path:
            check_address(path)
    return paths


def _usable_model(name: str) -> str:
    if "\0" in name or REMOTE.match(name):
        raise ValueError("no folder or hub name holds \\u0000 or ://, and an address might hold a secret")
    return name


def _usable_models(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_usable_model, names))


def _usable_address(address: str) -> str:
    if not REMOTE.match(address) or protocol_of(address) in WEB:
        raise ValueError('not the address of a store that can be written to, as "s3://bucket/folder" is')
    if re.search(r"[*?]", address):
        raise ValueError("a folder is written without * and ?")
    check_address(address)
    return address


def _valid_template(template: str) -> str:
    try:
        # Line by line, as the template is filled in.
        fields = [field for line in template.splitlines() for field in Formatter().parse(line)]
    except ValueError as error:
        raise ValueError(
            f"not a text template ({error}): name fields like {{instruction}}, write {{{{ for a brace"
        ) from None
    plain = [
        bool(name) and "[" not in name and not spec and not conversion
        for _, name, spec, conversion in fields
        if name is not None
    ]
    if not plain or not all(plain):
        raise ValueError(
            'not a text template: put just the name of a field in every pair of braces, as in "{instruction}"'
        )
    return template


def _valid_cron(cron: str) -> str:
    # Slow to import, and needed only where somebody wrote one.
    from dagster._utils.schedules import is_valid_cron_string

    if not is_valid_cron_string(cron):
        raise ValueError(
            'not a cron expression: minute, hour, day, month and weekday, as in "0 3 * * *" (every night at three)'
        )
    return cron


def _valid_timezone(name: str) -> str:
    if name not in zoneinfo.available_timezones():
        raise ValueError('not a time zone: a name such as "UTC" or "Europe/Berlin"')
    return name


def _valid_owner(owner: str) -> str:
    if not re.fullmatch(r"team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
        raise ValueError('an owner is "team:name" or an address such as "someone@example.org"')
    return owner


def valid_webhook(address: str) -> None:
    """ValueError, in words without it, where ``address`` cannot be one that alerts are sent to."""
    if not re.fullmatch(r"https?://[!-~]+", address):
        raise ValueError('not the address of a web server, as "https://host/path" is')


def _webhook(secret: SecretStr) -> SecretStr:
    valid_webhook(secret.get_secret_value())
    return secret


def _plain_values(values: dict[str, tuple]) -> dict[str, tuple]:
    for value in (one for listed in values.values() for one in listed):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a value cannot be NaN or infinite")
    return values


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _amounts(bounds: dict[str, int | float]) -> dict[str, int | float]:
    for source, amount in bounds.items():
        if not (0 < amount < 1 or (isinstance(amount, int) and 1 < amount < 2**63)):
            raise ValueError(
                f"{source}: a number below 1 is a share of the sample, a whole one from 2 so many examples; 1 could be "
                "either, and to take nothing of a source is [tasks.X] exclude"
            )
    return bounds


def _valid_key(key: str) -> str:
    if not KEY_PATTERN.fullmatch(key):
        raise ValueError(f"a key has {KEY_RULE}")
    return key


# Upper limits keep every number inside a signed 64-bit integer.
Count = Annotated[int, Field(ge=1, lt=2**63)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(pattern=r"\S")]
ModelName = Annotated[Text, AfterValidator(_usable_model)]
Template = Annotated[Text, AfterValidator(_valid_template)]
Cron = Annotated[str, AfterValidator(_valid_cron)]
Address = Annotated[Text, AfterValidator(_usable_address)]
TimeZone = Annotated[str, AfterValidator(_valid_timezone)]
Webhook = Annotated[SecretStr, AfterValidator(_webhook)]
Command = Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]
Owner = Annotated[str, AfterValidator(_valid_owner)]
Key = Annotated[str, AfterValidator(_valid_key)]
# TOML gives lists and the settings hold tuples, so the tuple itself cannot be strict; its items still are.
Keys = Annotated[tuple[str, ...], Field(strict=False)]
Paths = Annotated[
    tuple[Text, ...],
    BeforeValidator(_as_list),
    AfterValidator(_usable_paths),
    Field(min_length=1, strict=False),
]
Folders = Annotated[
    tuple[Text, ...],
    BeforeValidator(_as_list),
    AfterValidator(_usable_models),
    Field(min_length=1, strict=False),
]
Names = Annotated[tuple[Text, ...], AfterValidator(_each_once), Field(min_length=1, strict=False)]

Formats = Annotated[
    tuple[Literal["jsonl", "parquet"], ...],
    BeforeValidator(_as_list),
    AfterValidator(_each_once),
    Field(min_length=1, strict=False),
]

TEMPLATE = 'a text that names fields, as in "{instruction}\\n{output}"'
VECTORS = "a path, or a list of paths, of .npy, .parquet or .arrow files (*, ? and ** allowed)"
PATHS = (
    "a path, or a list of paths, relative to the project folder, or a remote address (*, ? and ** allowed)"
)


WEIGHTS = "a table of tasks with weights above 0, as in {bbh = 2, mmlu = 1}, or a list of tasks"
Weights = Annotated[
    Annotated[dict[str, Positive], Field(min_length=1)]
    | Annotated[tuple[str, ...], AfterValidator(_each_once), Field(strict=False, min_length=1)],
    Field(union_mode="left_to_right"),
]
AMOUNTS = "a table of sources, each with a share between 0 and 1 or a number of examples from 2"
Amounts = Annotated[dict[str, int | float], AfterValidator(_amounts)]
VALUES = 'a table of fields, each with a list of values, as in {language = ["en"]}'
# Strict members: 1 is neither 1.0 nor true.
Values = Annotated[
    dict[Text, Annotated[tuple[str | int | float | bool, ...], Field(strict=False, min_length=1)]],
    AfterValidator(_plain_values),
]
