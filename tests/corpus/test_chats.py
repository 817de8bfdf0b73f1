"""Records as chats."""

import pytest

from tsds_pipeline.corpus.chats import chat_of
from tsds_pipeline.corpus.quarantine import BadRecord


def said(**fields: object) -> str:
    """The chat of a record that was selected by the text T, as "role: text", a line a turn."""
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in chat_of(fields, "T"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"instruction": "i", "input": "n", "output": "o"}, "user: i\n\nn\nassistant: o"),
        ({"instruction": "i", "input": "", "output": "o"}, "user: i\nassistant: o"),
        ({"instruction": "i", "context": "c", "response": "r"}, "user: i\n\nc\nassistant: r"),
        ({"prompt": "p", "completion": "c"}, "user: p\nassistant: c"),
        ({"question": "q", "answer": 42}, "user: q\nassistant: 42"),
        ({"question": "q", "context": "c", "answer": ["a", "b"]}, "user: q\n\nc\nassistant: a\nb"),
        ({"inputs": "i", "targets": "t"}, "user: i\nassistant: t"),
        # OpenOrca
        (
            {"system_prompt": "s", "question": "q", "response": "r"},
            "system: s\nuser: q\nassistant: r",
        ),
        # What nobody answers
        ({"prompt": "p"}, "user: p"),
        ({"prompt": "p", "completion": " "}, "user: p"),
        # Plain texts are what they were selected by
        ({"text": "raw"}, "assistant: T"),
        ({"content": "c", "label": 3}, "assistant: T"),
        ({"title": "of a template"}, "assistant: T"),
        ({"text": "raw", "input": "some column"}, "assistant: T"),
        # A rendered text beside what it was rendered from
        ({"text": "raw", "prompt": "p", "completion": "c"}, "user: p\nassistant: c"),
        ({"text": "raw", "messages": [{"role": "user", "content": "hi"}]}, "user: hi"),
        ({"messages": [], "prompt": "p", "completion": "c"}, "user: p\nassistant: c"),
        ({"messages": None, "text": "raw"}, "assistant: T"),
    ],
)
def test_shapes(fields, expected):
    assert said(**fields) == expected


@pytest.mark.parametrize(
    "chat",
    [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {
            "messages": [
                {"role": "system", "content": " "},
                {"role": "User", "content": [{"type": "text", "text": "hi"}]},
                {"role": "model", "content": "hello", "name": "x"},
            ]
        },
    ],
)
def test_chats(chat):
    assert said(**chat) == "user: hi\nassistant: hello"
    assert said(**chat, system="be kind") == "system: be kind\nuser: hi\nassistant: hello"


def test_a_chat_with_a_system_turn_keeps_it():
    turns = [{"role": "developer", "content": "own"}, {"role": "user", "content": "hi"}]
    assert said(messages=turns, system="other") == "system: own\nuser: hi"


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        ("hi", 'the field "messages" holds a text as a turn, expected an object'),
        (
            {"content": "hi"},
            r'a turn of the field "messages" does not say by whom it is \("role" or "from"\)',
        ),
        ({"role": "narrator", "content": "hi"}, "is by 'narrator', expected one of assistant, bard"),
        ({"role": "user", "content": [{"type": "image"}]}, "holds an object, expected a text"),
        ({"role": "user", "content": 3}, "holds a number, expected a text"),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "holds tool_calls, which has no text"),
    ],
)
def test_what_cannot_be_said(turn, problem):
    with pytest.raises(BadRecord, match=problem):
        said(messages=[turn])
