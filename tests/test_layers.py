"""The rules about who may import what, and that nothing is pickled."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tsds_pipeline"
MODULES = sorted(PACKAGE.rglob("*.py"))
CORE = sorted((PACKAGE / "core").rglob("*.py"))

NOT_IN_CORE = {"dagster", "duckdb", "polars", "ray", "sentence_transformers", "transformers"}
SLOW = {
    "faiss",
    "onnx",
    "onnxruntime",
    "ot",
    "peft",
    "ray",
    "safetensors",
    "sentence_transformers",
    "sklearn",
    "torch",
    "transformers",
}
PICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imported(node: ast.AST) -> Iterator[str]:
    """Full names of the modules that ``node`` imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        yield node.module or ""


def top(name: str) -> str:
    return name.partition(".")[0]


def at_import_time(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: no functions, nothing that is for type checkers."""
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        yield node
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not (for_types or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
            nodes += ast.iter_child_nodes(node)


def run(code: str) -> None:
    """Run ``code`` in a Python of its own, which must succeed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_the_core_imports_no_orchestration_tables_or_encoders(path):
    names = {name for node in ast.walk(ast.parse(path.read_text("utf-8"))) for name in imported(node)}
    assert not {top(name) for name in names} & NOT_IN_CORE
    inside = {name for name in names if top(name) == "tsds_pipeline"}
    assert all(name.startswith("tsds_pipeline.core") for name in inside), "the core knows only itself"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_slow_libraries_are_imported_inside_functions(path):
    tree = ast.parse(path.read_text("utf-8"))
    names = {name for node in at_import_time(tree) for name in imported(node)}
    assert not {top(name) for name in names} & SLOW


# Which argument a call has to have, and its only value.
REQUIRED = {
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
    "AutoConfig.from_pretrained": ("trust_remote_code", False),
    "AutoTokenizer.from_pretrained": ("trust_remote_code", False),
    "kind.from_pretrained": ("trust_remote_code", False),
    "SentenceTransformer": ("trust_remote_code", False),
}
ONLY = {"allow_pickle": False, "trust_remote_code": False, "weights_only": True, "shell": False}
RUNS_ANYTHING = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "pl.deserialize",
}


def dangers(code: str) -> list[str]:
    """What in ``code`` might run what somebody else wrote."""
    found = []
    for node in ast.walk(ast.parse(code)):
        found += {top(name) for name in imported(node)} & PICKLERS
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {one.arg: ast.unparse(one.value) for one in node.keywords}
        name, value = REQUIRED.get(called, (None, None))
        safe = called not in RUNS_ANYTHING and (name is None or given.get(name) == str(value))
        if not safe or any(given.get(one, str(only)) != str(only) for one, only in ONLY.items()):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_nothing_is_pickled_and_no_code_of_others_is_run(path):
    assert dangers(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import marshal, shelve",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.lib.format.read_array(file, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text)",
        "eval(text)",
        "exec(text)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "AutoTokenizer.from_pretrained(path)",
        "SentenceTransformer(path, trust_remote_code=True)",
    ],
)
def test_what_is_dangerous_is_seen(code):
    assert dangers(code)


@pytest.mark.parametrize("path", sorted((PACKAGE / "assets").rglob("*.py")), ids=relative)
def test_dagster_can_read_the_annotations_of_assets(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert not any("__future__" in imported(node) for node in ast.walk(tree))


def test_select_works_where_only_numpy_scipy_and_faiss_are_installed():
    run(
        """
import sys
for name in ("dagster", "duckdb", "polars", "pydantic", "sentence_transformers", "torch", "transformers"):
    sys.modules[name] = None  # importing it fails
import numpy as np
from tsds_pipeline import Selection, SelectionConfig, select
rng = np.random.default_rng(0)
queries, candidates = rng.normal(size=(3, 8)), rng.normal(size=(50, 8))
selection = select(queries, candidates, 5, config=SelectionConfig(alpha=0.5), rng=rng)
assert isinstance(selection, Selection)
assert selection.indices.shape == (1, 5)
assert abs(selection.probabilities.sum() - 1) < 1e-9
"""
    )


def test_importing_the_library_imports_nothing_slow():
    run(
        """
import sys
import tsds_pipeline
slow = {"dagster", "faiss", "ot", "polars", "sentence_transformers", "sklearn", "torch", "transformers"}
assert not slow & set(sys.modules), slow & set(sys.modules)
"""
    )


def test_loading_the_definitions_imports_no_encoder():
    run(
        """
import sys
import tsds_pipeline.definitions
slow = {"faiss", "sentence_transformers", "torch", "transformers"} & set(sys.modules)
assert not slow, slow
"""
    )
