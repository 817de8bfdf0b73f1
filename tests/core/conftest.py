"""Small limits, so that small pools take the ways of large ones."""

import pytest

from tsds_pipeline.core import kernel_transport, problem, rows


@pytest.fixture
def whole_rows_only(monkeypatch):
    """Makes the solver pass over whole rows in small blocks, and hold full plans as a background."""
    monkeypatch.setattr(problem, "MAX_KNOWN_PAIRS", 0)
    monkeypatch.setattr(problem, "MAX_EXPLICIT_PAIRS", 0)
    monkeypatch.setattr(rows, "FIRST_DEPTH", 2)
    monkeypatch.setattr(rows, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(kernel_transport, "_MAX_BREAKPOINTS", 4)
