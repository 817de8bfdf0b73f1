"""What identifies a record: its text, its content id, its own id, the rest of it."""

import pytest

from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.corpus.records import RecordRules
from tsds_pipeline.corpus.template import Template
from tsds_pipeline.corpus.text import content_id
from tsds_pipeline.corpus.vectors import FieldVectors

RULES = RecordRules(None, 10, None)


@pytest.mark.parametrize(
    ("fields", "record_id", "record"),
    [
        ({"id": "x", "text": "t"}, "x", '{"text":"t"}'),
        ({"id": 7, "text": "t"}, "7", '{"text":"t"}'),
        ({"_id": "x", "text": "t"}, "x", '{"text":"t"}'),
        ({"uuid": "u", "id": None, "text": "t"}, "u", '{"id":null,"text":"t"}'),
        ({"id": "x", "_id": "y", "text": "t"}, "x", '{"_id":"y","text":"t"}'),
        (
            {"text": "t ", "b": [1, {"d": "é", "c": 1.50}], "id": "x"},
            "x",
            '{"b":[1,{"c":1.5,"d":"é"}],"text":"t "}',
        ),
    ],
)
def test_id_and_canonical_record(fields, record_id, record):
    found = RULES.identify(fields)
    assert (found.record_id, found.record) == (record_id, record)
    assert (found.content_id, found.text, found.vector) == (content_id("t"), "t", None)


@pytest.mark.parametrize("value", [None, "", "  ", True, 1.5, ["x"], {"$oid": "x"}])
def test_what_is_no_id_stays_in_the_record_which_is_named_by_its_contents(value):
    first, again = RULES.identify({"id": value, "text": "t"}), RULES.identify({"text": "t", "id": value})
    assert first == again
    assert '"id":' in first.record
    assert len(first.record_id) == 32
    assert first.record_id != RULES.identify({"id": value, "text": "t", "label": 1}).record_id


def test_max_chars_counts_normalised_characters():
    assert RULES.identify({"text": "é" * 10 + " " * 50}).text == "é" * 10
    with pytest.raises(BadRecord, match="the text has 11 characters, more than max_chars = 10"):
        RULES.identify({"text": "é" * 11})


def test_a_template_decides_the_text():
    rules = RecordRules(Template("{a}: {b}"), 10, None)
    assert rules.identify({"text": "t", "a": "x", "b": 1}).text == "x: 1"


def test_the_vector_is_part_of_the_content_but_not_of_the_record():
    rules = RecordRules(None, 10, FieldVectors("e"))
    found, other = rules.identify({"text": "t", "e": [1, 2.5]}), rules.identify({"text": "t", "e": [1, 2]})
    assert found.vector.tolist() == [1, 2.5]
    assert found.vector.dtype == "float32"
    assert found.record == '{"text":"t"}'
    assert found.content_id == content_id("t", found.vector) != other.content_id
    assert found.record_id != other.record_id


def test_vectors_that_are_the_same_in_float32_are_one():
    rules = RecordRules(None, 10, FieldVectors("e"))
    assert (
        rules.identify({"text": "t", "e": [0.1, 0.0]}).content_id
        == rules.identify({"text": "t", "e": [0.1 + 1e-12, -0.0]}).content_id
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "is missing"),
        ({"e": None}, "holds null, expected a list of numbers"),
        ({"e": "[1, 2]"}, "holds a text, expected a list of numbers"),
        ({"e": []}, "is not a list of numbers"),
        ({"e": [1, None]}, "is not a list of numbers"),
        ({"e": [1, "2"]}, "is not a list of numbers"),
        ({"e": [1.5, True]}, "is not a list of numbers"),
        ({"e": [True, False]}, "is not a list of numbers"),
        ({"e": [[1, 2]]}, "is not a list of numbers"),
        ({"e": [[1], [1, 2]]}, "is not a list of numbers"),
        ({"e": [1, 10**400]}, "is not a list of numbers"),
        ({"e": [1, 1e39]}, "holds a number that is not finite in float32"),
        ({"e": [1, float("inf")]}, "holds a number that is not finite in float32"),
        ({"e": [1, float("nan")]}, "holds a number that is not finite in float32"),
    ],
)
def test_vectors_that_cannot_be_used(fields, reason):
    with pytest.raises(BadRecord) as error:
        RecordRules(None, 10, FieldVectors("e")).identify({"text": "t", **fields})
    assert str(error.value) == f'the vector field "e" {reason}'
