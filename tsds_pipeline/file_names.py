"""Which files are input, by their names alone. The rule is the same on disk (``places``) and elsewhere
(``remote_files``).
"""

from pathlib import Path

from tsds_pipeline.errors import TsdsError

FORMATS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".arrow", ".csv")
FORMAT_RULE = ".jsonl, .jsonl.gz, .jsonl.zst, .parquet, .arrow or .csv"

_TEMPORARY = ("~", ".tmp", ".part")
_NOTES = {"README", "README.TXT", "LICENSE", "LICENSE.TXT"}


def format_of(name: str) -> str | None:
    """Which of :data:`FORMATS` a file is in; None when it is not one that is read."""
    return next((f for f in FORMATS if name.endswith(f)), None)


def check_name(path: Path) -> None:
    """Raise :class:`TsdsError` where the name of ``path`` is not UTF-8: no table could say where a record is from."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise TsdsError(f"{path}: its name is not UTF-8: rename it") from None


def is_passed_over(name: str) -> bool:
    """Whether a file is no input and nothing to complain of: hidden, temporary, a note."""
    notes = name.upper() in _NOTES or name.lower().endswith(".md")
    return notes or name.startswith(".") or name.endswith(_TEMPORARY)
