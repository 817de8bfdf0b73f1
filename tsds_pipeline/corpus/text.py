"""Normalising a text, and the content id that names it.

Finding the text in a record is not here (``fields``, ``template``).
"""

import hashlib
import re
from unicodedata import normalize

import numpy as np

# Control characters except the tab and those that end a line, and the byte order mark wherever it stands.
INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\ufeff]")


def normalized(text: str) -> str:
    """``text`` as it is encoded and identified: texts that differ only in what is removed here are one.

    Removed: control characters and byte order marks, white space at the end of each line, and white space
    around the whole. Whatever ends a line for ``str.splitlines`` becomes one line feed, and characters are
    composed (Unicode NFC). Kept: case, indentation, runs of spaces and blank lines inside, joiners.
    """
    lines = INVISIBLE.sub("", text).splitlines()
    return normalize("NFC", "\n".join([line.rstrip() for line in lines]).strip())


def content_id(text: str, vector: np.ndarray | None = None) -> str:
    """32 hexadecimal digits that name a normalised ``text``, or that with its given float32 ``vector``.

    Raises ``UnicodeEncodeError`` for a lone surrogate, which is no character.
    """
    content = text.encode()
    if vector is not None:
        # A normalised text holds no NUL, so no other text and vector give these bytes.
        content += b"\0" + vector.astype("<f4").tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
