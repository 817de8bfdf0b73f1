"""Text templates."""

import pytest

from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.corpus.template import Template
from tsds_pipeline.errors import TsdsError


@pytest.mark.parametrize(
    ("template", "fields", "expected"),
    [
        ("{a}\n{b}", {"a": "x", "b": "y"}, "x\ny"),
        ("{a}\n{b}\n{c}", {"a": "x", "b": "", "c": "z"}, "x\nz"),
        ("{a}\n\n{b}\n\n{c}", {"a": "x", "b": None, "c": "z"}, "x\n\nz"),
        ("{a}\n\n{b}\n\n{c}", {"a": " ", "b": "y", "c": "z"}, "y\n\nz"),
        ("Input: {b}\n{a}", {"a": "x", "b": ""}, "x"),
        ("Q: {a}\n\nA: {b}", {"a": "x", "b": "y"}, "Q: x\n\nA: y"),
        ("{a} {b}", {"a": "x", "b": ""}, "x "),
        ("{a}\n\n## end", {"a": "x"}, "x\n\n## end"),
        ("{a}", {"a": "one\n\n\ntwo {b}"}, "one\n\n\ntwo {b}"),
        ("{{{a}}}", {"a": "x"}, "{x}"),
        ("{a}", {"a": 1.5}, "1.5"),
        ("{a} {b}", {"a": 7, "b": False}, "7 false"),
        ("{a}", {"a": ["x", "y"]}, "x\ny"),
        ("{a.b}", {"a": {"b": "x"}}, "x"),
        ("{a.b}", {"a.b": "x", "a": {"b": "y"}}, "x"),
        ("{c}{a.b}", {"a": None, "c": "x"}, "x"),
        ("{the question}", {"the question": "x"}, "x"),
        ("{a}\r\n{b}", {"a": "x", "b": "y"}, "x\ny"),
    ],
)
def test_filling(template, fields, expected):
    assert Template(template).text(fields) == expected


@pytest.mark.parametrize(
    ("template", "fields", "reason"),
    [
        ("{a}\n{b}", {"a": "x", "c": 1}, 'the template\'s field "b" is missing (found a, c)'),
        ("{a.b}", {"a": {}}, 'the template\'s field "a.b" is missing (found a)'),
        ("{a.__class__}", {"a": "x"}, 'the template\'s field "a.__class__" is missing (found a)'),
        ("{a}", {"a": {"b": 1}}, 'the field "a" holds an object, expected a text'),
        ("### {a}\n\nmore", {"a": " \n"}, "the text is empty (every field of the template is)"),
    ],
)
def test_records_that_do_not_fit(template, fields, reason):
    with pytest.raises(BadRecord) as error:
        Template(template).text(fields)
    assert str(error.value) == reason


@pytest.mark.parametrize("template", ["{}", "{a", "a}", "{a[0]}", "{a!r}", "{a:>10}", "{a:{b}}", "{a\nb}"])
def test_nothing_but_names_in_braces(template):
    with pytest.raises(TsdsError, match="text template"):
        Template(template)
