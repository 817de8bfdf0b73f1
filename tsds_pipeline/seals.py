"""The checksum that a stored Parquet file carries in itself, so that it is replaced in one step with what it is of.

Its metadata have, as text, ``"seal": "<32 hexadecimal digits>"``: the BLAKE2b hash of the whole file with zeros in
place of these digits. The file is written with zeros there and sealed before it gets its name.
"""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

UNSEALED = "0" * 32
_BEFORE = b'"seal": "'
_BLOCK_BYTES = 2**24
_END = b"PAR1"


def seal(path: Path) -> str:
    """Put the hash of the Parquet file at ``path`` where its metadata have ``UNSEALED``, and return it."""
    with path.open("r+b") as file:
        start = _place(file)
        digest = _hashed(file, start)
        file.seek(start)
        file.write(digest.encode())
    return digest


def sealed_digest(file: BinaryIO) -> str:
    """The hash that the seal of ``file`` is to be; of a file that has none, of all its bytes."""
    return _hashed(file, _place(file))


def _place(file: BinaryIO) -> int | None:
    """Where the digits stand; None in a file without a seal."""
    size = file.seek(0, os.SEEK_END)
    if size < 12:
        return None
    file.seek(size - 8)
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little") + 8
    if tail[4:] != _END or length > size:
        return None
    file.seek(size - length)
    # Names and extreme values of columns, which may hold anything, come before; in JSON a quotation mark inside a text
    # has a backslash before it.
    found = file.read(length).rfind(_BEFORE)
    return None if found < 0 else size - length + found + len(_BEFORE)


def _hashed(file: BinaryIO, start: int | None) -> str:
    digest, at = hashlib.blake2b(digest_size=16), 0
    file.seek(0)
    while block := file.read(_BLOCK_BYTES):
        if start is not None and at < start + len(UNSEALED) and start < at + len(block):
            first, last = max(start - at, 0), min(start + len(UNSEALED) - at, len(block))
            block = block[:first] + b"0" * (last - first) + block[last:]
        digest.update(block)
        at += len(block)
    return digest.hexdigest()
