"""How what became of settings is said."""

import pytest

from tsds_pipeline.wording import changes

HASH, OTHER = "0123456789ab", "ba9876543210"


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"size": 12}, {"size": 5}, ["size 12 -> 5"]),
        ({"size": 12, "seed": 1}, {"size": 12, "seed": 1}, []),
        ({}, {"alpha": "auto"}, ["alpha unset -> auto"]),
        ({"fraction": 0.5}, {"fraction": None}, ["fraction 0.5 -> unset"]),
        ({"weights": False}, {"weights": True}, ["weights false -> true"]),
        ({"sources": ["a"]}, {"sources": ["a", "b"]}, ['sources ["a"] -> ["a", "b"]']),
        ({"text": '{a}\n"{b}"'}, {"text": "ü"}, [r"text {a}\n\"{b}\" -> ü"]),
        (
            {"drop": {"l": ["x"]}},
            {"drop": {"l": ["y"], "m": []}},
            ['drop.l ["x"] -> ["y"]', "drop.m unset -> []"],
        ),
        ({"caps": {"a": 0.3}}, {}, ["caps.a 0.3 -> unset"]),
        # The hash of a file tells nobody anything.
        ({"test_set": HASH}, {"test_set": OTHER}, ["test_set changed"]),
        ({}, {"test_set": OTHER}, ["test_set is new"]),
        ({"chat_template_hash": HASH}, {}, ["chat_template is gone"]),
        (
            {"exclude": {"a": [HASH, None, 9], "b": [HASH, None, 9]}},
            {"exclude": {"a": [OTHER, None, 9], "c": [HASH, None, 9]}},
            ["exclude.a changed", "exclude.b is gone", "exclude.c is new"],
        ),
        ({"model": f"sha256:{HASH * 5}"}, {"model": "all-minilm 1.0"}, ["model changed"]),
    ],
)
def test_changes(before, now, said):
    assert list(changes(before, now, sorted(before.keys() | now.keys()))) == said
