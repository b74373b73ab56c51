"""From messages to the ids that a chat model was trained on, by the template that came with it.

A template is a program in Jinja's language, written by strangers: it runs in a process of its own (template_child.py).
What people say never enters it. It is given placeholders, and afterwards only what the template itself wrote is
searched for control tokens. So a message that spells `<|im_end|>` is text, and no message can end its own turn.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import jinja2
import markupsafe

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import read_object
from diffulex_edge.text import template_child

MAX_TEMPLATE, MAX_TEXT = 256 << 10, 4 << 20  # characters of a template, and of what it writes
PATIENCE_S = 60.0  # for a busy machine: processor time is limited by the process itself
ROLE = re.compile(r"[a-z_]{1,32}")  # a role is written by the template, so it must not spell anything
Message = Mapping[str, str]  # role and content


class ControlWords(Protocol):
    """What is needed of a tokenizer here."""

    @property
    def mask_id(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def split_controls(self, text: str) -> list[str | int]: ...


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chat template and the names of control tokens that it may use."""

    text: str
    name: str  # where it is from, for errors
    tokens: Mapping[str, str] = field(default_factory=dict)  # bos_token and the like


CHATML = Template(
    name="chatml",
    text="{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
)
# For a model that no chat was shown to: one running text, a line a turn, which the model goes on from.
PLAIN = Template(
    name="plain",
    text="{% for message in messages %}"
    "{% if not loop.first %}{{ ' ' if message.role == 'assistant' else '\n' }}{% endif %}{{ message.content }}"
    "{% endfor %}",
)
BUILT_IN = {template.name: template for template in (CHATML, PLAIN)}


def find_template(choice: str | None, folder: Path, tokenizer: ControlWords) -> Template:
    """The template that is asked for, a Jinja file or one of BUILT_IN; None: the one of the model folder.

    Where the folder has none: ChatML if the tokenizer knows its words, else PLAIN.
    """
    if choice in BUILT_IN:
        return BUILT_IN[choice]
    config, file = folder / "tokenizer_config.json", Path(choice or folder / "chat_template.jinja")
    values = read_object(config) if config.exists() else {}
    named = {key: _content(value) for key, value in values.items() if key.endswith("_token")}
    tokens = {key: value for key, value in named.items() if isinstance(value, str)}
    if choice or file.exists():
        return Template(text=_read(file), name=str(file), tokens=tokens)
    text = values.get("chat_template")
    if isinstance(text, list):  # several, by name
        several = {entry.get("name"): entry.get("template") for entry in text if isinstance(entry, dict)}
        text = several.get("default")
    if isinstance(text, str):
        return Template(text=text, name=str(config), tokens=tokens)
    words = tokenizer.split_controls("<|im_start|><|im_end|>")
    return CHATML if all(isinstance(word, int) for word in words) else PLAIN


def _content(value: Any) -> Any:
    return value.get("content") if isinstance(value, dict) else value


def _read(file: Path) -> str:
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read(MAX_TEMPLATE + 1)
    except OSError as error:
        raise ArtefactError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from None


def render(
    messages: Sequence[Message], template: Template | str, *, add_generation_prompt: bool = True, **tokens: str
) -> str:
    """The text that a Hugging Face chat template makes of messages (`role`, `content`).

    To be read, or tokenised by something that tells no control tokens from text; `encode_chat` does.
    tokens: bos_token and the like, before the template's own. Raises ArtefactError, naming the template, for one that
    is no template, reaches for Python, or takes too much time, memory or text; UsageError if it refuses the messages.
    """
    made = Template(text=template, name="the chat template") if isinstance(template, str) else template
    if len(made.text) > MAX_TEMPLATE:
        raise ArtefactError(f"{made.name}: a chat template of more than {MAX_TEMPLATE:,} characters")
    values = {
        **made.tokens,
        **tokens,
        "messages": [_checked(message) for message in messages],
        "add_generation_prompt": add_generation_prompt,
    }
    return _run(made.name, {"template": made.text, "values": values, "longest": MAX_TEXT})


