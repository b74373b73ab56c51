"""What can be typed in a chat besides messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from diffulex_edge.cli.blocks import BlockFlags
from diffulex_edge.cli.decoding import DecodingFlags
from diffulex_edge.cli.flags import Profile
from diffulex_edge.cli.parse import parse
from diffulex_edge.errors import UsageError
from diffulex_edge.files import read_json, write_json
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.conversation import Conversation
from diffulex_edge.runtime.plan import Plan


@dataclass(frozen=True, kw_only=True)
class AnswerFlags:
    """How answers are made; /set changes it while you talk."""

    decoding: DecodingFlags = DecodingFlags()
    max_new_tokens: int = BlockFlags.max_new_tokens  # tokens of an answer, at most
    block_size: int | None = BlockFlags.block_size  # tokens of a block; None: the profile's, or the plan's own
    context: str | None = None  # what a block sees of the text before it: a kind the model has; None: its best

    def plan(self, denoiser: Denoiser, profile: Profile | None, stop_ids: tuple[int, ...]) -> Plan:
        blocks = BlockFlags(max_new_tokens=self.max_new_tokens, block_size=self.block_size)
        return blocks.plan(self.decoding, denoiser, profile, context=self.context, stop_ids=stop_ids)


def _names(kind: Any) -> list[str]:
    """The flags that take a value, of a dataclass and of those inside it."""
    known = [(f.name, f.default) for f in fields(kind) if f.default is not False]
    return [n for name, default in known for n in (_names(default) if is_dataclass(default) else [name])]


SETTINGS = _names(AnswerFlags)
Made = tuple[Denoiser, Plan]  # what answers come from


class Chat:
    """A conversation and the flags that its answers are made by."""

    def __init__(self, talk: Conversation, answer: AnswerFlags, made: Callable[[AnswerFlags], Made]) -> None:
        self.talk, self.answer, self.made, self.left = talk, answer, made, False

    def command(self, line: str) -> str:
        """Carries out `/NAME REST` and gives what there is to say about it."""
        name, _, rest = line.partition(" ")
        if name not in COMMANDS:
            raise UsageError(f"{name} is not a command; the commands are {', '.join(COMMANDS)}")
        return COMMANDS[name][0](self, rest.strip()) or ""

    def help(self, _: str) -> str:
        return "\n".join(f"{name + ' ' + usage:18} {about}" for name, (_, usage, about) in COMMANDS.items())

    def set(self, rest: str) -> str:
        key, _, value = rest.partition(" ")
        if key not in SETTINGS or not value:
            raise UsageError(f"/set KEY VALUE: the keys are {', '.join(SETTINGS)}")
        answer = parse(AnswerFlags, [f"--{key}", value.strip()], prog="/set", default=self.answer)
        (self.talk.denoiser, self.talk.plan), self.answer = self.made(answer), answer
        return f"{key} is {value.strip()}"


COMMANDS: dict[str, tuple[Callable[[Chat, str], str | None], str, str]] = {
    "/help": (Chat.help, "", "this list"),
    "/clear": (lambda chat, _: chat.talk.clear(), "", "forgets what was said"),
    "/undo": (lambda chat, _: chat.talk.undo(), "", "takes the last question and its answer back"),
    "/system": (lambda chat, text: setattr(chat.talk, "system", text), "TEXT", "what the model is told first"),
    "/set": (Chat.set, "KEY VALUE", f"changes {', '.join(SETTINGS)}"),
    "/save": (lambda chat, file: write_json(Path(file), chat.talk.transcript()), "FILE", "writes the conversation"),
    "/load": (lambda chat, file: chat.talk.resume(read_json(file), file), "FILE", "goes on from a written one"),
    "/exit": (lambda chat, _: setattr(chat, "left", True), "", "leaves, as the end of input does"),
}
