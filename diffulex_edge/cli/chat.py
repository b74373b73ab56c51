"""`chat`: messages come in, answers go out (dialogue.py); what else can be typed is in commands.py."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from diffulex_edge.api import locate
from diffulex_edge.cli.commands import AnswerFlags, Chat, Made
from diffulex_edge.cli.dialogue import converse
from diffulex_edge.cli.flags import ModelFlags
from diffulex_edge.cli.parse import console
from diffulex_edge.cli.tuned import beyond, tuned
from diffulex_edge.runtime.conversation import Conversation
from diffulex_edge.runtime.text import text_plan
from diffulex_edge.text.chat import PLAIN, closing_ids, encode_chat, find_template
from diffulex_edge.tuning.choice import Task


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Talks with a model; /help tells what else can be typed. From a pipe: one message a line."""

    model: ModelFlags = ModelFlags()
    answer: AnswerFlags = AnswerFlags()
    system: str = ""  # what the model is told first
    template: str | None = None  # a Jinja file, chatml or plain; None: the model's own, else one of these two
    untuned: bool = False  # leave out what `tune` chose, as do --pte, --threads, --precision, --compile, --edge_profile
    history_tokens: int = 4096  # the oldest turns fall out when a conversation takes more

    @property
    def json(self) -> str | None:
        return self.model.json


def run(flags: Flags) -> dict[str, Any]:
    answer = flags.answer
    longest = flags.history_tokens + answer.max_new_tokens
    modes = () if answer.context is None else (answer.context,)
    task = Task(modes=modes, block_size=answer.block_size, longest=lambda: longest, beyond=beyond(answer.decoding))
    model = flags.model if flags.untuned else tuned(flags.model, task)
    denoiser, tokenizer = model.open()
    template = find_template(flags.template, locate(flags.model.ckpt), tokenizer)
    if template is PLAIN:
        print(f"{flags.model.ckpt} was not trained to chat: it goes on from what you write", file=sys.stderr)
    closing = closing_ids(tokenizer, template)
    stop_ids = tuple(dict.fromkeys((tokenizer.eos_id, *denoiser.spec.stop_ids, *closing)))

    def made(answer: AnswerFlags) -> Made:
        plan = answer.plan(denoiser, model.profile, stop_ids)
        return answer.decoding.guide(denoiser), text_plan(denoiser, tokenizer, plan)

    guided, plan = made(flags.answer)
    talk = Conversation(
        guided,
        tokenizer,
        lambda messages: encode_chat(tokenizer, messages, template),
        plan,
        system=flags.system,
        longest=flags.history_tokens,
    )
    converse(Chat(talk, flags.answer, made), tokenizer, console(flags.json))
    return {"model": flags.model.ckpt, **talk.transcript()}
