"""What runs on a GPU, here through torch on the processor: the results are those of the other code, bit for bit."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsds_pipeline.core import accelerator
from tsds_pipeline.core.density import KernelDensity
from tsds_pipeline.core.neighbors import ExactSearch
from tsds_pipeline.core.row_stack import RowStack

CPU = torch.device("cpu")
KINDS = ["free", "lattice", "family", "offset"]


@pytest.fixture(autouse=True)
def nothing_found_before(monkeypatch):
    """No device is known, and none is given up, before and after each test."""
    monkeypatch.delenv("TSDS_DEVICE", raising=False)
    monkeypatch.setattr(accelerator, "_LEAST_PRODUCTS", 0)
    found = accelerator._found  # a test may put something else in its place
    accelerator._failed.clear()
    found.cache_clear()
    yield
    accelerator._failed.clear()
    found.cache_clear()


def use(monkeypatch, device: torch.device | None, rows: int | None = None, size: int = 2**20) -> None:
    """Run on ``device``, in blocks of so many rows and bytes of products."""
    monkeypatch.setattr(accelerator, "accelerator", lambda: device)
    if rows:
        monkeypatch.setattr(accelerator, "_block", lambda device, dim: (size, rows))


def on_both(
    monkeypatch, task, device: torch.device = CPU, rows: int | None = None, size: int = 2**20
) -> tuple:
    """What ``task()`` gives on the processor and on ``device``; the latter must not fall back."""
    with monkeypatch.context() as patch:
        use(patch, None)
        expected = task()
    with monkeypatch.context() as patch:
        use(patch, device, rows, size)
        found = task()
    assert not accelerator._failed.is_set()
    return expected, found


def vectors(kind: str, seed: int, n: int, m: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """A pool (n, dim) and queries (m, dim)."""
    rng = np.random.default_rng(seed)
    x, q = rng.normal(size=(n, dim)), rng.normal(size=(m, dim))
    if kind == "lattice":
        x, q = np.round(x), np.round(q)
    if kind == "family":
        x[: n // 2] = x[0] + 1e-4 * np.round(rng.normal(size=(n // 2, dim)))
        q[0] = x[0]
    if kind == "offset":
        x, q = x + 1000, q + 1000
    return x.astype(np.float32), q.astype(np.float32)


def assert_same(found: tuple, expected: tuple) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# A fixture that only sets attributes: what it sets for one example holds for all.
fixed = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@fixed
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 400),
    m=st.integers(1, 40),
    dim=st.sampled_from([1, 3, 50]),
    k=st.integers(1, 500),
    rows=st.sampled_from([None, 7, 64]),
)
def test_neighbors_are_the_same(monkeypatch, seed, kind, n, m, dim, k, rows):
    x, q = vectors(kind, seed, n, m, dim)
    assert_same(*on_both(monkeypatch, lambda: ExactSearch(RowStack([x])).search(q, k), rows=rows, size=700))


def test_the_products_decide_which_neighbors_are_evaluated(monkeypatch):
    x, q = vectors("free", 0, 3000, 20, 24)
    squared, rows = accelerator.nearest(CPU, q, RowStack([x[:10], x[10:]]), 50)
    expected = np.sort(((q[:, None].astype(float) - x) ** 2).sum(-1), axis=1)[:, :50]
    assert squared.dtype == np.float32
    assert rows.dtype == np.int64
    np.testing.assert_allclose(np.sort(squared, axis=1), expected, rtol=1e-4)
    assert all(len(np.unique(row)) == 50 for row in rows)


@fixed
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 300),
    dim=st.sampled_from([1, 3, 50]),
    radius=st.sampled_from([1e-4, 0.1, 1.0, 100.0]),
    rows=st.sampled_from([None, 7, 64]),
    pairs=st.sampled_from([1, 100, 2**22]),
)
def test_densities_are_the_same(monkeypatch, seed, kind, n, dim, radius, rows, pairs):
    monkeypatch.setattr(accelerator, "_PAIRS_AT_ONCE", pairs)
    monkeypatch.setattr(accelerator, "_LEAST_POINTS", 16)
    x, q = vectors(kind, seed, n, 40, dim)
    counts = np.random.default_rng(seed).integers(1, 10, n)
    points = RowStack([np.concatenate([x, x + np.float32(radius / 3), q])])
    density = KernelDensity(RowStack([x]), radius, counts)
    assert_same(*on_both(monkeypatch, lambda: (density(points),), rows=rows, size=700))


def test_pairs_are_those_within_the_radius_in_order_and_few_more(monkeypatch):
    monkeypatch.setattr(accelerator, "_PAIRS_AT_ONCE", 3000)
    monkeypatch.setattr(accelerator, "_LEAST_POINTS", 100)
    x, _ = vectors("family", 8, 1500, 1, 24)
    x[:750] *= np.linspace(1, 1.5, 750, dtype=np.float32)[:, None]
    parts = accelerator.pairs_on(CPU, RowStack([x]), RowStack([x]), 0.5)
    found = np.concatenate([np.stack(pairs, 1) for part in parts for pairs in part])
    within = ((x[:, None].astype(float) - x) ** 2).sum(-1) <= 0.25
    assert 0.1 < within[:750, :750].mean() < 0.9
    beyond = ~within[tuple(found.T)]
    assert beyond.mean() < 0.01
    np.testing.assert_array_equal(found[~beyond], np.argwhere(within))


def test_densities_of_two_sources_are_the_same(monkeypatch):
    x, q = vectors("family", 3, 500, 300, 24)
    counts = np.arange(1, 301)
    density = KernelDensity(RowStack([x]), 5.0)
    (at_q, at_x), found = on_both(monkeypatch, lambda: density.mutual(RowStack([q]), counts), rows=64)
    np.testing.assert_array_equal(found[0], at_q)
    # A row of the pool gets its sum from the blocks of points as they come: these differ.
    np.testing.assert_allclose(found[1], at_x, rtol=1e-12)
    assert at_x.any()


@pytest.mark.parametrize("k", [1, 40, 700])
def test_half_precision_and_stacks_of_several_mapped_arrays(monkeypatch, tmp_path, k):
    x, q = vectors("free", 4, 2000, 30, 8)
    x[5::7] = x[3]
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    lengths = np.linalg.norm(mapped.astype(np.float64), axis=1)
    for stack in (RowStack([mapped]), RowStack([mapped[:100], mapped[100:]]), RowStack([mapped], lengths)):
        assert_same(*on_both(monkeypatch, lambda s=stack: ExactSearch(s).search(q, k), rows=64))
        assert_same(*on_both(monkeypatch, lambda s=stack: (KernelDensity(s, 0.5)(s),), rows=64))


def test_densities_are_exact_without_cells(monkeypatch):
    x, _ = vectors("free", 5, 3000, 1, 8)
    use(monkeypatch, CPU)
    density = KernelDensity(RowStack([x]), 0.5, exact=False)
    done = []
    density(RowStack([x]), done.append)
    assert done[-1] == 3000
    assert density.error == 0
    assert "cells" not in density.__dict__


def test_few_products_stay_on_the_processor(monkeypatch):
    monkeypatch.setattr(accelerator, "_LEAST_PRODUCTS", 1e6)
    use(monkeypatch, CPU)
    assert accelerator.on_accelerator(lambda device: device, 1e5) is None
    assert accelerator.on_accelerator(lambda device: device, 1e6) == CPU


def test_a_device_that_fails_is_left_alone_with_one_warning(monkeypatch, caplog):
    monkeypatch.setattr(accelerator, "_found", lambda: CPU)
    monkeypatch.setattr(accelerator, "_PAIRS_AT_ONCE", 10)
    x, q = vectors("family", 6, 300, 20, 8)
    calls, addmm = [], torch.addmm

    def out_of_memory_in_the_end(*arguments, **options):
        calls.append(0)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        return addmm(*arguments, **options)

    monkeypatch.setattr(torch, "addmm", out_of_memory_in_the_end)
    found = KernelDensity(RowStack([x]), 0.5)(RowStack([x]))
    assert len(calls) == 3
    again = KernelDensity(RowStack([x]), 0.5)(RowStack([x]))
    ExactSearch(RowStack([x])).search(q, 5)
    assert len(calls) == 3, "it is not tried again"
    np.testing.assert_array_equal(found, again)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("cpu cannot be used (CUDA out of memory.): the processor does its work")
    assert "TSDS_DEVICE=cpu" in warning


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_reported_once(monkeypatch, caplog, name):
    monkeypatch.setenv("TSDS_DEVICE", name)
    assert accelerator.accelerator() is None
    assert accelerator.accelerator() is None
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{name} cannot be used (")


@pytest.mark.parametrize("name", ["cpu", ""])
def test_no_device_is_no_reason_to_complain(monkeypatch, caplog, name):
    monkeypatch.setenv("TSDS_DEVICE", name)
    monkeypatch.setattr(accelerator, "_DRIVER", accelerator.Path("/dev/none"))
    assert accelerator.accelerator() is None
    assert not caplog.records


def test_a_torch_without_cuda_is_no_reason_to_complain(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(accelerator, "_DRIVER", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert accelerator.accelerator() is None
    assert not caplog.records


def test_a_driver_that_is_broken_is_reported(monkeypatch, caplog, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(accelerator, "_DRIVER", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def broken(*arguments, **options):
        raise RuntimeError("CUDA driver initialization failed")

    monkeypatch.setattr(torch, "ones", broken)
    assert accelerator.accelerator() is None
    (record,) = caplog.records
    assert record.getMessage().startswith("cuda cannot be used (CUDA driver initialization failed)")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not accelerator._cuda_is_there()


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9 has one setting"
)
@pytest.mark.parametrize("setting", ["fp32_precision", "allow_tf32"])
def test_products_are_exact_whatever_the_process_is_set_to(setting):
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        setattr(matmul, setting, {"fp32_precision": "tf32", "allow_tf32": True}[setting])
        with torch.autocast("cpu", torch.bfloat16), accelerator._exact_torch(CPU):
            assert matmul.fp32_precision == "ieee"
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.allow_tf32 = False
        matmul.fp32_precision = before


def test_without_a_gpu_torch_is_not_imported(tmp_path):
    code = f"""
import sys
from pathlib import Path
import numpy as np
from tsds_pipeline import SelectionConfig, select
from tsds_pipeline.core import accelerator
accelerator._LEAST_PRODUCTS, accelerator._DRIVER = 0, Path({str(tmp_path / "none")!r})
x = np.random.default_rng(0).normal(size=(500, 8))
select(x[:5], x, 5, config=SelectionConfig(alpha=0.5), rng=0)
assert accelerator._found.cache_info().currsize == 1, "it was looked for"
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same(monkeypatch, kind):
    device = torch.device("cuda")
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    monkeypatch.setattr(accelerator, "_ROWS_AT_ONCE", 5000)
    x, q = vectors(kind, 7, 20_000, 200, 384)
    search = ExactSearch(RowStack([x]))
    for k in (1, 100, 6000):
        assert_same(*on_both(monkeypatch, lambda k=k: search.search(q, k), device))
    for radius in (0.1, 20.0):
        density = KernelDensity(RowStack([x]), radius)
        assert_same(*on_both(monkeypatch, lambda d=density: (d(RowStack([x[:5000]])),), device))
