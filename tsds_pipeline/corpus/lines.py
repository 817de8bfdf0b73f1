"""The lines of a text file, plain or gzip, in bounded memory however long a line is.

What a line holds is not looked at here, except for a byte order mark at the start of the file.
"""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tsds_pipeline.errors import TsdsError

SKIP_BYTES = 2**20
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """``path`` for reading bytes, unpacked where its name ends in .gz.

    What goes wrong with the file while it is open is a :class:`TsdsError` that names it: a file that ends
    early or is damaged is not half a source, it is none.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TsdsError(f"{path}: not a whole gzip file ({error}): copy or compress it again") from None
    except OSError as error:
        raise TsdsError(f"{path}: cannot be read: {error.strerror or error}") from None


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
            raise TsdsError(f"{self._file.name}: is UTF-16: save the file as UTF-8")
        return line.removeprefix(codecs.BOM_UTF8)
