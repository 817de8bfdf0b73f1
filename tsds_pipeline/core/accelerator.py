"""The exact search and the pairs of the densities on a GPU, where there is one: blocks of products through torch.

Only what float32 may decide is decided there, within ``squared_distance_error``. Every pair that is left is evaluated
in float64 on the processor, by the same code as without a GPU: the results are the same.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tsds_pipeline.core.arrays import row_blocks, squared_distance_error
from tsds_pipeline.core.machine import available_memory, cores
from tsds_pipeline.core.row_stack import RowStack

if TYPE_CHECKING:
    import torch

# Made by the NVIDIA driver, in a container only where it was given a GPU.
_DRIVER = Path("/dev/nvidiactl")
# Multiplications that take the processor longer than it takes to import torch and start the device.
_LEAST_PRODUCTS = 5e11
_SHARE_OF_MEMORY, _LARGEST_BLOCK = 8, 2**30
_ROWS_AT_ONCE, _LEAST_POINTS, _SAMPLE_ROWS = 2**17, 2**14, 2**14
# Pairs held for the points looked at together; more only for a single point.
_PAIRS_AT_ONCE = 2**22
# Covers the rounding of the radius and of the sums of squares.
_SLACK = 1e-5

logger = logging.getLogger(__name__)
T = TypeVar("T")
_failed, _in_use = Event(), Lock()


def accelerator() -> "torch.device | None":
    """The device on which large products run: the one that TSDS_DEVICE names, else a CUDA device, else none.

    "cpu" stands for none. What cannot be used is reported once, and not tried again by this process.
    """
    return None if _failed.is_set() else _found()


@lru_cache(maxsize=1)
def _found() -> "torch.device | None":
    named = os.environ.get("TSDS_DEVICE", "").strip()
    if named == "cpu" or not (named or _cuda_is_there()):
        return None
    try:
        import torch

        device = torch.device(named or "cuda")
        ones = torch.ones((2, 2), device=device)
        if (ones @ ones).sum().item() != 8:
            raise RuntimeError("it does not multiply")
        return device
    # Without CUDA in it torch raises AssertionError; a library that is missing or damaged is an OSError.
    except (RuntimeError, AssertionError, ImportError, OSError) as error:
        _give_up(named or "cuda", error)
        return None


def _cuda_is_there() -> bool:
    """Whether a driver is, and a torch for it. torch takes seconds to import: not without a driver."""
    if not _DRIVER.exists() or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    try:
        import torch
    except ImportError:
        return False
    return torch.version.cuda is not None


def on_accelerator(task: Callable[["torch.device"], T], products: float) -> T | None:
    """``task`` on the device; None where there is none, ``products`` are too few to pay, or the device fails."""
    if products < _LEAST_PRODUCTS or (device := accelerator()) is None:
        return None
    try:
        return task(device)
    except RuntimeError as error:  # out of memory too
        _give_up(device, error)
        return None


def _give_up(device: Any, error: Exception) -> None:
    if not _failed.is_set():
        _failed.set()
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        logger.warning(
            "%s cannot be used (%s): the processor does its work. TSDS_DEVICE=cpu leaves it alone.",
            device,
            reason,
        )


def nearest(
    device: "torch.device", queries: np.ndarray, candidates: RowStack, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances, float32, and rows, int64, of the ``k`` nearest ``candidates`` (N, dim), k <= N, in no order.

    (m, k) each, for ``queries`` (m, dim) float32.
    """
    with _exact_torch(device) as torch:
        size, rows = _block(device, candidates.shape[1])
        parts = row_blocks(len(queries), 4 * min(rows, len(candidates)), size)
        best: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(parts)
        for first, block in candidates.blocks(rows * 4 * candidates.shape[1]):
            y = torch.tensor(block, device=device)
            lengths = y.square().sum(1)
            for i, (start, stop) in enumerate(parts):
                x = torch.tensor(queries[start:stop], device=device)
                squared = torch.addmm(lengths, x, y.T, alpha=-2)
                squared += x.square().sum(1, keepdim=True)
                near, place = torch.topk(squared, min(k, len(y)), largest=False, sorted=False)
                place += first
                if best[i] is not None:
                    near, place = torch.cat([best[i][0], near], 1), torch.cat([best[i][1], place], 1)
                if near.shape[1] > k:
                    near, kept = torch.topk(near, k, largest=False, sorted=False)
                    place = place.gather(1, kept)
                best[i] = near, place
        return tuple(
            np.concatenate([part.cpu().numpy() for part in parts]) for parts in zip(*best, strict=True)
        )


