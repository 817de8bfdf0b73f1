"""Which names a source or a task may have: they become partition keys and file names.

Only the rule lives here. Where keys come from (file names, tsds.toml) is in ``discovery`` and ``settings``.
"""

import re

from tsds_pipeline.errors import TsdsError

KEY_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""Use with ``fullmatch``: ``match`` would let a longer name through."""

KEY_RULE = 'lower-case letters, digits, "_" and "-", beginning with a letter or digit, at most 63 characters'


def check_key(kind: str, key: str) -> str:
    """Return ``key``, or raise :class:`TsdsError` with the way out. ``kind`` is "source" or "task"."""
    if KEY_PATTERN.fullmatch(key):
        return key
    valid = suggest_key(key) or f"my-{kind}"
    raise TsdsError(
        f'"{key}" cannot be a {kind} key ({KEY_RULE}): rename it, for example to "{valid}", '
        f'or name it in tsds.toml: [{kind}s.{valid}] path = "..."'
    )


def suggest_key(name: str) -> str:
    """The valid key nearest to ``name``; empty when nothing of it can be kept."""
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-_")[:63]
