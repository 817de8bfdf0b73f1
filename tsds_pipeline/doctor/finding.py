"""What the checks of the doctor say."""

from collections.abc import Iterator
from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"
NAMED = 3
"""How many of a kind are named."""
Found = Iterator[tuple[str, str, str | None]]
"""State, what was found, and the remedy: what a check yields."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    state: str
    """OK, WARNING or PROBLEM."""
    said: str
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.said}: {self.remedy}" if self.remedy else self.said
