"""The built-in corpus: docstrings of the libraries installed beside the project, written as a project folder.

Which libraries and modules those are is in ``demo_tables``, reading them in ``docstrings``. Running the
pipeline on the folder and summing up its results are not here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tsds_pipeline.corpus.demo_tables import LIBRARIES, SETTINGS, TASKS, Library, Task, is_below
from tsds_pipeline.corpus.docstrings import Docstring, package_files, read_module
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.storage import write_atomically

MOST_QUERIES = 40
MARK = SETTINGS.partition("\n")[0]
"""The first line of the demo's tsds.toml, by which it knows its own folder again."""


@dataclass(frozen=True)
class DemoContents:
    """What :func:`write_demo` wrote. The ground truth of each task is in ``demo_tables.TASKS``."""

    sources: dict[str, int]
    """Records by source, copies among them included. 0: the library is not installed."""
    tasks: dict[str, int]
    """Queries by task. 0: the library that gives them is not installed."""
    expected_share: dict[str, float]
    """By task, the share of all records in its expected modules: what a random selection would reach."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Sources and tasks without records, for a message."""
        return tuple(key for key, count in [*self.sources.items(), *self.tasks.items()] if not count)


def write_demo(root: Path) -> DemoContents:
    """Make ``root`` the demo project: tsds.toml, sources/ and tasks/. Takes about ten seconds.

    The same libraries give the same bytes, and a file that would not change is not touched. A tsds.toml that
    is there stays, so that settings can be tried out. A library that is not installed gives no source and no
    task.
    Raises :class:`TsdsError` where ``root`` is another project or cannot be written.
    """
    _check_free(root)
    queries = {key: _query_set(task) for key, task in TASKS.items()}
    asked = {_essence(query.text) for query_set in queries.values() for query in query_set}
    candidates = {key: _candidates(library, asked) for key, library in LIBRARIES.items()}
    try:
        if not (root / "tsds.toml").exists():
            _write(root / "tsds.toml", SETTINGS)
        for key, docstrings in candidates.items():
            _write_records(root / "sources" / f"{key}.jsonl", docstrings)
        for key, docstrings in queries.items():
            _write_records(root / "tasks" / key / "query.jsonl", docstrings)
    except OSError as error:
        raise TsdsError(f"{root}: cannot write the demo: {error.strerror}: name another folder") from None
    modules = [docstring.module for docstrings in candidates.values() for docstring in docstrings]
    return DemoContents(
        sources={key: len(docstrings) for key, docstrings in candidates.items()},
        tasks={key: len(docstrings) for key, docstrings in queries.items()},
        expected_share={key: task.expected_share(modules) for key, task in TASKS.items()},
    )


def _check_free(root: Path) -> None:
    settings = root / "tsds.toml"
    if settings.is_file() and settings.read_text("utf-8", errors="replace").startswith(MARK):
        return
    if any((root / name).exists() for name in ("tsds.toml", "sources", "tasks")):
        raise TsdsError(f"{root} is another project: name another folder for the demo")


def _query_set(task: Task) -> list[Docstring]:
    """At most MOST_QUERIES docstrings, no two of which say the same."""
    distinct = {_essence(docstring.text): docstring for docstring in reversed(_read(task.queries))}
    return _sample(distinct.values(), MOST_QUERIES, by=lambda docstring: docstring.name)


def _candidates(library: Library, asked: Collection[str]) -> list[Docstring]:
    """What ``library`` adds to the pool: nothing held back and nothing that is ``asked``. Copies stay.

    What has the same bare name comes or goes together: the copies of a method in many classes, or a function
    and its asynchronous form. They are the near-duplicates that the demo is about.
    """
    held_back = [module for task in TASKS.values() for module in task.queries]
    kept = [
        docstring
        for docstring in _read(library.modules)
        if not is_below(docstring.module, held_back) and _essence(docstring.text) not in asked
    ]
    return _sample(kept, library.limit, by=lambda docstring: docstring.name.rpartition(".")[2])


def _read(modules: Sequence[str]) -> list[Docstring]:
    """The docstrings in ``modules`` and below them, the first of each name."""
    packages = dict.fromkeys(module.partition(".")[0] for module in modules)
    found = [
        docstring
        for package in packages
        for module, path in package_files(package)
        if is_below(module, modules)
        for docstring in read_module(module, path)
    ]
    return list({docstring.name: docstring for docstring in reversed(found)}.values())


def _sample(docstrings: Iterable[Docstring], limit: int, by: Callable[[Docstring], str]) -> list[Docstring]:
    """The ``limit`` of ``docstrings`` whose ``by`` has the smallest hash, sorted by name."""

    def place(docstring: Docstring) -> tuple[bytes, str]:
        return hashlib.blake2b(by(docstring).encode(), digest_size=8).digest(), docstring.name

    return sorted(sorted(docstrings, key=place)[:limit], key=lambda docstring: docstring.name)


def _essence(text: str) -> str:
    """``text`` without case and punctuation, to tell what says the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _write_records(path: Path, docstrings: Sequence[Docstring]) -> None:
    """One JSON object a line. No file without records: an old one goes when its library is gone."""
    if not docstrings:
        path.unlink(missing_ok=True)
        return
    lines = [json.dumps(_record(docstring), ensure_ascii=False) for docstring in docstrings]
    _write(path, "\n".join(lines) + "\n")


def _record(docstring: Docstring) -> dict[str, str]:
    return {"id": docstring.name, "text": docstring.text, "module": docstring.module, "kind": docstring.kind}


def _write(path: Path, text: str) -> None:
    """Replace ``path`` as a whole, unless it says ``text`` already."""
    content = text.encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
