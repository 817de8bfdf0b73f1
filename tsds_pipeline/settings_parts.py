"""What each step of the pipeline depends on in tsds.toml: parts of the settings, as canonical JSON that is hashed."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tsds_pipeline.settings import Settings, SourceSettings


def _canonical(**values: object) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _with_vectors(field: str | None) -> dict[str, str]:
    return {} if field is None else {"field": field}


def pool_part(settings: Settings) -> str:
    """What decides the densities, beside the vectors."""
    return _canonical(kernel_radius=settings.pool.kernel_radius)


def index_part(settings: Settings) -> str:
    """What decides the search index, beside the vectors."""
    if settings.pool.index != "auto":
        return _canonical(index=settings.pool.index)
    return _canonical(index="auto", expected_queries=settings.pool.expected_queries)


def corpus_limits(settings: Settings, source: str) -> tuple[int, float]:
    """(max_chars, max_quarantined) of ``source``: its own where written, else those of [corpus]."""
    own, default = settings.sources.get(source, SourceSettings()), settings.corpus
    chars = default.max_chars if own.max_chars is None else own.max_chars
    share = default.max_quarantined if own.max_quarantined is None else own.max_quarantined
    return chars, share


def column_values(settings: Settings, source: str) -> dict[str, dict[str, tuple]]:
    """ "keep" and "drop" of ``source``, as far as there are any: its own where written, else those of [corpus]."""
    own = settings.sources.get(source, SourceSettings())
    tables = {
        name: getattr(own if name in own.model_fields_set else settings.corpus, name) for name in _FILTERS
    }
    return {name: table for name, table in tables.items() if table}


_FILTERS = ("keep", "drop")


def _chat_template(settings: Settings, own: Iterable[str | None], fingerprint: str | None) -> dict[str, Any]:
    """What decides the texts of chats where one of the templates ``own`` is not given."""
    name = settings.corpus.chat_template
    if name is None or None not in own:
        return {}
    return {"chat_template": name, "chat_template_hash": fingerprint and fingerprint[:12]}


def corpus_part(
    settings: Settings,
    source: str,
    test_sets: Mapping[str, str] | None = None,
    chat_template: str | None = None,
) -> str:
    """What decides which records ``source`` gives, beside its files.

    ``test_sets`` are the versions of the test sets of [exclude.X] that there are; for ``chat_template`` see
    ``ChatTemplate.fingerprint``.
    """
    max_chars, max_quarantined = corpus_limits(settings, source)
    text = settings.sources.get(source, SourceSettings()).text
    excluded = {
        name: [version[:12], settings.exclude[name].text, settings.corpus.max_chars]
        for name, version in (test_sets or {}).items()
    }
    templates = [text, *(own for _, own, _ in excluded.values())]
    return _canonical(
        text=text,
        max_chars=max_chars,
        max_quarantined=max_quarantined,
        **_with_vectors(settings.vector_field),
        **_chat_template(settings, templates, chat_template),
        **column_values(settings, source),
        **({"exclude": excluded} if excluded else {}),
    )


def query_part(settings: Settings, task: str, chat_template: str | None = None) -> str:
    """What decides the query records of ``task``, beside its files; see ``ChatTemplate.fingerprint``."""
    text, field = settings.resolved_task(task).text, settings.for_task(task).encoder.vector_field
    more = _with_vectors(field) | _chat_template(settings, [text], chat_template)
    return _canonical(text=text, max_chars=settings.corpus.max_chars, **more)


def solver_part(
    settings: Settings, task: str, tokenizer: str | None = None, test_set: str | None = None
) -> str:
    """What decides the probabilities of ``task``. The amount counts only where alpha = "auto" follows it.

    ``tokenizer`` identifies that of the task, ``test_set`` what its test set is and how it is read, as far as there
    are any.
    """
    resolved = settings.resolved_task(task)
    names = ["algorithm", "alpha", "distance_scale", "max_neighbors", "sources", "exclude"]
    if resolved.alpha == "auto":
        names += ["size", "fraction", "with_replacement"]
    follows = resolved.alpha == "auto" and resolved.tokens is not None
    more = {"tokens": resolved.tokens, "tokenizer": tokenizer} if follows else {}
    if resolved.leaks == "drop":
        leaks = {"leaks": "drop", "leak_distance": resolved.leak_distance, "test_set": _short(test_set)}
        more |= {name: value for name, value in leaks.items() if value}
    # What size = "auto" stands for is found together with the probabilities.
    return _canonical(
        **{name: getattr(resolved, name) for name in names}, auto_size=resolved.size == "auto", **more
    )


def mixture_part(
    settings: Settings, mixture: str, tokenizer: str | None = None, test_sets: Mapping[str, str] | None = None
) -> str:
    """What decides what is drawn for ``mixture``, beside the probabilities, and what it is checked for.

    ``tokenizer`` identifies its tokenizer; ``test_sets`` what those of tasks are, as in ``solver_part``.
    """
    own = settings.mixtures[mixture]
    amount = {"size": own.size} if own.tokens is None else {"tokens": own.tokens}
    counted = {"tokenizer": tokenizer} if tokenizer else {}
    guarded = {}
    for task in own.weights:
        resolved = settings.resolved_task(task)
        if resolved.leaks != "allow":
            guarded[task] = [_short((test_sets or {}).get(task)), resolved.leak_distance]
    checked = {"guarded": guarded} if guarded else {}
    return _canonical(tasks=own.weights, **amount, epochs=own.epochs, seed=own.seed, **counted, **checked)


def _short(version: str | None) -> str | None:
    return version and version[:12]


def draw_part(
    settings: Settings,
    task: str,
    redraws: int | str = 0,
    test_set: str | None = None,
    tokenizer: str | None = None,
) -> str:
    """What decides which examples are drawn for ``task``, beside the probabilities, and what they are checked for.

    See ``redraws``, which may be why they are not known; ``test_set`` and ``tokenizer`` as in ``solver_part``.
    """
    resolved = settings.resolved_task(task)
    names = ["size", "fraction", "with_replacement", "epochs", "seed"]
    again = {"redraws": redraws} if redraws else {}
    checked = {"test_set": _short(test_set)} if test_set else {}
    if resolved.leaks == "allow":
        checked["leaks"] = "allow"
    elif resolved.leaks == "flag" and resolved.leak_distance:
        checked["leak_distance"] = resolved.leak_distance
    kept = {name: getattr(resolved, name) for name in ("tokens", "caps", "floors", "min_per_query")}
    kept["tokenizer"] = tokenizer
    written = {name: value for name, value in kept.items() if value}
    return _canonical(**{name: getattr(resolved, name) for name in names}, **again, **checked, **written)
