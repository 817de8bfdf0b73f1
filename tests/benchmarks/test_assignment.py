"""The benchmark of the assignment runs."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_row_for_each_alpha():
    command = [sys.executable, str(ROOT / "benchmarks" / "assignment.py")]
    sizes = ["--queries", "50", "--neighbors", "40", "--runs", "1"]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| 0.")]
    assert len(rows) == 7
