"""Conversations: turns, what falls out of them, and what is left of an answer that was stopped. Nothing is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.runtime.conversation import Conversation
from diffulex_edge.runtime.decode import Committed, Finished
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.tests.runtime_toys import EOS, MASK, Bytes, Script

PLAN = Plan(max_new_tokens=8, block_size=4, steps=2, stop_ids=(EOS,), banned=(0, 1))


class Seen:
    """An encoder of one id for each letter, that writes down the messages it was given."""

    def __init__(self) -> None:
        self.messages: list[list[dict[str, str]]] = []

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        self.messages.append([dict(message) for message in messages])
        return [4 + ord(letter) % 15 for message in messages for letter in message["content"]]


def conversation(**changes: Any) -> tuple[Conversation, Seen, Script]:
    seen, script = Seen(), Script(seed=1)
    script.place[:, EOS] -= 1000.0  # it never ends by itself
    plan = changes.pop("plan", PLAN)
    return Conversation(script, Bytes(), seen, plan, **changes), seen, script


def ask(talk: Conversation, text: str) -> str:
    *_, last = talk.answer(talk.hear(text))
    assert isinstance(last, Finished)
    return talk.said


def test_a_turn_is_a_question_and_its_answer_and_the_next_prompt_holds_both() -> None:
    talk, seen, _ = conversation(system="be kind")
    first = ask(talk, "a")
    assert first
    assert talk.turns == [{"role": "user", "content": "a"}, {"role": "assistant", "content": first}]
    ask(talk, "b")
    system = {"role": "system", "content": "be kind"}
    assert seen.messages == [[system, talk.turns[0]], [system, *talk.turns[:3]]]


def test_without_a_system_message_there_is_none() -> None:
    talk, seen, _ = conversation()
    ask(talk, "a")
    assert seen.messages == [[{"role": "user", "content": "a"}]]


def test_the_oldest_turns_fall_out_of_the_prompt_and_stay_in_the_transcript() -> None:
    talk, seen, _ = conversation(system="s", longest=24)
    for letter in "abcdef":
        ask(talk, letter * 4)
        shown = seen.messages[-1]
        assert shown[0] == {"role": "system", "content": "s"}
        assert shown[1]["role"] == "user"
        assert sum(len(message["content"]) for message in shown) <= 24
    assert shown[-1]["content"] == "ffff"
    assert 2 <= len(shown) < 12
    assert len(talk.turns) == 12


def test_as_many_turns_stay_as_fit() -> None:
    talk, seen, _ = conversation(longest=12)  # without the first question alone it would fit too
    turns = [("user", "aaa"), ("assistant", "bbb"), ("user", "cc"), ("assistant", "dd")]
    talk.turns = [{"role": role, "content": text} for role, text in turns]
    assert len(talk.hear("eeeee")) == 9
    assert [message["content"] for message in seen.messages[-1]] == ["cc", "dd", "eeeee"]


def test_the_context_s_own_limit_counts_whole_blocks() -> None:
    talk, _, script = conversation()
    script.spec = replace(script.spec, contexts={"memory": 16})
    assert len(talk.hear("x" * 8)) == 8  # with 8 new tokens: 16
    talk.undo()
    with pytest.raises(UsageError, match=r"9 tokens.*max_new_tokens=8"):
        talk.hear("x" * 9)  # 17, and so 20 in blocks of 4
    assert talk.turns == []


def test_a_question_that_is_too_long_leaves_the_conversation_as_it_was() -> None:
    talk, _, _ = conversation(longest=20)
    ask(talk, "a")
    before = talk.transcript()
    with pytest.raises(UsageError, match="30 tokens"):
        talk.hear("x" * 30)
    assert talk.transcript() == before
    assert ask(talk, "b")


def test_an_answer_that_is_left_early_is_what_was_finished_of_it() -> None:
    talk, _, _ = conversation()
    events = talk.answer(talk.hear("abcd"))
    said: list[int] = []
    for event in events:
        if isinstance(event, Committed):
            said = event.block[0].tolist()
            break
    events.close()
    assert talk.said == Bytes().decode(said).strip() != ""
    assert talk.turns[-1] == {"role": "assistant", "content": talk.said}


def test_an_answer_of_which_nothing_is_finished_takes_its_question_along() -> None:
    talk, _, script = conversation()
    ask(talk, "a")
    before = list(talk.turns)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    script.begin = interrupted  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        list(talk.answer(talk.hear("b")))
    assert talk.turns == before
    assert talk.said == ""


def test_stop_ids_are_no_part_of_an_answer() -> None:
    script = Script(love=9)
    script.place[6:, EOS] += 2000.0
    talk = Conversation(script, Bytes(), Seen(), replace(PLAN, stop_ids=(EOS, 9)))
    *_, last = talk.answer(talk.hear("abcd"))
    assert isinstance(last, Finished)
    assert set(last.tokens[0]) <= {9, EOS}
    assert talk.turns == []
    assert MASK not in last.tokens[0]


def test_undo_and_clear_forget_and_the_model_sees_all_that_is_left() -> None:
    talk, seen, _ = conversation(longest=12)
    for letter in "abc":
        ask(talk, letter)
    talk.undo()
    assert len(talk.turns) == 4
    talk.undo()
    talk.undo()
    talk.undo()
    assert talk.turns == []
    ask(talk, "d")
    assert seen.messages[-1] == [{"role": "user", "content": "d"}]
    ask(talk, "e" * 8)  # what was before falls out
    assert seen.messages[-1] == [{"role": "user", "content": "e" * 8}]
    talk.clear()
    ask(talk, "f")
    assert seen.messages[-1] == [{"role": "user", "content": "f"}]


def test_a_transcript_can_be_gone_on_from() -> None:
    talk, _, _ = conversation(system="s")
    ask(talk, "a")
    other, seen, _ = conversation()
    other.resume(talk.transcript(), "file")
    assert other.transcript() == talk.transcript()
    ask(other, "b")
    assert [message["content"] for message in seen.messages[-1]][:2] == ["s", "a"]
    assert len(talk.turns) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {"system": "", "turns": {}},
        {"system": 1, "turns": []},
        {"system": "", "turns": [{"role": "user", "content": "a"}]},
        {"system": "", "turns": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "a"}]},
        {"system": "", "turns": [{"role": "user", "content": 1}, {"role": "assistant", "content": "a"}]},
        {"system": "", "turns": ["a", "b"]},
    ],
)
def test_what_is_no_transcript_is_refused_by_name_and_changes_nothing(wrong: Any) -> None:
    talk, _, _ = conversation()
    ask(talk, "a")
    before = talk.transcript()
    with pytest.raises(ArtefactError, match=r"talk\.json: not a conversation"):
        talk.resume(wrong, "talk.json")
    assert talk.transcript() == before
