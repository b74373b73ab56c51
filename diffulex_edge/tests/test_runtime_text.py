"""Text in, text out: joins, gaps, lengths, streaming, and masked PLL against sums done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import regex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import DenoiserSpec
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.sampler import Categorical
from diffulex_edge.runtime.score import masked_log_probs, masked_pll
from diffulex_edge.runtime.stream import TextStream, stream
from diffulex_edge.runtime.text import generate, infill
from diffulex_edge.tests.runtime_toys import MASK, VOCAB, Bytes, Script, Tape

WORDS = Bytes()


class Reciter:
    """A denoiser that knows one text by heart, byte by byte, and says each place of it with the same confidence."""

    def __init__(self, text: str, *, contexts: tuple[str, ...] = ("memory", "canvas", "full")) -> None:
        self.ids = torch.tensor([*WORDS.encode(text), *[WORDS.eos_id] * 300])
        self.spec = DenoiserSpec(
            vocab_size=260,
            mask_id=3,
            n_layers=2,
            block_length=None,
            contexts=dict.fromkeys(contexts),
            trained_modes=(),
        )
        self.kinds: list[str] = []

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Tape:
        self.kinds.append(kind)
        zeros = torch.zeros(batch_size, dtype=torch.long)
        return Tape(zeros[:, None][:, :0], zeros if first is None else first, aligned=kind == "memory")

    def __call__(self, block, context=None, *, t=None, depth=None, exit=None, rows=None):  # type: ignore[no-untyped-def]
        context = self.begin("full", len(block), 0) if context is None else context
        if rows is not None and not rows.numel():
            joined = torch.cat((context.ids, block), 1)
            return torch.zeros(0, 260), Tape(joined, context.first, context.aligned)
        columns = torch.arange(block.shape[1]) + context.ids.shape[1] - context.first[:, None]  # (B, L)
        logits = torch.nn.functional.one_hot(self.ids[columns.clamp(0)], 260) * 8.0
        return (logits if rows is None else logits[rows]), context


def test_a_prompt_is_continued_to_the_end_of_the_text() -> None:
    for context in ("memory", "full", "canvas"):
        assert generate(Reciter("मैं कल बाज़ार गया"), WORDS, "मैं कल", Plan(context=context)) == " बाज़ार गया"


def test_a_text_ends_also_where_one_id_both_pads_and_ends() -> None:
    class One(Bytes):
        pad_id = Bytes.eos_id

    assert generate(Reciter("one two"), One(), "one", Plan()) == " two"


def test_a_text_ends_where_the_model_says_so_too() -> None:
    reciter = Reciter("abcdef")
    reciter.spec = replace(reciter.spec, stop_ids=tuple(WORDS.encode("d")))
    assert generate(reciter, WORDS, "ab", Plan()) == "cd"


def test_a_space_at_the_end_of_a_prompt_is_not_doubled() -> None:
    assert generate(Reciter("one two"), WORDS, "one ", Plan()) == "two"
    assert generate(Reciter("one two"), WORDS, "one", Plan()) == " two"
    assert generate(Reciter("one\ntwo"), WORDS, "one\n", Plan()) == "two"


def test_several_prompts_give_several_texts() -> None:
    found = generate(Reciter("abcdef"), WORDS, ["ab", "", "abcde"], Plan(block_size=4))
    assert found == ["cdef", "abcdef", "f"]
    assert generate(Reciter("abcdef"), WORDS, ["ab"], Plan()) == ["cdef"]


def test_the_plans_own_stop_ids_take_the_place_of_the_end_of_text() -> None:
    plan = Plan(stop_ids=tuple(WORDS.encode("d")))
    assert generate(Reciter("abcdef"), WORDS, "ab", plan) == "cd"


def test_padding_is_never_generated() -> None:
    class Padder(Reciter):
        def __call__(self, *arguments, **rest):  # type: ignore[no-untyped-def]
            logits, context = super().__call__(*arguments, **rest)
            logits[..., WORDS.pad_id] = 99.0
            return logits, context

    assert generate(Padder("abc"), WORDS, "a", Plan()) == "bc"
    assert infill(Padder("abc"), WORDS, "a___c", lengths=1) == "abc"


def test_a_tokenizer_of_another_model_is_refused() -> None:
    class Other(Bytes):
        mask_id = 7

    for call in (lambda: generate(Reciter("a"), Other(), "a"), lambda: infill(Reciter("a"), Other(), "a___")):
        with pytest.raises(UsageError, match="mask is id 7, the model's is 3"):
            call()


def test_gaps_of_given_lengths_are_filled_and_the_edges_stay() -> None:
    assert infill(Reciter("one two three"), WORDS, "one ___ three", lengths=4) == "one two three"
    assert infill(Reciter("abcdef"), WORDS, "a___d___", lengths=2) == "abcdef"
    assert infill(Reciter("abcdef"), WORDS, "___c___", lengths=(2, 3)) == "abcdef"
    assert infill(Reciter("abcdef"), WORDS, "ab??ef", lengths=2, blank="??") == "abcdef"
    assert infill(Reciter("मैं कल"), WORDS, "मैं___", lengths=7) == "मैं कल"


def test_the_users_own_text_is_kept_to_the_character() -> None:
    text = "  A  ___\t b\n___ \u0958 "
    filled = infill(Script260(), WORDS, text, lengths=2)
    head, middle, tail = text.split("___")
    assert filled.startswith(head)
    assert filled.endswith(tail)
    assert middle in filled[len(head) :]


class Script260(Reciter):
    """Noise over 260 ids, the end of text its favourite."""

    def __init__(self) -> None:
        super().__init__("")
        self.ids = torch.cat((torch.tensor([2, 2, 2]), torch.arange(300) * 7 % 256 + 4))


def test_a_gap_of_unknown_length_takes_the_length_that_reads_best() -> None:
    class Sure(Reciter):
        """Is the surer of a text, the nearer its length is to the one it knows."""

        known = len("one two three")

        def __call__(self, block, context=None, *, t=None, depth=None, exit=None, rows=None):  # type: ignore[no-untyped-def]
            if rows is not None and not rows.numel():
                return super().__call__(block, context, rows=rows)
            logits, context = super().__call__(block, context)
            length = (
                context.ids.shape[1]
                + block.shape[1]
                - context.first
                + (0 if context.ahead is None else context.ahead.shape[1])
            )
            logits = logits / (1 + (length - self.known).abs())[:, None, None]
            return (logits if rows is None else logits[rows]), context

    text = "one two three"
    for cut in ("one___ three", "___ two three", "one two t___"):
        assert infill(Sure(text), WORDS, cut) == text


def test_lengths_of_two_gaps_are_searched_one_after_the_other() -> None:
    sizes: list[int] = []

    class Counting(Reciter):
        def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Tape:
            if length and batch_size > 1:  # the other calls look at a context, or score
                sizes.append(batch_size)
            return super().begin(kind, batch_size, length, first)

    infill(Counting("xaby12z"), WORDS, "x___y___z")
    assert sizes == [8, 8]


def test_infilling_sees_both_sides() -> None:
    model = Reciter("abc")
    infill(model, WORDS, "a___c", Plan(context="memory"), lengths=1)
    assert "canvas" in model.kinds
    assert "memory" not in model.kinds
    only_full = Reciter("abc", contexts=("memory", "full"))
    assert infill(only_full, WORDS, "a___c", lengths=1) == "abc"
    assert "full" in only_full.kinds


@pytest.mark.parametrize(
    ("text", "lengths", "said"),
    [
        ("no gap", 2, "no '___'"),
        ("a ___ b", 0, "at least 1"),
        ("a ___ b", (1, 2), "1 blanks"),
        ("___ ___", (1,), "2 blanks"),
    ],
)
def test_nonsense_is_refused(text: str, lengths: int | tuple[int, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        infill(Reciter("abc"), WORDS, text, lengths=lengths)


@given(st.text(max_size=30), st.lists(st.integers(1, 9), max_size=40))
@settings(deadline=None)
def test_a_stream_gives_whole_clusters_and_in_the_end_everything(text: str, cuts: list[int]) -> None:
    text += "क्षत्रिय न\u0940\u0928\u0940 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1ee\U0001f1f3"
    ids, out, pieces = WORDS.encode(text), TextStream(WORDS), []
    for cut in cuts:
        pieces.append(out.push(ids[:cut]))
        ids = ids[cut:]
    pieces += [out.push(ids), out.close()]
    assert "".join(pieces) == text
    ends = {match.end() for match in regex.finditer(r"\X", text)} | {0}
    sent = 0
    for piece in pieces[:-1]:
        sent += len(piece)
        assert sent in ends, "cut inside a cluster"


def test_a_stream_ends_with_what_is_no_whole_character() -> None:
    out = TextStream(WORDS)
    assert out.push(WORDS.encode("अ")[:2]) == ""
    assert out.close() == "\ufffd"


def test_bytes_that_never_become_a_character_do_not_hold_up_the_stream() -> None:
    out = TextStream(WORDS)
    assert out.push([0xFF + 4]) == ""
    assert out.push(WORDS.encode("ab")) == "\ufffda"
    assert out.close() == "b"


@pytest.mark.parametrize("prompt", ["मैं कल", "मैं ", "", "मैं"])
def test_streamed_text_is_the_generated_text(prompt: str) -> None:
    model, plan = Reciter("मैं कल बाज़ार गया और सब्ज़ी खरीदी"), Plan(block_size=5)
    pieces = list(stream(model, WORDS, prompt, plan))
    assert "".join(pieces) == generate(model, WORDS, prompt, plan)
    assert len(pieces) > 5


class Counted(Reciter):
    """Writes down how many positions of each row a look asked for."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.asked: list[list[int]] = []

    def __call__(self, block, context=None, *, t=None, depth=None, exit=None, rows=None):  # type: ignore[no-untyped-def]
        if rows is not None and rows.numel():
            self.asked.append(rows.sum(1).tolist())
        return super().__call__(block, context, t=t, depth=depth, rows=rows)


