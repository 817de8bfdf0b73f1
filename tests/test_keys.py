import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.keys import KEY_PATTERN, KEY_RULE, check_key, suggest_key


@pytest.mark.parametrize("key", ["a", "0", "flan_cot", "a-b", "a_", "9-x", "a" * 63])
def test_valid_keys(key):
    assert check_key("source", key) == key


@pytest.mark.parametrize(
    "key",
    ["", "-a", "_a", "A", "a b", "a.b", "a/b", "../x", "a|b", "é", "a" * 64, "a\n", "\na", "a\0"],
)
def test_invalid_keys(key):
    with pytest.raises(TsdsError):
        check_key("task", key)


def test_the_message_shows_the_way_out():
    with pytest.raises(TsdsError) as caught:
        check_key("source", "My Data (v2)")
    assert str(caught.value) == (
        f'"My Data (v2)" cannot be a source key ({KEY_RULE}): rename it, for example to "my-data-v2", '
        'or name it in tsds.toml: [sources.my-data-v2] path = "..."'
    )


def test_a_name_of_which_nothing_can_be_kept():
    with pytest.raises(
        TsdsError, match=r'for example to "my-task", or name it in tsds.toml: \[tasks.my-task\]'
    ):
        check_key("task", "日本")


@given(st.text())
def test_a_suggestion_is_valid_or_empty(name):
    suggestion = suggest_key(name)
    assert suggestion == "" or KEY_PATTERN.fullmatch(suggestion)


@given(st.from_regex(KEY_PATTERN, fullmatch=True))
def test_a_valid_key_without_loose_ends_is_its_own_suggestion(key):
    assert suggest_key(key) == key.strip("-_")
