"""A chat as the text that a model sees: its turns filled into the model's own chat template.

Templates are programs of strangers: they run in the sandbox of transformers, and see plain data only.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsds_pipeline.content_hashes import content_hash
from tsds_pipeline.corpus.chats import ROLES
from tsds_pipeline.corpus.fields import CHATS, listed
from tsds_pipeline.corpus.quarantine import BadRecord
from tsds_pipeline.corpus.raw import json_name
from tsds_pipeline.errors import TsdsError, printable
from tsds_pipeline.hub import model_files

_FILE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_REMEDY = "name a .jinja file, the folder of a model that has a chat template, or its name on the hub"
# A template that asks what day it is would give another text, and so another record, every day. The day is the one
# that those of Llama fall back to.
_DAY = {
    "%Y": "2024",
    "%y": "24",
    "%m": "07",
    "%d": "26",
    "%b": "Jul",
    "%B": "July",
    "%a": "Fri",
    "%A": "Friday",
}
_TODAY = "".join(
    [
        "{%- macro strftime_now(format) %}{{ format",
        *(
            f' | replace("{mark}", "{text}")'
            for mark, text in (_DAY | dict.fromkeys(("%H", "%M", "%S"), "00")).items()
        ),
        " }}{% endmacro -%}",
    ]
)


@dataclass(frozen=True)
class ChatTemplate:
    """The template ``text`` (Jinja) of a model and its special ``tokens``, by name; ``where`` is for messages."""

    where: str
    text: str
    tokens: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """What decides the texts that it gives."""
        return content_hash(self.text, self.tokens)

    def rendered(self, fields: dict[str, Any]) -> str | None:
        """The text of the chat in the record with these ``fields``; None where there is none.

        The turns go to the template as they are, but for what is null; those of ShareGPT (``from``, ``value``) are
        written as ``role`` and ``content`` first. ``tools`` of the record go there, too. Raises :class:`BadRecord`
        where the template refuses them, and :class:`TsdsError` where it is no template.
        """
        from jinja2 import TemplateSyntaxError
        from transformers.utils.chat_template_utils import render_jinja_template

        name = next((name for name in CHATS if fields.get(name)), None)
        if name is None:
            return None
        if not isinstance(fields[name], list):
            raise BadRecord(f'the field "{name}" holds {json_name(fields[name])}, expected a list of turns')
        chat, tools = [_turn(name, turn) for turn in fields[name]], fields.get("tools")
        offered = {"tools": _without_nulls(tools)} if tools and isinstance(tools, list) else {}
        try:
            texts, _ = render_jinja_template(
                [chat], chat_template=_TODAY + self.text, **offered, **self.tokens
            )
        except TemplateSyntaxError as error:
            raise TsdsError(
                f"{self.where}: line {error.lineno}: not a chat template: {error.message}"
            ) from None
        except Exception as error:  # whatever a program can raise
            said = " ".join(str(error).split()) or type(error).__name__
            raise BadRecord(f"the chat template refuses the turns: {said}") from None
        return texts[0]


def load_chat_template(name: str, root: Path) -> ChatTemplate:
    """The chat template of ``name``: a .jinja file, or the folder or hub name of a model.

    Paths are relative to ``root``. A file's special tokens are those of the tokenizer_config.json beside it, if there
    is one. Of the hub, only what belongs to the template is downloaded, once. Raises :class:`TsdsError` where there
    is none.
    """
    where = f'[corpus] chat_template = "{printable(name)}"'
    path = (root / os.path.expanduser(name)).absolute()
    if name.endswith(".jinja"):
        return ChatTemplate(where, _read(where, path), _tokens(_config(where, path.parent)))
    folder = path
    if not path.is_dir():
        folder = model_files(name, where, _REMEDY, needed=_CONFIG, only=(_FILE, _CONFIG))
    config = _config(where, folder)
    text = (
        _read(where, folder / _FILE) if (folder / _FILE).exists() else _default(config.get("chat_template"))
    )
    if text is None:
        raise TsdsError(f"{where}: the model has no chat template: {_REMEDY}")
    return ChatTemplate(where, text, _tokens(config))


def _turn(name: str, turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise BadRecord(f'the field "{name}" holds {json_name(turn)} as a turn, expected an object')
    said = _without_nulls(turn)
    if "role" in said or "from" not in said:
        return said
    speaker = said["from"]
    role = ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise BadRecord(
            f'a turn of the field "{name}" is by {speaker!r}, expected one of {listed(sorted(ROLES))}'
        )
    return {"role": role, "content": said.get("value", "")}


def _without_nulls(value: Any) -> Any:
    """``value`` without what is null in its objects: a table has every key in every row, and templates ask for them."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _config(where: str, folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    try:
        found = json.loads(_read(where, path)) if path.exists() else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise TsdsError(f"{where}: {path}: not a JSON object: copy or download it again")
    return found


def _default(templates: Any) -> str | None:
    """The template in a model's configuration; of several the one that is called so."""
    if isinstance(templates, list):
        named = {one.get("name"): one.get("template") for one in templates if isinstance(one, dict)}
        templates = named.get("default")
    return templates if isinstance(templates, str) else None


def _tokens(config: dict[str, Any]) -> dict[str, str]:
    tokens = {name: value for name, value in config.items() if name.endswith("_token")}
    texts = {name: v.get("content") if isinstance(v, dict) else v for name, v in tokens.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _read(where: str, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise TsdsError(f"{where}: {path} cannot be read: {error.strerror}: {_REMEDY}") from None
    except UnicodeDecodeError:
        raise TsdsError(f"{where}: {path} is not UTF-8: save it as UTF-8") from None
