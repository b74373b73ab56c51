"""A conversation: turns, what of them the model still sees, and answers. No input, no output, no template."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.decode import Committed, Event, decode
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.text import Words

ROLES = ("user", "assistant")  # they take turns, and the user begins
Turn = dict[str, str]  # role and content


class Conversation:
    """Questions and answers, the oldest of which the model no longer sees when the text would get too long.

    encode: messages -> ids of the prompt; a chat template's.
    longest: tokens of a prompt, at most; the context has a limit of its own.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokenizer: Words,
        encode: Callable[[Sequence[Mapping[str, str]]], list[int]],
        plan: Plan,
        *,
        system: str = "",
        longest: int = 4096,
    ) -> None:
        self._tokenizer, self._encode, self._longest = tokenizer, encode, longest
        self.denoiser, self.plan, self.system = denoiser, plan, system
        self.turns: list[Turn] = []
        self.said = ""  # the last answer, as far as it came
        self._first = 0  # the oldest turn that the model sees

    def hear(self, text: str) -> list[int]:
        """Takes a question in and gives the ids to answer from. Raises UsageError where it alone is too long."""
        self.turns.append({"role": "user", "content": text})
        ids: list[int] | None = None
        try:
            ids = self._prompt()
            return ids
        finally:
            if ids is None:
                self.undo()

    def _prompt(self) -> list[int]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        while True:
            ids = self._encode([*system, *self.turns[self._first :]])
            if len(ids) <= self._longest and self._fits(len(ids)):
                return ids
            if self._first >= len(self.turns) - 1:
                raise UsageError(
                    f"the message takes {len(ids):,} tokens with all that goes before it; with"
                    f" max_new_tokens={self.plan.max_new_tokens} that is more than the model or history_tokens takes"
                )
            self._first += 2

    def _fits(self, length: int) -> bool:
        most = self.denoiser.spec.contexts.get(self.plan.context)
        size = self.plan.block_size
        return most is None or -(-(length + self.plan.max_new_tokens) // size) * size <= most  # blocks are whole

    def answer(self, ids: list[int]) -> Generator[Event, None, None]:
        """Decodes; what of it was finished is the answer, also if the loop is left early. Nothing at all is no turn."""
        said: list[int] = []
        try:
            for event in decode(self.denoiser, [ids], self.plan):
                if isinstance(event, Committed):
                    said += event.block[event.asked].tolist()
                yield event
        finally:
            self.said = self._tokenizer.decode([token for token in said if token not in self.plan.stop_ids]).strip()
            if self.said:
                self.turns.append({"role": "assistant", "content": self.said})
            else:
                self.undo()

    def undo(self) -> None:
        """Takes the last question back, with its answer."""
        while self.turns and self.turns.pop()["role"] != "user":
            pass
        self._first = 0

    def clear(self) -> None:
        self.turns, self._first = [], 0

    def transcript(self) -> dict[str, Any]:
        """What `resume` takes."""
        return {"system": self.system, "turns": [dict(turn) for turn in self.turns]}

    def resume(self, transcript: Any, source: str) -> None:
        """Goes on from a transcript; ArtefactError, naming the source, for what is none."""
        values = transcript if isinstance(transcript, dict) else {}
        system, turns = values.get("system"), values.get("turns")
        whole = isinstance(system, str) and isinstance(turns, list) and len(turns) % 2 == 0
        if not whole or not all(_is_turn(turn, ROLES[i % 2]) for i, turn in enumerate(turns or ())):
            raise ArtefactError(f"{source}: not a conversation: needs system and turns, questions and answers in turn")
        self.clear()
        self.system, self.turns = str(system), [dict(turn) for turn in turns or ()]


def _is_turn(turn: Any, role: str) -> bool:
    return isinstance(turn, dict) and turn.get("role") == role and isinstance(turn.get("content"), str)