def pairs_on(device: "torch.device", pool: RowStack, points: RowStack, radius: float) -> list["PairsOfBlock"]:
    """What ``close_pairs`` finds for ``points`` (n, dim), by products with all rows of ``pool``."""
    mean = pool[:: -(-len(pool) // _SAMPLE_ROWS)].mean(axis=0, dtype=np.float64).astype(np.float32)
    # One block for each core, as its pairs are evaluated in one thread; but the pool is read for each block.
    most = min(_block(device, pool.shape[1])[1], max(_LEAST_POINTS, -(-len(points) // cores())))
    members = np.arange(len(points))
    return [
        PairsOfBlock(device, pool, points, members[start : start + most], mean, radius)
        for start in range(0, len(points), most)
    ]


@dataclass(frozen=True, eq=False)
class PairsOfBlock:
    """The possible pairs of ``members`` (n,) of the points with rows of the pool; ``mean`` (dim,) of the pool."""

    device: "torch.device"
    pool: RowStack
    points: RowStack
    members: np.ndarray
    mean: np.ndarray
    radius: float

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(points, rows of the pool), (p,) int64 each, in order of both; all pairs of a point together."""
        first, step = 0, len(self.members)
        while first < len(self.members):
            some = self.members[first : first + step]
            found = self._within(some)
            if found is None:
                step = len(some) // 2
                continue
            yield found
            # Back to large steps once a family of copies is done with.
            first, step = first + len(some), 2 * step

    def _within(self, members: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The pairs of ``members``; None where they are too many to be held and there is more than one member."""
        with _exact_torch(self.device) as torch:
            mean = torch.tensor(self.mean, device=self.device)
            x = torch.tensor(self.points[members], device=self.device).sub_(mean)
            x_squared, dim = x.square().sum(1), len(mean)
            size, rows = _block(self.device, dim)
            found, pairs = [], 0
            for first, block in self.pool.blocks(rows * 4 * dim):
                y = torch.tensor(block, device=self.device).sub_(mean)
                y_squared = y.square().sum(1)
                error = squared_distance_error(dim, *(float(s.max()) ** 0.5 for s in (x_squared, y_squared)))
                # |x|^2 + |y|^2 - 2xy <= limit as xy - |y|^2/2 >= (|x|^2 - limit)/2: one product, one test.
                bounds = (x_squared - (self.radius**2 * (1 + _SLACK) + error)) / 2
                for start, stop in row_blocks(len(members), 4 * len(y), size):
                    near = torch.addmm(y_squared / -2, x[start:stop], y.T) >= bounds[start:stop, None]
                    pairs += int(near.count_nonzero())
                    if pairs > _PAIRS_AT_ONCE and len(members) > 1:
                        return None
                    point, row = near.nonzero().T.cpu().numpy()
                    found.append((members[start + point], first + row))
        point, row = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        order = np.argsort(point, kind="stable")  # rows ascend from block to block
        return point[order], row[order]


def _block(device: "torch.device", dim: int) -> tuple[int, int]:
    """Bytes of a block of products, and how many rows of ``dim`` float32 are read at once."""
    import torch

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + unused
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        free = available_memory()
    size = min(max(0, free) // _SHARE_OF_MEMORY, _LARGEST_BLOCK)
    return size, max(1, min(_ROWS_AT_ONCE, size // (4 * dim)))


@contextmanager
def _exact_torch(device: "torch.device") -> Iterator[Any]:
    """torch with products in full float32, for one thread at a time: the setting is one for the whole process.

    TF32, which some containers switch on, and autocast round further than ``squared_distance_error`` allows.
    """
    import torch

    matmul = torch.backends.cuda.matmul
    # From torch 2.9 on what allow_tf32 says cannot be asked once fp32_precision was set, and this is what counts.
    name, exact = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    with _in_use, torch.no_grad(), torch.autocast(device.type, enabled=False):
        before = getattr(matmul, name)
        setattr(matmul, name, exact)
        try:
            yield torch
        finally:
            setattr(matmul, name, before)
