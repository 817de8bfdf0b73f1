"""A bar on a terminal, lines elsewhere, nothing where there is nothing to say."""

import io
import sys

import pytest

from tsds_pipeline import progress
from tsds_pipeline.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_now_and_then(clock):
    lines = []
    with progress_bar("source a", lines.append) as show:
        for second in range(1, 26):
            clock[0] = 100.0 + second
            show(second * 100, 16_000)
    assert lines == [
        "source a: 1,000 of 16,000 (100/s, about 2m 30s left)",
        "source a: 2,000 of 16,000 (100/s, about 2m 20s left)",
    ]


def test_no_time_is_left_at_the_end(clock):
    lines = []
    with progress_bar("source a", lines.append) as show:
        show(1, 10)
        clock[0] += 20
        show(11, 11)
    assert lines == ["source a: 11 of 11 (0.5/s)"]


def test_what_it_takes_to_begin_is_not_counted(clock):
    lines = []
    with progress_bar("source a", lines.append) as show:
        clock[0] += 15
        show(10, 100)
        clock[0] += 10
        show(50, 100)
    assert lines == ["source a: 10 of 100", "source a: 50 of 100 (4.0/s, about 12s left)"]


def test_nothing_to_do_shows_nothing(monkeypatch):
    lines = []
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("source a", lines.append):
        pass
    assert not terminal.getvalue()
    assert not lines


def test_a_bar_on_a_terminal(monkeypatch):
    lines = []
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("source a", lines.append) as show:
        show(5, 20)
        show(20, 20)
    assert "source a" in terminal.getvalue()
    assert "20/20" in terminal.getvalue()
    assert not lines


@pytest.mark.parametrize(("seconds", "words"), [(9.4, "9s"), (61, "1m 01s"), (3725, "1h 02m")])
def test_durations(seconds, words):
    assert progress._duration(seconds) == words
