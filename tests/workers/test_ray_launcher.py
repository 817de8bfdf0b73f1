"""The command line of a run on Ray."""

import shlex

import pytest

from tsds_pipeline.orchestration.ray_launcher import quoted


@pytest.mark.parametrize("said", ['{"a": 1}', """{"a": "it's b' 'c"}""", "'", '{"a": "$(b) `c` \\\\n"}'])
def test_whatever_dagster_yaml_says_is_one_word(said):
    words = ["dagster", "api", "execute_run"]
    assert shlex.split(quoted(f"{' '.join(words)} '{said}'")) == [*words, said]