ONE_STEP = Plan(max_new_tokens=24, block_size=4, steps=1)


def test_a_text_ends_before_the_first_stop_string_and_so_does_the_work() -> None:
    model = Counted("abcdefghijklmnopqrstuvwxyz")
    assert generate(model, WORDS, "ab", ONE_STEP, stop=("zz", "hi", "kl")) == "cdefg"
    assert len(model.asked) == 3, "blocks cd, efgh and ijkl: the string is complete in the third"


def test_a_stop_string_may_be_cut_anywhere_by_blocks_and_letters() -> None:
    text = "मैं कल बाज़ार गया। फिर घर आया।"
    for size in range(1, 9):
        plan = Plan(block_size=size, steps=1)
        assert generate(Reciter(text), WORDS, "मैं", plan, stop=("। फिर",)) == " कल बाज़ार गया"
        assert "".join(stream(Reciter(text), WORDS, "मैं", plan, stop=("। फिर",))) == " कल बाज़ार गया"


def test_a_stop_string_in_the_prompt_does_not_stop_and_one_that_never_comes_does_nothing() -> None:
    assert generate(Reciter("ab cd ab"), WORDS, "ab", Plan(), stop=("ab",)) == " cd "
    assert generate(Reciter("ab cd"), WORDS, "ab", Plan(), stop=("x",)) == " cd"
    assert generate(Reciter("ab cd"), WORDS, "ab ", Plan(), stop=(" c",)) == "cd", "the prompt's own space is no match"


