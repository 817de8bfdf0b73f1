"""The dataset card of an export: a README.md whose header `datasets.load_dataset` reads, and its provenance in words.

Of the data it holds names alone, of fields and licences, and those escaped.
"""

import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import yaml

from tsds_pipeline.errors import printable
from tsds_pipeline.graph import describe
from tsds_pipeline.stages.typed_columns import feature
from tsds_pipeline.wording import shortened

CARD = "README.md"
_LICENCE_FIELDS = ("license", "licence")
_LICENCES, _LICENCE_LENGTH = 3, 40
# The records themselves: a file in another order, or in another format, is in the manifest alone.
_MADE_FROM = ("candidate_corpus", "query_examples", "encoder_settings")
_FIGURES = (
    "data_version",
    "size",
    "epochs",
    "seed",
    "tokens",
    "tokens_drawn",
    "redraws",
    "algorithm",
    "alpha",
    "distance_scale",
    "queries",
    "candidates",
    "candidates_with_mass",
    "effective_size",
    "certain_share",
)


@dataclass(frozen=True)
class Part:
    """An epoch of the export, or its weights: the files that hold it, in order, and the types of its fields."""

    name: str
    files: tuple[str, ...]
    types: Mapping[str, pl.DataType | None]


def dataset_card(name: str, manifest: Mapping[str, Any], parts: Sequence[Part], sample: pl.DataFrame) -> str:
    """The card of the export of the task or mixture ``name`` with this ``manifest``.

    ``parts`` are its configurations.
    """
    mixed = "mixture" in manifest
    header = yaml.safe_dump(_header(parts), sort_keys=False, allow_unicode=True, width=120)
    others = "".join(
        f'\n{part.name.replace("-", "_")} = load_dataset("exports/{name}", "{part.name}", split="train")'
        for part in parts[1:]
    )
    loading = f'dataset = load_dataset("exports/{name}", split="train"){others}'
    plain = manifest["export"]["layout"] == "original"
    shape = "with their fields as they were" if plain else "as chats (`messages`)"
    sections = [
        f"---\n{header}---",
        f"# Training examples for the {'mixture' if mixed else 'task'} {name}",
        f"Examples that [TSDS](https://arxiv.org/abs/2410.11303) selected for {_wanted_by(manifest)} out of a larger "
        f"pool: records of the sources below, {shape}, and under `tsds` where each comes from"
        f"{', for which task it is there' if mixed else ''} and how probable it was.",
        "## Load it",
        _code("python", f"from datasets import load_dataset\n\n{loading}"),
        _table(
            ("configuration", "rows", "what"),
            [(f"`{part.name}`", _rows(part, manifest), _meaning(part)) for part in parts],
        ),
        *(_whom_for(sample, manifest) if mixed else ()),
        "## Where they come from",
        _sources(sample, manifest),
        "Licences are what the records themselves say in a field `license`, where they have one.",
        "## How they were selected",
        _table(("figure", "value"), _figures(manifest)),
        f"Every setting that counts:\n\n{_code('json', json.dumps(manifest.get('settings', {}), indent=2))}",
        "## What they were made from",
        _table(
            ("content", "data version"),
            [
                (f"`{describe(node)}`", f"`{version}`")
                for node, version in manifest.get("inputs", {}).items()
                if node.partition("|")[0] in _MADE_FROM
            ],
        ),
        _table(
            ("file", "bytes", "SHA-256"),
            [(f"`{name}`", said["bytes"], f"`{said['sha256']}`") for name, said in manifest["files"].items()],
        ),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()) + ".",
        "## Make them again",
        f"`tsds refresh{'' if mixed else f' --task {name}'}` in the project folder. The same inputs, settings and seed "
        "give the same bytes on the same type of machine with the same versions. `manifest.json` has all of this for "
        "programs, and the version of every result in between.",
    ]
    return "\n\n".join(sections) + "\n"


def _wanted_by(manifest: Mapping[str, Any]) -> str:
    tasks = list(manifest.get("tasks", ())) if "mixture" in manifest else []
    return f"{len(tasks)} tasks together, no example twice in an epoch," if tasks else "one task"