def _checked(message: Message) -> dict[str, str]:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not ROLE.fullmatch(role):
        raise UsageError(f"role {role!r} must be a word of small letters: system, user or assistant")
    if not isinstance(content, str):
        raise UsageError(f"the content of a message must be text, is {type(content).__name__}")
    return {"role": role, "content": content}


def _run(name: str, request: dict[str, Any]) -> str:
    """Renders in a child that inherits nothing but the way to Jinja."""
    packages = {str(Path(str(module.__file__)).parents[1]) for module in (jinja2, markupsafe)}
    command = [sys.executable, "-S", "-s", "-P", str(template_child.__file__)]
    environment = {"PYTHONPATH": ":".join(sorted(packages)), "PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(
            command, input=json.dumps(request).encode(), capture_output=True, env=environment, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        raise ArtefactError(f"{name}: the chat template does not come to an end") from None
    said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if done.returncode == template_child.REFUSED:
        raise UsageError(f"{name}: the chat template refuses these messages: {said}")
    if done.returncode:
        raise ArtefactError(f"{name}: the chat template cannot be used: {said or 'it takes too much time or memory'}")
    text: str = json.loads(done.stdout)
    return text


@dataclass(frozen=True)
class _Said:
    """What somebody said, in its place in the rendered text."""

    text: str


def encode_chat(
    tokenizer: ControlWords,
    messages: Sequence[Message],
    template: Template | str,
    *,
    add_generation_prompt: bool = True,
) -> list[int]:
    """The ids of a chat. Control ids come from the template alone, whatever the messages spell.

    Text of the template and of the messages between two control ids is tokenised as one. Contents keep the spaces at
    their ends until the template has decided about them; within, a template that looks for words finds none.
    """
    ids, run = list[int](), ""
    for part in _parts(tokenizer, messages, template, add_generation_prompt):
        if isinstance(part, int):
            ids += [*tokenizer.encode(run), part]
            run = ""
        else:
            run += part.text if isinstance(part, _Said) else part
    ids += tokenizer.encode(run)
    if tokenizer.mask_id in ids:
        raise ArtefactError(f"{_name(template)}: the chat template writes the mask, which stands for what is asked for")
    return ids


def closing_ids(tokenizer: ControlWords, template: Template | str) -> tuple[int, ...]:
    """The control id that the template puts behind an answer, with which the model therefore ends one; () for none."""
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
    parts = _parts(tokenizer, asked, template, add_generation_prompt=False)
    last = max((i for i, part in enumerate(parts) if isinstance(part, _Said)), default=len(parts))
    behind = [part for part in parts[last + 1 :] if not (isinstance(part, str) and not part.strip())]
    return (behind[0],) if behind and isinstance(behind[0], int) else ()


def _parts(
    tokenizer: ControlWords, messages: Sequence[Message], template: Template | str, add_generation_prompt: bool
) -> list[str | int | _Said]:
    """The rendered chat in order: text of the template, its control ids, and what was said."""
    said: dict[str, _Said] = {}
    hidden = [{**_checked(message), "content": _hide(message["content"], said)} for message in messages]
    text = render(hidden, template, add_generation_prompt=add_generation_prompt)
    parts: list[str | int | _Said] = []
    for piece in re.split(f"({'|'.join(said)})", text) if said else [text]:
        parts += [said[piece]] if piece in said else tokenizer.split_controls(piece)
    return parts


def _hide(content: str, said: dict[str, _Said]) -> str:
    """A placeholder that nobody can guess, with the spaces that were around the text."""
    core = content.strip()
    if not core:
        return content
    mark = f"\ue000{secrets.randbelow(10**32):032}\ue001"  # digits: no filter for upper or lower case changes them
    said[mark] = _Said(core)
    before, _, after = content.partition(core)
    return before + mark + after


def _name(template: Template | str) -> str:
    return template.name if isinstance(template, Template) else "the chat template"
