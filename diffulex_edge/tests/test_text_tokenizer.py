"""The tokenizers: exact round trips, control ids out of reach of text, damage noticed."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as HubTokenizer

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.text.demo import demo_documents
from diffulex_edge.text.normalize import normalize
from diffulex_edge.text.sentencepiece_tokenizer import digest_path
from diffulex_edge.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

CONTROLS = ["[MASK]", "</s>", "<pad>", "<unk>", "<0x41>", "<s>", "▁", "▅", "<|mask|>", "<|endoftext|>"]
TEXT = st.text(
    st.one_of(st.characters(codec=None), st.sampled_from("कमलि्ा़ंab 0123१२\n\t\u200d\u200c▁▅😀\ud800")), max_size=60
) | st.lists(st.sampled_from([*CONTROLS, " ", "कल", "a", "\n"]), max_size=12).map("".join)


def corpus() -> list[str]:
    return [document.text for document in demo_documents(60, seed=3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def own(folder: Path) -> Tokenizer:
    return train_tokenizer(corpus(), folder / "own.model", vocab_size=700)


def make_hub_tokenizer(path: Path, special: tuple[str, ...] = ("<|endoftext|>", "<|mask|>")) -> Path:
    """Byte-level BPE as the open families have it; its mask is an ordinary added token, as in some of them."""
    made = HubTokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens([AddedToken(special[0], special=True)])
    made.add_tokens([AddedToken(token, special=False) for token in special[1:]])
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(str(path))
    return path


@pytest.fixture(scope="module")
def hub(folder: Path) -> Tokenizer:
    return load_tokenizer(make_hub_tokenizer(folder / "hub" / "tokenizer.json").parent)


@pytest.fixture(params=["own", "hub"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@given(text=TEXT)
@example(text="[MASK]</s><pad><0x41><unk>▁▅")
@example(text="  two  spaces \n\n\tand lines \n")
def test_normalised_text_comes_back_exactly(own: Tokenizer, hub: Tokenizer, text: str) -> None:
    for tokenizer in (own, hub):
        assert tokenizer.decode(tokenizer.encode(text)) == normalize(text)


@given(text=TEXT, at=st.floats(0, 1))
def test_two_spans_join_exactly_wherever_the_text_is_cut(own: Tokenizer, hub: Tokenizer, text: str, at: float) -> None:
    text = normalize(text)
    a, b = text[: int(at * len(text))], text[int(at * len(text)) :]
    for tokenizer in (own, hub):
        assert tokenizer.decode([*tokenizer.encode(a), tokenizer.mask_id, *tokenizer.encode(b)]) == text


@given(text=TEXT)
def test_no_text_yields_a_control_id(own: Tokenizer, hub: Tokenizer, text: str) -> None:
    for tokenizer in (own, hub):
        controls = {tokenizer.mask_id, tokenizer.eos_id, tokenizer.pad_id}
        assert not controls & set(tokenizer.encode(text))
    assert not {0, 1, 2, 3} & set(own.encode(text))


def test_control_ids_are_the_agreed_ones_and_vanish(own: Tokenizer) -> None:
    assert (own.pad_id, own.eos_id, own.mask_id) == (0, 2, 3)
    assert own.pieces([0, 1, 2, 3]) == ["<pad>", "<unk>", "</s>", "[MASK]"]
    assert own.decode([3, *own.encode("कल"), 0, 2, 1]) == "कल"


def test_pieces_are_what_the_text_is_made_of(own: Tokenizer) -> None:
    ids = own.encode("मैं  office")
    assert "".join(own.pieces(ids)) == "मैं  office"
    assert len(own.pieces(ids)) == len(ids)


def test_bytes_that_are_no_text_do_not_fail(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("😀")
    assert "\ufffd" in tokenizer.decode(ids[:-1])
    assert all(isinstance(piece, str) and piece for piece in tokenizer.pieces(ids))


def test_an_id_outside_the_vocabulary_is_refused(tokenizer: Tokenizer) -> None:
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(UsageError, match="outside the vocabulary"):
            tokenizer.decode([wrong])
        with pytest.raises(UsageError, match="outside the vocabulary"):
            tokenizer.pieces([wrong])


def test_digits_of_both_scripts_stand_alone(tmp_path: Path) -> None:
    numbers = [
        f"{n} {n:04d}".translate({ord("0") + d: chr(0x966 + d) for d in range(10)}) if n % 2 else str(n)
        for n in range(500)
    ]
    trained = train_tokenizer([*corpus(), *[" ".join(numbers)] * 5], tmp_path / "a.model", vocab_size=700)
    assert not any("\x01" in piece for piece in trained.pieces(range(trained.vocab_size)))
    for text in ("2024", "२०२४", "5000 रुपये"):
        assert all(sum(char.isdigit() for char in piece) <= 1 for piece in trained.pieces(trained.encode(text)))


def test_training_is_deterministic(tmp_path: Path) -> None:
    one = train_tokenizer(corpus(), tmp_path / "a.model", vocab_size=600)
    two = train_tokenizer(iter(corpus()), tmp_path / "b.model", vocab_size=600)
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("with_it", ["", "\u2581", "\u2585"])
def test_no_line_is_dropped_in_training(with_it: str, tmp_path: Path) -> None:
    line = f"कलमनवीस {with_it} " * 20_000
    trained = train_tokenizer(["एक दो तीन", line], tmp_path / "a.model", vocab_size=400)
    assert len(trained.encode("कलमनवीस")) == 1


def test_the_vocabulary_is_at_most_as_large_as_asked_for(tmp_path: Path) -> None:
    assert train_tokenizer(corpus(), tmp_path / "a.model", vocab_size=700).vocab_size == 700
    small = train_tokenizer(["कमल नमक कलम " * 5], tmp_path / "b.model", vocab_size=8192)
    assert 261 < small.vocab_size < 400


def test_a_vocabulary_too_small_for_the_characters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="vocab_size=262"):
        train_tokenizer(corpus(), tmp_path / "a.model", vocab_size=262)
    assert not list(tmp_path.iterdir())


def test_fingerprints_tell_vocabularies_apart(own: Tokenizer, hub: Tokenizer, folder: Path, tmp_path: Path) -> None:
    other = train_tokenizer(corpus()[:30], tmp_path / "other.model", vocab_size=700)
    again = load_tokenizer(folder / "own.model")
    assert again.fingerprint == own.fingerprint
    assert len({own.fingerprint, other.fingerprint, hub.fingerprint}) == 3


def test_the_digest_beside_a_model_is_what_sha256sum_writes(own: Tokenizer, folder: Path) -> None:
    model = folder / "own.model"
    assert digest_path(model).read_text() == f"{hashlib.sha256(model.read_bytes()).hexdigest()}  own.model\n"


def test_every_bit_flip_and_truncation_is_found_and_named(own: Tokenizer, folder: Path, tmp_path: Path) -> None:
    whole, rng = (folder / "own.model").read_bytes(), random.Random(0)
    model = tmp_path / "own.model"
    for round_ in range(120):
        model.write_bytes(whole)
        digest_path(model).write_bytes(digest_path(folder / "own.model").read_bytes())
        victim = model if round_ % 4 else digest_path(model)
        data = bytearray(victim.read_bytes())
        if round_ % 3:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        victim.write_bytes(data)
        with pytest.raises(ArtefactError, match="own.model"):
            load_tokenizer(model)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, b"\x0a\xff\xff\xff\xff\x0f"])
def test_a_file_that_is_no_model_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.model"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="bad.model"):
        load_tokenizer(path)


@pytest.mark.parametrize("text", ["a", "कखगघ" * 500])
def test_text_without_a_space_makes_a_tokenizer_that_knows_spaces(text: str, tmp_path: Path) -> None:
    made = train_tokenizer([text], tmp_path / "t.model", vocab_size=512)
    assert made.decode(made.encode("  अ a ")) == "  अ a "
    assert len(made.encode("a a")) <= 3


def test_a_model_without_a_mask_is_refused(tmp_path: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_prefix=str(tmp_path / "plain"), vocab_size=400, minloglevel=2
    )
    with pytest.raises(ArtefactError, match=r"plain.model: needs the control symbols.*MASK"):
        load_tokenizer(tmp_path / "plain.model")


def test_a_tokenizer_json_says_its_control_tokens(tmp_path: Path) -> None:
    path = make_hub_tokenizer(tmp_path / "tokenizer.json", ("<|endoftext|>", "<|mask|>", "<|fill|>"))
    plain = load_tokenizer(path)
    assert plain.pieces([plain.mask_id, plain.eos_id, plain.pad_id]) == ["<|mask|>", "<|endoftext|>", "<|endoftext|>"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": {"content": "<|fill|>"}}))
    assert load_tokenizer(tmp_path).pieces([load_tokenizer(tmp_path).mask_id]) == ["<|fill|>"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model": 5}', "\ud800".encode("utf-8", "surrogatepass")])
def test_a_tokenizer_json_that_is_none_is_refused_by_name(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArtefactError, match=r"tokenizer\.json"):
        load_tokenizer(path)


def test_a_tokenizer_json_without_a_mask_is_refused(tmp_path: Path) -> None:
    path = make_hub_tokenizer(tmp_path / "tokenizer.json", ("<|endoftext|>",))
    with pytest.raises(ArtefactError, match=r"tokenizer\.json: has no mask_token"):
        load_tokenizer(path)


def test_what_is_no_tokenizer_is_refused(folder: Path, own: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no such file"):
        load_tokenizer(tmp_path / "missing.model")
    with pytest.raises(ArtefactError, match="has none"):
        load_tokenizer(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"ends in .model or .json"):
        load_tokenizer(tmp_path / "notes.txt")
    assert load_tokenizer(folder).fingerprint == own.fingerprint  # the only model in the folder
