"""Long vectors to short ones: a random projection that keeps inner products, without a matrix in memory.

A vector is cut into blocks of ``dimension`` numbers; each gets random signs and is turned by a random number of places,
and the blocks are added up. That is R'x with one entry of +-1 in each row of R (length, dimension): a count sketch
(Charikar et al. 2002; feature hashing, Weinberger et al. 2009), in which the rows of one block never meet. COPIES
of them, added up and divided by sqrt(COPIES), are a sparse Johnson-Lindenstrauss matrix (Kane and Nelson 2014). For any
x and y

    E <R'x, R'y> = <x, y>,    Var <R'x, R'y> <= (|x|^2 |y|^2 + <x, y>^2) / dimension,

as for a dense matrix of +-1, at a cost that does not grow with ``dimension``: gradients are millions of numbers long,
and a dense matrix would take far longer than the gradients themselves. Several copies make large errors rare for
vectors that a few numbers dominate, too.

Signs and turns are functions of the seed and the number of the block alone: bits of the SplitMix64 sequence (Steele,
Lea, Flood 2014), computed in integers, the same on every device.
"""

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

COPIES = 4
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def projected(values: "torch.Tensor", start: int, dimension: int, seed: str) -> "torch.Tensor":
    """The part (n, dimension) of R'x that ``values`` (n, k) give, which are the numbers from ``start`` on of each x.

    So the parts of a long vector may come one after another, and their results add up. ``dimension`` is a multiple of
    64. The type of the result is that of ``values``.
    """
    import torch

    rows, length = values.shape
    first, before = divmod(start, dimension)
    blocks = -(-(before + length) // dimension)
    padded = torch.nn.functional.pad(values, (before, blocks * dimension - before - length))
    numbers = torch.arange(first, first + blocks, device=values.device)
    places = torch.arange(dimension, device=values.device)
    total = 0
    for copy in range(COPIES):
        signs = _signs(f"signs {copy} {seed}", first, blocks, dimension, values.device).to(values.dtype)
        signed = (padded.view(rows, blocks, dimension) * signs).view(rows, -1)
        turns = _bits(f"turns {copy} {seed}", numbers) % dimension
        taken = (places - turns[:, None]) % dimension + (numbers - first)[:, None] * dimension
        total = total + signed[:, taken.view(-1)].view(rows, blocks, dimension).sum(dim=1)
    return total / COPIES**0.5


def _signs(seed: str, first: int, blocks: int, dimension: int, device: "torch.device") -> "torch.Tensor":
    """(blocks, dimension) of -1 and 1, for the blocks from ``first`` on."""
    import torch

    words = dimension // 64
    numbers = torch.arange(first * words, (first + blocks) * words, device=device)
    bits = (_bits(seed, numbers)[:, None] >> torch.arange(64, device=device)) & 1
    return (2 * bits - 1).view(blocks, dimension)


def _bits(seed: str, numbers: "torch.Tensor") -> "torch.Tensor":
    """64 random bits for each of ``numbers`` (int64): that place in a SplitMix64 sequence."""
    start = int.from_bytes(blake2b(seed.encode(), digest_size=8).digest(), "little")
    # Integers wrap around, as SplitMix64 has them.
    state = numbers * _signed(_GOLDEN) + _signed(start)
    state = (state ^ _shifted(state, 30)) * _signed(_FIRST)
    state = (state ^ _shifted(state, 27)) * _signed(_SECOND)
    return state ^ _shifted(state, 31)


def _signed(value: int) -> int:
    """The 64 bits of ``value`` as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


def _shifted(state: "torch.Tensor", bits: int) -> "torch.Tensor":
    """Shifted to the right, with zeros coming in."""
    return (state >> bits) & (2 ** (64 - bits) - 1)
