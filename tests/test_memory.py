"""The peak memory of a piece of work."""

import subprocess
import sys

from tsds_pipeline.memory import forget_peak, peak_memory

SIZE = 200 * 2**20


def test_a_peak_is_seen_and_forgotten():
    """In a process of its own, whose memory is known."""
    code = f"""
from tsds_pipeline.memory import forget_peak, peak_memory
before = peak_memory()
block = bytearray({SIZE})
block[::4096] = b"x" * len(block[::4096])
del block
print(before, peak_memory())
forget_peak()
print(peak_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, last = done.stdout.splitlines()
    before, peak = map(int, first.split())
    assert 0 < before < peak
    # The kernel counts pages in batches.
    assert 0.95 * SIZE <= peak - before < 2 * SIZE
    if sys.platform == "linux":
        assert int(last) < peak - SIZE / 2


def test_it_can_always_be_asked():
    forget_peak()
    assert peak_memory() > 2**20
