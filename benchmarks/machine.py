"""The machine that a benchmark ran on: what it is called, and what it can do."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info


def describe() -> dict:
    """What stands beside every result."""
    import faiss

    np.ones((2, 2)) @ np.ones((2, 2))  # a library shows in threadpool_info once it is loaded
    pools = {
        f"{pool['internal_api']} of {Path(pool['filepath']).parent.name}": pool["num_threads"]
        for pool in threadpool_info()
    }
    return {
        "processor": _from_file("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "faiss": version("faiss-cpu"),
        "faiss_options": faiss.get_compile_options().strip(),
        "faiss_threads": faiss.omp_get_max_threads(),
        "blas_threads": pools,
    }


def product_rate(seconds: float = 2.0) -> float:
    """The best rate of a float32 product of (1000, 384) and (384, 16384), in flop/s: the roof of exact search."""
    rng = np.random.default_rng(0)
    left = rng.standard_normal((1000, 384), dtype=np.float32)
    right = rng.standard_normal((16_384, 384), dtype=np.float32)
    out, best, end = np.empty((1000, 16_384), np.float32), np.inf, time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        np.matmul(left, right.T, out=out)
        best = min(best, time.perf_counter() - started)
    return 2 * out.size * left.shape[1] / best


def in_words(machine: dict) -> str:
    words = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, {machine['system']}; "
        f"Python {machine['python']}, numpy {machine['numpy']}, faiss {machine['faiss']} ({machine['faiss_options']}, "
        f"{machine['faiss_threads']} threads); BLAS threads {sorted(set(machine['blas_threads'].values()))}"
    )
    if rate := machine.get("product_rate"):
        words += f"; matrix products in float32: {rate / 1e9:.0f} GFLOP/s"
    return words


def _memory_gib() -> float:
    if not hasattr(os, "sysconf"):
        return float("nan")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _from_file(path: str, key: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
