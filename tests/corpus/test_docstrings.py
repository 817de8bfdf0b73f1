"""Docstrings read from source files, without importing anything."""

import sys
from pathlib import Path

import pytest

from tsds_pipeline.corpus.docstrings import LONGEST, condense, package_files, read_module


def texts(tmp_path: Path, source: str | bytes, module: str = "shelf.books") -> dict[str, str]:
    """The texts found in a module with this ``source``, by name."""
    path = tmp_path / "module.py"
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return {docstring.name: docstring.text for docstring in read_module(module, path)}


def test_public_definitions_are_found_wherever_they_stand(tmp_path):
    source = '''
def sort(books):
    """Sort the books by their titles."""
    def inner():
        """An inner function is nobody's business."""

async def fetch():
    """Fetch the next book asynchronously."""

class Shelf:
    """A shelf that holds a number of books."""
    def add(self): "Add one book at the end of the shelf."
    def _weigh(self): "A private method, not to be read."

class _Hidden:
    """A private class, not to be read."""
    def shown(self): "A method of a private class."

try:
    import ladder
except ImportError:
    if True:
        def climb(): "Climb without the help of a ladder."
'''
    assert texts(tmp_path, source) == {
        "shelf.books.sort": "Sort the books by their titles.",
        "shelf.books.fetch": "Fetch the next book asynchronously.",
        "shelf.books.Shelf": "A shelf that holds a number of books.",
        "shelf.books.Shelf.add": "Add one book at the end of the shelf.",
        "shelf.books.climb": "Climb without the help of a ladder.",
    }


def test_docstrings_attached_by_a_call_are_found(tmp_path):
    source = '''
inv = _add_docstr(_C.linalg_inv, r"""
inv(A, *, out=None) -> Tensor

Computes the inverse of a square matrix.
""" + "more".format(**common))
add_docstr(shelf.abs, """Computes the absolute {value}.""".format(value="value"))
add_newdoc("shelf.core", "array", """An array of many equal items.""")
add_newdoc("shelf.core", "array", ("size", """The number of items of the array."""))
add_newdoc("airy", """Airy functions and derivatives.""")
add_newdoc("shelf.core", "_secret", """A private thing, not to be read.""")
add_docstr(shelf.broken, text)
'''
    assert texts(tmp_path, source) == {
        "shelf.books.inv": "Computes the inverse of a square matrix.",
        "shelf.abs": "Computes the absolute {value}.",
        "shelf.core.array": "An array of many equal items.",
        "shelf.core.array.size": "The number of items of the array.",
        "shelf.books.airy": "Airy functions and derivatives.",
    }


def test_lists_in_the_docstring_of_a_package_are_found(tmp_path):
    source = '''"""
Graphs of books
===============

.. autosummary::
   :toctree: generated/

   dijkstra -- use Dijkstra's algorithm for shortest path
   matching - compute a matching of books and
              their readers
   NegativeCycleError

Prose that goes on -- with a dash -- is no list.
"""
'''
    assert texts(tmp_path, source, module="shelf") == {
        "shelf.dijkstra": "use Dijkstra's algorithm for shortest path",
        "shelf.matching": "compute a matching of books and their readers",
    }


@pytest.mark.parametrize(
    ("docstring", "text"),
    [
        ("Return the length\n  of the shelf.", "Return the length of the shelf."),
        ("sort(books, key=None) -> list\n\nReturn the sorted books.", "Return the sorted books."),
        ("Return the ``length`` of a :class:`~shelf.Shelf`.", "Return the length of a shelf.Shelf."),
        ("Sort the books\n\nThe order is stable.", "Sort the books. The order is stable."),
        ("Sort all of the books.\n\nParameters\n----------\nbooks : list", "Sort all of the books."),
        ("Sort all of the books.\n\n.. versionadded:: 2.0.", "Sort all of the books."),
        ("Sort all of the books.\n\n>>> sort(books)", "Sort all of the books."),
        ("Sort all of the books.\n\nArgs:\n    books: them.", "Sort all of the books."),
        ("Too short.", ""),
        ("", ""),
        ("Deprecated: use the function order instead.", ""),
        (".. deprecated:: 1.2\n   Use the function order instead.", ""),
        (":param books: the books that are to be sorted", ""),
    ],
)
def test_a_docstring_becomes_its_first_sentences(docstring, text):
    assert condense(docstring) == text


def test_a_long_summary_ends_with_a_sentence_or_at_least_a_word():
    sentence = "This sentence is exactly one of many. "
    assert condense(sentence * 50) == (sentence * (LONGEST // len(sentence))).strip()
    endless = condense("word " * 200)
    assert endless.endswith("word ...")
    assert len(endless) <= LONGEST + len(" ...")


@pytest.mark.parametrize("source", [b"def broken(:", b"text = '\xff'", b"\0", b"(" * 5000])
def test_what_is_not_python_gives_nothing(tmp_path, source):
    assert texts(tmp_path, source) == {}


def test_another_encoding_is_understood(tmp_path):
    source = '# coding: latin-1\ndef menu():\n    "Return the menu of the café."\n'.encode("latin-1")
    assert texts(tmp_path, source) == {"shelf.books.menu": "Return the menu of the café."}


def test_files_of_a_package_without_its_tests_and_without_importing_it(tmp_path, monkeypatch):
    for name in (
        "__init__",
        "books",
        "core/__init__",
        "core/_sort",
        "tests/test_books",
        "_vendor/six",
        "conftest",
    ):
        path = tmp_path / "shelf_package" / f"{name}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("raise RuntimeError('imported')")
    (tmp_path / "shelf_module.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert [module for module, _ in package_files("shelf_package")] == [
        "shelf_package",
        "shelf_package.books",
        "shelf_package.core",
        "shelf_package.core._sort",
    ]
    assert package_files("shelf_module") == [("shelf_module", tmp_path / "shelf_module.py")]
    assert not {"shelf_package", "shelf_module"} & set(sys.modules)


def test_files_of_the_standard_library():
    assert {"json", "json.decoder"} <= {module for module, _ in package_files("json")}
    assert [module for module, _ in package_files("csv")] == ["csv"]
    # Frozen into the interpreter: its spec names no file.
    assert [module for module, _ in package_files("os")] == ["os"]


@pytest.mark.parametrize("package", ["no_such_package", "_ast", "sys"])
def test_a_package_that_is_absent_or_compiled_has_no_files(package):
    assert package_files(package) == []
