"""What the machine has to work with, and how work is spread over it."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np  # noqa: F401  its BLAS must be loaded before libraries are looked for
from threadpoolctl import ThreadpoolController

_SMALLEST_BLOCK, _LARGEST_BLOCKS = 2**24, 2**30
_SHARE_OF_MEMORY = 16
_granted: list[int] = []


def cores() -> int:
    """Processor cores that this process may use."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([there, *_granted])


def use_cores(number: int) -> None:
    """Use no more than ``number`` cores from now on: others work on this machine, too."""
    _granted[:] = [number]


def side_by_side(task: Callable[..., Any], arguments: Iterable[tuple]) -> list[Any]:
    """The results of ``task`` for each of ``arguments``, one a core, each product in one thread.

    The products are small, and on a busy machine the threads of a BLAS wait for each other far longer than they work.
    """
    with one_thread_products(), ThreadPoolExecutor(cores()) as threads:
        return list(threads.map(lambda given: task(*given), arguments))


def one_thread_products() -> AbstractContextManager:
    """Every product of numpy within it is computed in one thread."""
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    """The libraries with threads: to look for them takes longer than a small product."""
    return ThreadpoolController()


def block_bytes() -> int:
    """Size of a large block of vectors where each core holds one: a share of the memory that is free."""
    together = min(available_memory() // _SHARE_OF_MEMORY, _LARGEST_BLOCKS)
    return max(together // cores(), _SMALLEST_BLOCK)


def available_memory() -> int:
    """Bytes that this process may still take, as far as the system tells; a gigabyte where it does not."""
    free = [_meminfo(), _cgroup()]
    return min((size for size in free if size is not None), default=2**30)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup() -> int | None:
    """What is left of a container's limit; what it caches of files is given back when asked for."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used) + int(stat.get("inactive_file", 0)))
