"""Docstrings of installed packages, read from their source files with ``ast``: nothing is imported or run.

A docstring becomes one short text: its summary and, when that is short, the paragraph of prose after it.
Three kinds of places are read: definitions, calls that attach a docstring to something compiled
(``add_docstr``, ``add_newdoc``), and lists of ``name -- summary`` in a package's own docstring. Which
packages make a corpus is not here (see ``demo_tables``).
"""

import ast
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LONGEST = 240
"""Characters of a text, about 60 tokens."""
SHORT_SUMMARY = 80
"""A summary below this many characters takes the next paragraph along."""
SHORTEST = 20
"""Characters below which a docstring says too little."""

SKIPPED_PARTS = re.compile(r"tests?|testing|conftest|test_.*|.*_test|_?vendor(ed)?|externals|__main__")
ATTACHING = {"add_docstr", "_add_docstr", "add_newdoc", "add_docstr_all"}
ROLE = re.compile(r"(?::[\w+.-]+)+:`(?:[^`<]*<)?[~.!_]*([^`<>]+)>?`")
LITERAL = re.compile(r"``?([^`]+)``?")
# "   name -- summary", and the lines that continue it further to the right.
LISTED = re.compile(r"^ {2,4}([A-Za-z]\w*) +--? +(\S.*(?:\n {6,}\S.*)*)$", re.MULTILINE)
SIGNATURE = re.compile(r"[\w.]+\(.*\)( *(->|=>|→|--).*)?")
# Beginnings of what is not prose: directives, field lists, doctests, tables, lists, sections with a colon.
NOT_PROSE = re.compile(r"\.\. |:\w|>>>|[-=*+|#@%]|\d+[.)] |\w+:( |$)|.*(----|====|%\(|\$\{)|e\.g\.")
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.) +(?=[A-Z])")


@dataclass(frozen=True)
class Docstring:
    """``name`` is the dotted name of what is described, ``module`` the dotted name of what holds it."""

    name: str
    module: str
    kind: str
    """One of function, method, class, attached (by a call) and listed (in the docstring of a package)."""
    text: str


def package_files(package: str) -> list[tuple[str, Path]]:
    """(dotted module name, file) of every source file of a top-level ``package``, sorted; empty when absent.

    Tests and vendored copies of other packages are left out.
    """
    root = _package_root(package)
    if root is None:
        return []
    if root.is_file():
        return [(package, root)]
    files = []
    for path in root.rglob("*.py"):
        parts = [package, *path.relative_to(root).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        if not any(SKIPPED_PARTS.fullmatch(part) for part in parts[1:]):
            files.append((".".join(parts), path))
    return sorted(files)


def _package_root(package: str) -> Path | None:
    """The folder or file of a top-level package. Looking for it does not import it."""
    # The standard library first: the spec of a frozen module names no file.
    library = Path(sysconfig.get_path("stdlib"))
    for path in (library / package, library / f"{package}.py"):
        if path.exists():
            return path
    spec = find_spec(package)
    origin = Path(spec.origin) if spec and spec.origin else None
    if origin is None or origin.suffix != ".py":
        return None
    return origin.parent if origin.stem == "__init__" else origin


def read_module(module: str, path: Path) -> list[Docstring]:
    """The docstrings of one source file, in its order; none when it is not valid Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Invalid escapes in other people's strings.
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = [*_defined(tree.body, module, "function"), *_attached(tree, module), *_listed(tree, module)]
    return [
        Docstring(name, module, kind, text)
        for name, kind, docstring in found
        if not name.rpartition(".")[2].startswith("_") and (text := condense(docstring))
    ]


def _defined(body: Iterable[ast.AST], prefix: str, kind: str) -> Iterator[tuple[str, str, str]]:
    """Public classes, functions and methods, also those inside ``if`` and ``try``."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name.startswith("_"):  # Nor is what a private class holds public.
                continue
            name, is_class = f"{prefix}.{node.name}", isinstance(node, ast.ClassDef)
            yield name, "class" if is_class else kind, ast.get_docstring(node) or ""
            if is_class:
                yield from _defined(node.body, name, "method")
        elif isinstance(node, (ast.If, ast.Try, ast.ExceptHandler)):
            yield from _defined(ast.iter_child_nodes(node), prefix, kind)


def _attached(tree: ast.Module, module: str) -> Iterator[tuple[str, str, str]]:
    """What is given a docstring by a call at the top level of a module.

    As ``abs = _add_docstr(_C.abs, "...")``, ``add_docstr(torch.abs, "...")`` or
    ``add_newdoc("numpy", "abs", "...")``.
    """
    for statement in tree.body:
        call = getattr(statement, "value", None)
        if not isinstance(call, ast.Call) or ast.unparse(call.func) not in ATTACHING or len(call.args) < 2:
            continue
        *subject, docstring = call.args
        if isinstance(docstring, ast.Tuple) and len(docstring.elts) == 2:  # One attribute of the subject.
            subject, docstring = [*subject, docstring.elts[0]], docstring.elts[1]
        if isinstance(statement, ast.Assign):
            name = f"{module}.{ast.unparse(statement.targets[0])}"
        else:
            parts = [part.value if isinstance(part, ast.Constant) else ast.unparse(part) for part in subject]
            name = ".".join(parts if len(parts) > 1 or "." in parts[0] else [module, *parts])
        yield name, "attached", inspect.cleandoc(_first_literal(docstring))


def _first_literal(node: ast.AST) -> str:
    """What a string expression begins with: "..." + "...", "...".format() and the like."""
    while not isinstance(node, ast.Constant):
        inner = next(ast.iter_child_nodes(node), None)
        if inner is None:
            return ""
        node = inner
    return node.value if isinstance(node.value, str) else ""


def _listed(tree: ast.Module, module: str) -> Iterator[tuple[str, str, str]]:
    for name, summary in LISTED.findall(ast.get_docstring(tree) or ""):
        yield f"{module}.{name}", "listed", summary


def condense(docstring: str) -> str:
    """The first sentences of ``docstring`` as one line of plain words; empty when they say too little."""
    paragraphs = [_plain(paragraph) for paragraph in re.split(r"\n\s*\n", docstring, maxsplit=4)[:4]]
    while paragraphs and (not paragraphs[0] or SIGNATURE.fullmatch(paragraphs[0])):
        paragraphs.pop(0)
    if not paragraphs or NOT_PROSE.match(paragraphs[0]):
        return ""
    summary, more = paragraphs[0], paragraphs[1] if len(paragraphs) > 1 else ""
    if len(summary) < SHORT_SUMMARY and more.endswith(".") and not NOT_PROSE.match(more):
        summary = f"{summary} {more}" if summary[-1] in ".!?" else f"{summary}. {more}"
    text = _cut(summary)
    return "" if len(text) < SHORTEST or text.lower().startswith("deprecated") else text


def _plain(paragraph: str) -> str:
    """One line without the markup of roles and literals."""
    return " ".join(LITERAL.sub(r"\1", ROLE.sub(r"\1", paragraph)).split())


def _cut(text: str) -> str:
    """As many whole sentences as fit; at least the first one, cut at a word when it does not."""
    sentences = SENTENCE_END.split(text)
    while len(sentences) > 1 and len(" ".join(sentences)) > LONGEST:
        sentences.pop()
    text = " ".join(sentences)
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " ..."
