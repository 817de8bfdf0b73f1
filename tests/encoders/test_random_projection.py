"""The projection keeps inner products as well as theory says, however the vectors come."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsds_pipeline.encoders import random_projection
from tsds_pipeline.encoders.random_projection import COPIES, projected

DIMENSION, LENGTH = 256, 2000


def vectors(count: int, scale: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Rows that have a part in common, float64."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((count + 1, LENGTH), dtype=torch.float64, generator=generator)
    return (rows[:-1] + rows[-1]) * scale


def errors(rows: torch.Tensor, seed: str) -> torch.Tensor:
    """Of the inner products of all pairs, each divided by the standard deviation of theory."""
    short, exact = projected(rows, 0, DIMENSION, seed), rows @ rows.T
    squares = (rows**2).sum(dim=1)
    variance = squares[:, None] * squares + exact**2
    pairs = torch.triu_indices(len(rows), len(rows), 1).unbind()
    return ((short @ short.T - exact) / (variance / DIMENSION).sqrt())[pairs]


@pytest.mark.parametrize("scale", [1.0, "few large numbers"])
def test_inner_products_are_kept_within_the_error_of_theory(scale):
    if scale != 1.0:
        scale = torch.where(torch.arange(LENGTH) % 100 == 0, 30.0, 1.0).double()
    rows = vectors(12, scale)
    found = torch.stack([errors(rows, str(seed)) for seed in range(60)])
    assert abs(found.mean()) < 0.15, "unbiased"
    assert 0.8 < found.std() < 1.05, "the variance of theory, or a little less"
    assert found.abs().max() < 6


def as_matrix(seed: str) -> torch.Tensor:
    return projected(torch.eye(LENGTH, dtype=torch.float64), 0, DIMENSION, seed)


def test_it_is_a_sparse_matrix_of_signs():
    matrix = 2 * projected(torch.eye(LENGTH), 0, DIMENSION, "a")
    assert matrix.abs().sum(dim=1).max() == COPIES
    assert (matrix.abs().sum(dim=1) == COPIES).float().mean() > 0.95, "copies seldom meet"
    assert abs(matrix.sum()) < 5 * (COPIES * LENGTH) ** 0.5, "as many of each sign"
    columns = matrix.abs().sum(dim=0)
    assert columns.max() < 3 * COPIES * LENGTH / DIMENSION, "spread evenly"
    rows = vectors(3).float()
    torch.testing.assert_close(projected(rows, 0, DIMENSION, "a"), rows @ matrix / 2)
    assert not torch.equal(projected(rows, 0, DIMENSION, "a"), projected(rows, 0, DIMENSION, "b"))


@settings(max_examples=25)
@given(st.lists(st.integers(0, LENGTH), max_size=5))
def test_parts_add_up(cuts):
    rows = vectors(2)
    edges = [0, *sorted(cuts), LENGTH]
    parts = [
        projected(rows[:, start:stop], start, DIMENSION, "x")
        for start, stop in pairwise(edges)
        if start < stop
    ]
    torch.testing.assert_close(sum(parts), projected(rows, 0, DIMENSION, "x"))


def test_the_bits_are_those_of_splitmix64(monkeypatch):
    # The first numbers of the reference implementation for the seed 1234567.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]

    class Digest:
        def digest(self) -> bytes:
            return (1234567).to_bytes(8, "little")

    monkeypatch.setattr(random_projection, "blake2b", lambda *_, **__: Digest())
    found = random_projection._bits("any", torch.tensor([1, 2, 3]))
    assert [int(one) % 2**64 for one in found] == known
