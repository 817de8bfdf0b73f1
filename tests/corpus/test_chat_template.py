"""Chats as the text that a model sees: the same as transformers makes, and what a template refuses."""

import json
from pathlib import Path

import pytest

from tsds_pipeline.corpus import read_queries, read_source, read_test_set
from tsds_pipeline.corpus.chat_template import ChatTemplate, load_chat_template
from tsds_pipeline.errors import TsdsError

CHATML = (
    "{%- if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'critic' %}{{ raise_exception('no critics: ' + message.role) }}{% endif -%}"
    "{{ bos_token }}<|{{ message.role }}|>{{ message.content }}"
    "{%- if message.name is defined %} ({{ message.name }}){% endif %}{{ '\n' }}"
    "{%- endfor -%}"
)
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "<b>hello</b>"}]


def template(text: str = CHATML, **tokens: str) -> ChatTemplate:
    return ChatTemplate("here", text, {"bos_token": "<s>", **tokens})


def reasons(path: Path, text: str = CHATML) -> list[str]:
    read = read_source([path], template=None, max_chars=100, vector_field=None, chat_template=template(text))
    return read.quarantine["reason"].to_list()


def test_a_chat_is_what_the_model_sees_and_other_records_are_as_before(write):
    rows = [
        {"messages": CHAT, "text": "not this"},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "<b>hello</b>"}]},
        {"text": "plain"},
        {"messages": None, "prompt": "p", "completion": "c"},
    ]
    read = read_source(
        [write("a.jsonl", rows)], template=None, max_chars=100, vector_field=None, chat_template=template()
    )
    assert sorted(read.corpus["text"]) == ["<s><|user|>hi\n<s><|assistant|><b>hello</b>", "p\n\nc", "plain"]
    assert read.corpus["count"].sum() == 4, "both forms of the chat are one text"
    assert read.quarantine.is_empty()


def test_what_is_null_is_not_there(tmp_path):
    import polars as pl

    rows = [
        {
            "messages": [
                {"role": "user", "content": "a", "name": "Ann"},
                {"role": "assistant", "content": "b", "name": None},
            ]
        }
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    read = read_source(
        [tmp_path / "a.parquet"], template=None, max_chars=100, vector_field=None, chat_template=template()
    )
    assert read.corpus["text"].to_list() == ["<s><|user|>a (Ann)\n<s><|assistant|>b"]


def test_tools_are_offered():
    tool = {"type": "function", "function": {"name": "f", "description": None}}
    found = template().rendered({"messages": CHAT[:1], "tools": [tool]})
    assert found.startswith('<tools>[{"type": "function", "function": {"name": "f"}}]</tools>')


def test_a_template_of_a_source_wins(write):
    path = write("a.jsonl", [{"messages": CHAT, "title": "t"}])
    read = read_source([path], template="{title}", max_chars=100, vector_field=None, chat_template=template())
    assert read.corpus["text"].to_list() == ["t"]


def test_queries_and_test_sets_too(write):
    path = write("a.jsonl", [{"messages": CHAT[:1]}])
    rules = {"template": None, "max_chars": 100, "chat_template": template()}
    assert read_queries([path], vector_field=None, **rules)["text"].to_list() == ["<s><|user|>hi"]
    assert set(read_test_set([path], **rules)["text"]) == {"<s><|user|>hi"}


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ([{"role": "critic", "content": "x"}], "the chat template refuses the turns: no critics: critic"),
        ([{"from": "x", "value": "y"}], "a turn of the field \"messages\" is by 'x', expected one of "),
        (["x"], 'the field "messages" holds a text as a turn, expected an object'),
        ("x", 'the field "messages" holds a text, expected a list of turns'),
    ],
)
def test_what_cannot_be_used_is_quarantined_with_the_reason(write, chat, reason):
    (found,) = reasons(write("a.jsonl", [{"messages": chat}]))
    assert found.startswith(reason)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages[0].content.format.__globals__.os }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ messages.append({}) }}",
    ],
)
def test_a_template_is_in_a_sandbox(write, attack):
    (found,) = reasons(write("a.jsonl", [{"messages": CHAT}]), attack)
    assert found.startswith("the chat template refuses the turns: ")


