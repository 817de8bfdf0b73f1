"""Several probabilities drawn into one set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_sampling import skewed
from tsds_pipeline.core.mixing import Part, mixed_draw, shares
from tsds_pipeline.core.sampling import draw


def part(name: str, ids: list[str], weight: float = 1.0, seed: int = 0, costs=None) -> Part:
    return Part(name, skewed(len(ids), seed), ids, weight, f"key-{name}", costs)


def names(start: int, stop: int) -> list[str]:
    return [f"id-{i:03d}" for i in range(start, stop)]


@settings(max_examples=100)
@given(st.lists(st.floats(0.01, 9), min_size=1, max_size=6), st.integers(1, 500))
def test_shares_are_whole_and_next_to_exact(weights, total):
    found = shares(weights, total)
    exact = np.array(weights) / sum(weights) * total
    assert found.sum() == total
    assert (np.abs(found - exact) < 1 + 1e-6).all()


def test_equal_remainders_go_to_the_first():
    assert shares([1, 1, 1], 5).tolist() == [2, 2, 1]
    assert shares([2.0, 1.0], 30).tolist() == [20, 10]


def test_a_part_alone_is_its_own_draw():
    ids = names(0, 40)
    one = part("a", ids)
    plain = draw(one.probabilities, 12, epochs=3, ids=ids, key=one.key)
    for mixed, rows in zip(mixed_draw([one], 12, epochs=3, key="m"), plain, strict=True):
        assert set(mixed.row) == set(rows)


@settings(max_examples=60)
@given(seed=st.integers(0, 999), total=st.integers(2, 30), weight=st.floats(0.2, 5))
def test_each_has_its_share_and_nothing_comes_twice(seed, total, weight):
    # Half of the candidates of each are wanted by the other too.
    parts = [part("a", names(0, 60), weight, seed), part("b", names(30, 90), 1.0, seed + 1)]
    for mixed in mixed_draw(parts, total, epochs=3, key="m"):
        ids = [parts[p].ids[r] for p, r in zip(mixed.part, mixed.row, strict=True)]
        assert len(set(ids)) == len(ids) == total
        assert np.bincount(mixed.part, minlength=2).tolist() == shares([weight, 1.0], total).tolist()


def test_what_several_want_goes_to_them_in_turns():
    ids = names(0, 200)
    parts = [Part(name, np.full(200, 0.005), ids, 1.0, "the same ranking") for name in "ab"]
    [mixed] = mixed_draw(parts, 40, key="m")
    first = set(draw(parts[0].probabilities, 40, ids=ids, key="the same ranking")[0])
    assert set(mixed.row) == first, "together they take the first forty"
    assert np.bincount(mixed.part).tolist() == [20, 20]


def test_a_budget_is_shared_and_never_exceeded():
    rng = np.random.default_rng(0)
    costs = rng.integers(1, 20, 120)
    parts = [part("a", names(0, 80), 2.0, 1, costs[:80]), part("b", names(40, 120), 1.0, 2, costs[40:])]
    for mixed in mixed_draw(parts, 300, epochs=5, key="m"):
        spent = [int(parts[p].costs[mixed.row[mixed.part == p]].sum()) for p in (0, 1)]
        assert 180 < spent[0] <= 200
        assert 80 < spent[1] <= 100
        ids = [parts[p].ids[r] for p, r in zip(mixed.part, mixed.row, strict=True)]
        assert len(set(ids)) == len(ids)


def test_a_part_that_cannot_give_its_share_is_named():
    few = part("task b", names(0, 5))
    with pytest.raises(ValueError, match="task b is to give 10 examples and has only 5 with mass"):
        mixed_draw([part("task a", names(0, 50)), few], 20, key="m")
    same = [part("task a", names(0, 8)), part("task b", names(0, 8), seed=1)]
    with pytest.raises(
        ValueError, match=r"task \w is to give 5 and has no more .* than 8, of which 8 are taken"
    ):
        mixed_draw(same, 10, key="m")
    costly = [
        part("task a", names(0, 8), costs=np.full(8, 10)),
        part("task b", names(9, 99), costs=np.full(90, 10)),
    ]
    with pytest.raises(ValueError, match="task a is to give 150"):
        mixed_draw(costly, 300, key="m")
