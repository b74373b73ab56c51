"""The give and take of a chat: a line is read, and a command carried out or an answer shown as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console

from diffulex_edge.cli.commands import Chat
from diffulex_edge.cli.live import View, watch
from diffulex_edge.cli.prompt import checked
from diffulex_edge.errors import DiffulexEdgeError
from diffulex_edge.runtime.conversation import Conversation
from diffulex_edge.text.tokenizer import Tokenizer


def converse(chat: Chat, tokenizer: Tokenizer, out: Console) -> None:
    """Until /exit or the end of input. What cannot be done is told in a line, and the talk goes on."""
    for line in _lines(out):
        try:
            said = chat.command(line) if line.startswith("/") else _answer(chat.talk, checked(line), tokenizer, out)
            if said:
                out.print(said, markup=False)
        except KeyboardInterrupt:  # while the question was still being read
            print("stopped", file=sys.stderr)
        except (DiffulexEdgeError, ValueError, OSError) as error:
            print("error:", " ".join(str(error).split()), file=sys.stderr)
        if chat.left:
            return


def _lines(out: Console) -> Iterator[str]:
    """The lines that say something; Ctrl-C in a terminal drops the line that is being typed."""
    terminal = sys.stdin.isatty()
    while True:
        try:
            line = input("> " if terminal and not out.stderr else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not terminal:
                raise
            out.print()
            continue
        if line:
            yield line


def _answer(talk: Conversation, text: str, tokenizer: Tokenizer, out: Console) -> str:
    """The answer, watched; Ctrl-C leaves of it what is finished."""
    ids = talk.hear(text)
    events = talk.answer(ids)
    try:
        watch(events, View(tokenizer, ids, shown=len(ids)), out)
    except KeyboardInterrupt:
        events.close()
        print("stopped", file=sys.stderr)
    return talk.said