def test_the_day_is_always_the_same():
    text = "{{ strftime_now('%d %b %Y') }}, {{ strftime_now('%Y-%m-%d') }}, {{ strftime_now('%A %B %y') }}"
    found = template(text).rendered({"messages": CHAT})
    assert found == "26 Jul 2024, 2024-07-26, Friday July 24"


def test_what_is_no_template_is_an_error_that_names_the_line(write):
    with pytest.raises(TsdsError, match=r"here: line 2: not a chat template: Expected an expression"):
        reasons(write("a.jsonl", [{"messages": CHAT}]), "a\n{% if %}")


class TestFinding:
    """``chat_template`` of tsds.toml."""

    def model(self, root: Path, config: object, template: str | None = None) -> Path:
        folder = root / "model"
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        return folder

    @pytest.mark.parametrize(
        ("config", "file", "expected"),
        [
            ({"chat_template": "in the configuration"}, None, "in the configuration"),
            ({"chat_template": "old"}, "in a file", "in a file"),
            (
                {
                    "chat_template": [
                        {"name": "rag", "template": "x"},
                        {"name": "default", "template": "one of several"},
                    ]
                },
                None,
                "one of several",
            ),
        ],
    )
    def test_a_model_folder(self, tmp_path, config, file, expected):
        tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "pad_token": None}
        self.model(tmp_path, {**config, **tokens}, file)
        found = load_chat_template("model", tmp_path)
        assert (found.text, found.tokens) == (expected, {"bos_token": "<s>", "eos_token": "</s>"})

    def test_a_file_has_the_tokens_beside_it(self, tmp_path):
        self.model(tmp_path, {"bos_token": "<s>"}, "x")
        assert load_chat_template("model/chat_template.jinja", tmp_path).tokens == {"bos_token": "<s>"}
        (tmp_path / "a.jinja").write_text("x")
        assert load_chat_template(str(tmp_path / "a.jinja"), tmp_path).tokens == {}

    def test_the_fingerprint_is_that_of_what_it_says(self, tmp_path):
        self.model(tmp_path, {"bos_token": "<s>", "chat_template": "x"})
        one = load_chat_template("model", tmp_path).fingerprint
        self.model(tmp_path, {"bos_token": "<s>", "chat_template": "x", "model_max_length": 7})
        assert load_chat_template("model", tmp_path).fingerprint == one
        for other in ({"bos_token": "<s>", "chat_template": "y"}, {"bos_token": "<t>", "chat_template": "x"}):
            self.model(tmp_path, other)
            assert load_chat_template("model", tmp_path).fingerprint != one

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            (
                "gone.jinja",
                r"gone\.jinja cannot be read: No such file or directory: name a \.jinja file, the folder",
            ),
            ("model", "the model has no chat template: name a .jinja file, the folder of a model"),
            ("owner/nowhere", "cannot be found: name a .jinja file"),
            ("a b/c", "cannot be found: name a .jinja file"),
        ],
    )
    def test_what_is_not_there(self, tmp_path, name, problem):
        self.model(tmp_path, {})
        with pytest.raises(TsdsError, match=rf'^\[corpus\] chat_template = "{name}".*{problem}'):
            load_chat_template(name, tmp_path)

    def test_a_damaged_configuration(self, tmp_path):
        (self.model(tmp_path, {}) / "tokenizer_config.json").write_text("[")
        with pytest.raises(TsdsError, match=r"tokenizer_config\.json: not a JSON object"):
            load_chat_template("model", tmp_path)


def test_the_text_is_that_of_a_tokenizer(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"x": 0}, "x")), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = CHATML + "{{ eos_token }}"
    tokenizer.save_pretrained(tmp_path / "model")
    fields = {"messages": CHAT}
    expected = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert load_chat_template("model", tmp_path).rendered(fields) == expected