def test_a_row_that_is_done_asks_for_nothing_more_while_others_go_on() -> None:
    model = Counted("abcdefghijklmnopqrstuvwxyz")
    found = generate(model, WORDS, ["", "abcdefgh", "abcdefghijklmnop"], ONE_STEP, stop=("l", "r"))
    assert found == ["abcdefghijk", "ijk", "q"]
    assert model.asked == [[4, 4, 4], [4, 0, 0], [4, 0, 0]]
    alone = [
        generate(Reciter("abcdefghijklmnopqrstuvwxyz"), WORDS, text, ONE_STEP, stop=("l", "r"))
        for text in ("", "abcdefgh")
    ]
    assert alone == found[:2]


def test_streamed_text_is_generated_text_with_stop_strings_too() -> None:
    text = "aab aaab aabaaac"
    for stop in (("aaac",), ("aaab",), ("b a", "zz"), ("aabaaad",), ("c",)):
        for size in (1, 3, 7):
            plan = Plan(block_size=size, steps=2)
            pieces = list(stream(Reciter(text), WORDS, "a", plan, stop=stop))
            assert "".join(pieces) == generate(Reciter(text), WORDS, "a", plan, stop=stop)


def test_a_stream_looks_no_further_than_its_stop_string() -> None:
    model = Counted("abcdefghijklmnopqrstuvwxyz")
    assert "".join(stream(model, WORDS, "ab", ONE_STEP, stop=("ef",))) == "cd"
    assert len(model.asked) <= 3


