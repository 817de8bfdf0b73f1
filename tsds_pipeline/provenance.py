"""What a result was made from: the header that says so, why it is stale, and what does not belong together.

What depends on what is in ``graph``; how headers are stored is in ``storage``.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.graph import (
    ALSO_READ,
    CODE_VERSIONS,
    INPUT_ASSETS,
    Observed,
    code_version,
    describe,
    required,
    stored,
    upstream,
)
from tsds_pipeline.node_names import asset_of
from tsds_pipeline.storage import Artifact, Header
from tsds_pipeline.wording import changes

# Far inputs that a header names too, so that what does not belong together is noticed further down.
CARRIED = {
    "faiss_index": ("candidate_corpus", "encoder_settings", "gradient_warmup"),
    "selection_probabilities": ("query_examples",),
}
COMMON_SETTINGS = ("encoder_settings", "gradient_warmup", "pool_settings")


def header(
    observed: Observed,
    node: str,
    made_from: Mapping[str, Artifact],
    *content: object,
    version: str | None = None,
    **more: object,
) -> Header:
    """The header of what is about to be stored for ``node``.

    ``made_from`` holds the artifacts that were read. The version covers ``content`` and, through the
    versions of all inputs, whatever lies upstream of them; an asset at which an input that changed without
    effect is to stop passes ``version``, a hash of its content (and settings) alone. The inputs name the direct
    ones and those of CARRIED, which lie further up.
    """
    code = CODE_VERSIONS[asset_of(node)]
    inputs = {name: artifact.version for name, artifact in made_from.items()}
    inputs |= {
        name: observed.versions[name] for name in upstream(node, observed) if name in observed.versions
    }
    carried = CARRIED.get(asset_of(node), ())
    for artifact in made_from.values():
        inputs |= {n: v for n, v in artifact.header.inputs.items() if asset_of(n) in carried}
    settings = {name: observed.settings[name] for name in inputs if name in observed.settings}
    version = version or content_hash(code, inputs, *content)
    return Header(version=version, code=code, inputs=inputs, settings=settings, **more)


def model_header(
    node: str, observed: Observed, versions: Mapping[str, str], failed_checks: Mapping[str, str] | None = None
) -> Header:
    """The header of the result of the model ``node``, made from what has ``versions``.

    It is known before the result is: the version covers its SQL and the versions of its inputs.
    """
    code, model = code_version(node, observed), observed.models[node]
    inputs = {name: versions[name] for name in upstream(node, observed) if name in versions}
    settings = {name: observed.settings[name] for name in inputs if name in observed.settings}
    notes = {"failed_checks": dict(failed_checks)} if failed_checks else {}
    return Header(content_hash(model.file.text, inputs), code, inputs, settings, notes=notes)


def stale_reasons(node: str, old: Header, observed: Observed, versions: Mapping[str, str]) -> list[str]:
    """Why what ``old`` describes is not what ``node`` would be made from now; empty when it is fresh.

    ``versions`` are the current data versions, of the upstream nodes at least. One plain phrase a reason.
    """
    asset = asset_of(node)
    reasons = [] if old.code == code_version(asset, observed) else [f"the code of {asset} changed"]
    expected = upstream(node, observed)
    optional = set(expected) - set(required(node, observed))
    for name in expected:
        if name in optional and name not in old.inputs and name not in versions:
            continue
        if name not in old.inputs:
            reasons.append(f"{describe(name)} is new")
        elif old.inputs[name] != versions.get(name):
            reasons.append(_what_changed(name, old, observed))
    gone = old.inputs.keys() - set(expected)
    known = (*ALSO_READ.get(asset, ()), *CARRIED.get(asset, ()))
    reasons += [f"{describe(name)} is gone" for name in sorted(gone) if asset_of(name) not in known]
    return reasons


def require_same_versions(made_from: Mapping[str, Artifact]) -> None:
    """Raise TsdsError where the artifacts do not belong together.

    That is where one was made from another version of one beside it, or two from different versions of the settings
    that decide vectors and densities.
    """
    seen = {name: artifact.version for name, artifact in made_from.items()}
    for node, artifact in made_from.items():
        for name, version in artifact.header.inputs.items():
            if asset_of(name) in COMMON_SETTINGS:
                seen.setdefault(name, version)
            if seen.get(name, version) != version:
                raise TsdsError(
                    f"{describe(node)} was made from another version of {describe(name)} than what is beside it: "
                    "it is being made again, or has to be; wait for that, or run `tsds refresh`"
                )


def lineage(base: Path, start: Header) -> tuple[dict[str, str], dict[str, str]]:
    """Data version of every node that ``start`` was made from, near and far, and the text of all their
    settings.
    """
    versions: dict[str, str] = {}
    settings: dict[str, str] = {}
    waiting = [start]
    while waiting:
        made = waiting.pop()
        settings |= made.settings
        for name in made.inputs.keys() - versions.keys():
            versions[name] = made.inputs[name]
            artifact = None if asset_of(name) in INPUT_ASSETS else stored(base, name)
            # What has been replaced since says nothing about what was used.
            waiting += [artifact.header] if artifact and artifact.version == versions[name] else []
    return dict(sorted(versions.items())), dict(sorted(settings.items()))


def _what_changed(name: str, old: Header, observed: Observed) -> str:
    if old.settings.get(name) == observed.settings.get(name):
        return f"{describe(name)} changed"
    before, now = (json.loads(texts.get(name, "{}")) for texts in (old.settings, observed.settings))
    if name == "source_registry":
        moved = [f"+{key}" for key in now if key not in before] + [
            f"-{key}" for key in before if key not in now
        ]
        return "sources " + ", ".join(moved)
    changed = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    # What counts only beside another setting comes and goes with that.
    keys = sorted(changed & before.keys() & now.keys() or changed)
    return ", ".join(changes(before, now, keys))
