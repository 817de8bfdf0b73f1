"""The lines of a text file, plain, gzip or zstd, in bounded memory however long a line is.

What a line holds is not looked at here, except for a byte order mark at the start of the file.
"""

import codecs
import gzip
import importlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tsds_pipeline.errors import TsdsError

SKIP_BYTES = 2**20
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """``path`` for reading bytes, unpacked where its name ends in .gz or .zst.

    What goes wrong with the file while it is open is a :class:`TsdsError` that names it: a file that ends
    early or is damaged is not half a source, it is none.
    """
    opened, damage, packed = _packing(path)
    try:
        with opened(path, "rb") as file:
            yield file
    except (*damage, EOFError) as error:
        raise TsdsError(f"{path}: not a whole {packed} file ({error}): copy or compress it again") from None
    except OSError as error:
        raise TsdsError(f"{path}: cannot be read: {error.strerror or error}") from None


def _packing(path: Path) -> tuple[Callable[..., BinaryIO], tuple[type[Exception], ...], str]:
    """What opens ``path``, what it raises where the file is damaged, and how the packing is called."""
    if path.suffix == ".gz":
        return gzip.open, (gzip.BadGzipFile, zlib.error), "gzip"
    if path.suffix == ".zst":
        zstd = import_zstd(path)
        return zstd.open, (zstd.ZstdError,), "zstd"
    return open, (), ""


def import_zstd(path: Path) -> Any:
    """Python's own module for zstd (3.14), or the same one for older versions, to read ``path``."""
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        pass
    try:
        return importlib.import_module("backports.zstd")
    except ImportError:
        raise TsdsError(
            f"{path}: zstd needs a package that is not installed: pip install backports.zstd"
        ) from None


class BoundedLines:
    """Iterates over the lines of ``file`` as bytes; ``number`` is that of the last one, from 1.

    A line longer than ``limit`` bytes is given without its end, and ``cut`` is then true.
    """

    def __init__(self, file: BinaryIO, limit: int):
        self._file, self._limit = file, limit
        self.number = 0
        self.cut = False

    def __iter__(self) -> "BoundedLines":
        return self

    def __next__(self) -> bytes:
        line = self._file.readline(self._limit + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.cut = len(line) > self._limit and not line.endswith(b"\n")
        if self.cut:
            while (rest := self._file.readline(SKIP_BYTES)) and not rest.endswith(b"\n"):
                pass
        return line if self.number > 1 else self._without_mark(line)

    def _without_mark(self, line: bytes) -> bytes:
        if line.startswith(UTF16):
            raise TsdsError(f"{self._file.name}: is UTF-16 or UTF-32: save the file as UTF-8")
        return line.removeprefix(codecs.BOM_UTF8)