@pytest.mark.parametrize("stop", ["abc", ("a", "")])
def test_stop_strings_are_several_and_none_is_empty(stop: tuple[str, ...]) -> None:
    for call in (generate, stream):
        with pytest.raises(UsageError, match="stop="):
            call(Reciter("abc"), WORDS, "a", Plan(), stop=stop)


@given(st.integers(0, 30))
@settings(deadline=None, max_examples=30)
def test_streaming_noise_gives_what_generating_it_gives(seed: int) -> None:
    plan = Plan(max_new_tokens=24, block_size=3, sampler=Categorical(temperature=3.0), seed=seed)
    assert "".join(stream(Script260(), WORDS, "x ", plan)) == generate(Script260(), WORDS, "x ", plan)


def test_masked_pll_hides_each_position_in_turn() -> None:
    denoiser = Script(3)
    text = [5, 9, 4, 12, 7]
    found = masked_log_probs(denoiser, text, batch_size=2)
    for i, token in enumerate(text):
        noisy = torch.tensor([text])
        noisy[0, i] = MASK
        logits, _ = denoiser(noisy)
        logits[..., MASK] = -torch.inf
        assert found[i].item() == pytest.approx(logits[0, i].log_softmax(0)[token].item(), abs=1e-5)
    assert all(t.tolist() == [pytest.approx(0.2)] * len(t) for _, t, *_ in denoiser.looked if t is not None)
    assert masked_pll(denoiser, text) == pytest.approx(found.mean().item(), abs=1e-6)
    assert masked_pll(denoiser, torch.tensor(text), [1, 3]) == pytest.approx(found[[1, 3]].mean().item(), abs=1e-6)


def test_masked_pll_never_shows_a_token_to_its_own_score() -> None:
    """A model that copies what it sees, and knows nothing else, scores as chance over all ids but the mask."""

    class Copyist(Script):
        def __call__(self, block, context=None, *, t=None, depth=None, exit=None, rows=None):  # type: ignore[no-untyped-def]
            seen = torch.nn.functional.one_hot(block, VOCAB) * 50.0 * (block != MASK)[..., None]
            return (seen if rows is None else seen[rows]), context

    assert masked_pll(Copyist(), [5, 6, 7]) == pytest.approx(-torch.tensor(VOCAB - 1.0).log().item(), abs=1e-5)


def test_scoring_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="no position"):
        masked_pll(Script(), [5, 6], [])