def _whom_for(sample: pl.DataFrame, manifest: Mapping[str, Any]) -> tuple[str, str]:
    """A row for each task of a mixture, all epochs taken together, under a title."""
    drawn = dict(sample["task"].value_counts().iter_rows())
    rows = [
        (f"`{task}`", f"{weight:g}", f"{drawn.get(task, 0):,}") for task, weight in manifest["tasks"].items()
    ]
    return "## Whom they are for", _table(("task", "weight", "examples"), rows)


def _header(parts: Sequence[Part]) -> dict[str, Any]:
    """What `load_dataset` goes by: each part a configuration with one split, and the types of its fields."""
    return {
        "configs": [
            {
                "config_name": part.name,
                **({"default": True} if part is parts[0] else {}),
                "data_files": [{"split": "train", "path": _read(part)}],
            }
            for part in parts
        ],
        "dataset_info": [
            {
                "config_name": part.name,
                "features": [{"name": name, **feature(dtype)} for name, dtype in part.types.items()],
            }
            for part in parts
        ],
    }


def _read(part: Part) -> list[str]:
    """The files that `load_dataset` reads: where there are both formats, Parquet, which keeps every type."""
    parquet = [name for name in part.files if name.endswith(".parquet")]
    return parquet or list(part.files)


def _rows(part: Part, manifest: Mapping[str, Any]) -> str:
    return f"{sum(manifest['files'][name]['records'] for name in _read(part)):,}"


def _meaning(part: Part) -> str:
    if part.name.startswith("epoch-"):
        return f"the sample for epoch {part.name.removeprefix('epoch-')}"
    return "all candidates with mass, each once, with a weight (1 on average) for a loss that counts by it"


def _sources(sample: pl.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A row for each source of ``sample``, all epochs taken together, and for those that only have probability."""
    mass = manifest.get("solution", {}).get("mass_by_source", {})  # a mixture has none of its own
    drawn, rows = dict(sample["source"].value_counts().iter_rows()), []
    for source in sorted(drawn.keys() | mass.keys(), key=lambda key: (-drawn.get(key, 0), key)):
        number = drawn.get(source, 0)
        share = [f"{mass[source]:.1%}" if source in mass else ""] if mass else []
        records = sample.filter(pl.col("source") == source)["record"]
        rows.append((f"`{source}`", f"{number:,}", f"{number / len(sample):.1%}", *share, _licences(records)))
    share = ["share of the probability"] if mass else []
    return _table(("source", "examples", "share", *share, "licences"), rows)


def _licences(records: Iterable[str]) -> str:
    """What canonical JSON ``records`` say of their licence, the commonest first."""
    found = Counter(
        value.strip()
        for record in map(json.loads, records)
        for name, value in record.items()
        if name.lower() in _LICENCE_FIELDS and isinstance(value, str) and value.strip()
    )
    said = [
        f"{shortened(name, _LICENCE_LENGTH)} ({number:,})" for name, number in found.most_common(_LICENCES)
    ]
    more = [f"{len(found) - _LICENCES} more"] if len(found) > _LICENCES else []
    return ", ".join(said + more)


def _figures(manifest: Mapping[str, Any]) -> list[tuple[str, object]]:
    found = {**manifest.get("solution", {}), **manifest}
    named = [(name.replace("_", " "), found[name]) for name in _FIGURES if found.get(name) is not None]
    return [(name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in named]


def _table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    """``value`` in a cell: text from data neither ends it nor becomes markup; what stands in `...` is ours."""
    text = printable(str(value))
    if re.fullmatch(r"`[^`|]*`", text) or text == "---":
        return text
    return re.sub(r"([\\|`*_\[\]~])", r"\\\1", html.escape(text, quote=False))


def _code(language: str, text: str) -> str:
    """``text``, code or JSON, as a fenced block that nothing in it can end."""
    return f"```{language}\n{text.replace('`', chr(92) + 'u0060')}\n```"
