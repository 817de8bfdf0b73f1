"""How texts from data, and what became of them, are said wherever they are shown: terminal, pages and the UI."""

GONE = "(no longer in its source)"
"""In place of a text that is not there any more."""


def shortened(text: str, length: int) -> str:
    """``text`` in at most ``length`` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def drawn_mark(drawn: int) -> str:
    """The mark of a candidate that was drawn; in several epochs, how often."""
    return f"{drawn}*" if drawn > 1 else "*" if drawn else ""
