"""Finding the text of a record without a template."""

import pytest

from tsds_pipeline.corpus.fields import SHAPES, found_text
from tsds_pipeline.corpus.quarantine import BadRecord


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "t", "instruction": "i", "output": "o"}, "t"),
        ({"text": None, "instruction": "i", "output": "o"}, "i\n\no"),
        ({"text": "  ", "content": "c"}, "c"),
        ({"instruction": "i", "input": "n", "output": "o"}, "i\n\nn\n\no"),
        ({"instruction": "i", "input": "", "output": "o"}, "i\n\no"),
        ({"instruction": "i", "input": None, "output": " "}, "i"),
        ({"instruction": "", "input": "n", "output": "o"}, "n\n\no"),
        ({"instruction": "i", "context": "c", "response": "r"}, "i\n\nc\n\nr"),
        ({"prompt": "p", "completion": "c"}, "p\n\nc"),
        ({"prompt": "p", "response": "r", "completion": ""}, "p\n\nr"),
        ({"question": "q", "answer": 42}, "q\n\n42"),
        ({"question": "q", "context": "c", "answer": ["a", "b"]}, "q\n\nc\n\na\nb"),
        ({"problem": "p", "solution": "s"}, "p\n\ns"),
        ({"query": "q", "response": True}, "q\n\ntrue"),
        ({"inputs": "i", "targets": "t"}, "i\n\nt"),
        ({"content": "c", "label": 3}, "c"),
        ({"instruction": "i\n", "output": "\n    return 1\n"}, "i\n\n    return 1"),
        ({"sentence": "s"}, "s"),
    ],
)
def test_usual_fields(fields, expected):
    assert found_text(fields) == expected


@pytest.mark.parametrize(
    "chat",
    [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {"messages": [{"role": "system", "content": " "}, {"content": "hi"}, {"content": "hello"}]},
        {"messages": [{"content": "hi"}, {"content": None, "tool_calls": []}, {"content": "hello"}]},
        {"conversations": [{"content": None, "value": "hi\n"}, {"content": "hello", "value": None}]},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {
            "messages": [
                {"content": [{"type": "text", "text": "hi"}, {"type": "image_url"}]},
                {"content": "hello"},
            ]
        },
    ],
)
def test_chats(chat):
    assert found_text(chat) == "hi\n\nhello"


def test_every_name_is_listed_once_as_a_first_part():
    first = [name for shape in SHAPES for name in shape[0]]
    assert len(first) == len(set(first))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"text": ""}, "the text is empty (text)"),
        ({"text": None, "messages": []}, "the text is empty (text, messages)"),
        ({"messages": None}, "the text is empty (messages)"),
        ({"text": 13}, 'the field "text" holds a number, expected a text'),
        ({"text": ["a"]}, 'the field "text" holds a list, expected a text'),
        ({"prompt": {"a": 1}}, 'the field "prompt" holds an object, expected a text'),
        ({"question": "q", "answer": {"value": 1}}, 'the field "answer" holds an object, expected a text'),
        ({"question": "q", "answer": [["a"]]}, 'the field "answer" holds a list, expected a text'),
        ({"messages": "hi"}, 'the field "messages" holds a text, expected a list of turns'),
        ({"messages": ["hi"]}, 'the field "messages" holds a text as a turn, expected an object'),
        ({"messages": [{"content": 1}]}, 'the field "messages" holds a number in a turn, expected a text'),
        ({}, "no field known to hold text (found nothing): say which by a text template"),
        ({"a": 1, "Text": "x"}, "no field known to hold text (found a, Text): say which by a text template"),
    ],
)
def test_why_there_is_no_text(fields, reason):
    with pytest.raises(BadRecord) as error:
        found_text(fields)
    assert str(error.value) == reason


def test_many_fields_do_not_flood_the_reason():
    with pytest.raises(BadRecord, match="f8, f9, 90 more"):
        found_text({f"f{i}": i for i in range(100)})
