"""SentencePiece BPE with byte fallback: the tokenizer that is trained here."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import write_atomic
from diffulex_edge.text.normalize import normalize

PAD_ID, UNK_ID, EOS_ID, MASK_ID = 0, 1, 2, 3
SPACE = "\u2581"  # SentencePiece writes a space as this character
_RESERVED = str.maketrans({SPACE: " ", "\u2585": " "})  # SentencePiece's trainer drops lines that have them
_CUT = "\x01"  # no piece spans it in training; normalised text never has it
_DEVANAGARI_DIGIT = re.compile("([\u0966-\u096f])")  # split_digits knows the others


class SentencePieceTokenizer:
    """Every text has a spelling in its ids, byte by byte if need be, so nothing is ever unknown."""

    pad_id, eos_id, mask_id = PAD_ID, EOS_ID, MASK_ID

    def __init__(self, model: bytes, name: str = "the SentencePiece model") -> None:
        self._spm = _parse(model, name)
        self.vocab_size: int = self._spm.get_piece_size()
        ids = range(self.vocab_size)
        self._pieces: list[str] = [self._spm.id_to_piece(i) for i in ids]
        self._controls = {i for i in ids if self._spm.is_control(i) or self._spm.is_unknown(i)}
        self._bytes = [self._surface(i) for i in ids]
        self._spelt_space = [self._spm.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
        kinds = [(piece, i in self._controls, self._spm.is_byte(i)) for i, piece in enumerate(self._pieces)]
        self.fingerprint = hashlib.sha256(json.dumps(kinds).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(normalize(text).split(SPACE)):
            if i:  # SentencePiece would give U+2581 back as a space
                ids += self._spelt_space
            ids += self._spm.encode(part)
        return ids

    def split_controls(self, text: str) -> list[str | int]:
        """The text alone: no spelling stands for a control id here."""
        return [text] if text else []

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join(self._bytes[self._known(i)] for i in ids).decode("utf-8", errors="replace")

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._pieces[self._known(i)].replace(SPACE, " ") for i in ids]

    def _known(self, i: int) -> int:
        if not 0 <= i < self.vocab_size:
            raise UsageError(f"id {i} is outside the vocabulary of {self.vocab_size}")
        return i

    def _surface(self, i: int) -> bytes:
        if i in self._controls:
            return b""
        piece = self._pieces[i]
        return bytes([int(piece[3:5], 16)]) if self._spm.is_byte(i) else piece.replace(SPACE, " ").encode()


def _parse(model: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
    spm = sentencepiece.SentencePieceProcessor()
    try:
        spm.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise ArtefactError(f"{name}: not a SentencePiece model") from error
    size = spm.get_piece_size()
    need = {PAD_ID: "<pad>", EOS_ID: "</s>", MASK_ID: "[MASK]"}
    found = {i: spm.id_to_piece(i) for i in need if i < size and spm.is_control(i)}
    if found != need:
        raise ArtefactError(f"{name}: needs the control symbols {need}, has {found}")
    if not all(spm.is_byte(spm.piece_to_id(f"<0x{byte:02X}>")) for byte in range(256)):
        raise ArtefactError(f"{name}: has no byte fallback, so it cannot spell every text")
    if spm.decode(spm.encode("  अ a")) != "  अ a":
        raise ArtefactError(f"{name}: adds or drops spaces, so spans of text would not join exactly")
    return spm


def load_sentencepiece(path: Path) -> SentencePieceTokenizer:
    """Loads a model, after its digest has been checked where there is one beside it."""
    try:
        model = path.read_bytes()
        digest = digest_path(path).read_bytes() if digest_path(path).exists() else None
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}") from error
    if digest is not None and digest != _digest_line(path, model):
        raise ArtefactError(
            f"{path}: its sha256 is not the one in {digest_path(path).name}: one of the two was changed"
        )
    return SentencePieceTokenizer(model, str(path))


def digest_path(path: Path) -> Path:
    """Where the digest of a trained model lies, as `sha256sum` writes it."""
    return path.with_name(path.name + ".sha256")


def _digest_line(path: Path, model: bytes) -> bytes:
    return f"{hashlib.sha256(model).hexdigest()}  {path.name}\n".encode()


def train_tokenizer(
    texts: Iterable[str], path: Path | str, *, vocab_size: int = 8192, coverage: float = 0.9999
) -> SentencePieceTokenizer:
    """Trains BPE and writes it to `path`, with its digest beside it. The same texts give the same bytes.

    vocab_size is an upper bound: text that has no more pieces to offer fills less, and the caller sees it in
    `.vocab_size`. It must hold the 260 bytes and controls, the newline, and the characters that make up `coverage` of
    the text (UsageError says how many), and a space even where the text has none. The normaliser is the identity, since
    `normalize` has run; no dummy prefix and no whitespace removed, so that spans join exactly; digits of both scripts
    one by one; the newline a symbol of its own.
    """
    path, model, stopped = Path(path), io.BytesIO(), list[KeyboardInterrupt]()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_training_lines(texts, stopped), model_writer=model, model_type="bpe",
            vocab_size=vocab_size, hard_vocab_limit=False, character_coverage=coverage, byte_fallback=True,
            split_digits=True, split_by_unicode_script=True, pretokenization_delimiter=_CUT, required_chars=SPACE,
            normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True, max_sentence_length=1 << 30, pad_id=PAD_ID, unk_id=UNK_ID,
            eos_id=EOS_ID, bos_id=-1, pad_piece="<pad>", unk_piece="<unk>", eos_piece="</s>",
            control_symbols=["[MASK]"], user_defined_symbols=["\n"], num_threads=1, minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        if stopped:  # the trainer makes its own error of a Ctrl-C
            raise stopped[0] from None
        reason = str(error).splitlines()[0].rpartition("] ")[2]  # without the place in the C++ source
        raise UsageError(f"no tokenizer with {vocab_size=} can be trained on this text: {reason}") from error
    write_atomic(digest_path(path), _digest_line(path, model.getvalue()))  # first: a model is never there without it
    write_atomic(path, model.getvalue())
    return load_sentencepiece(path)


def _training_lines(texts: Iterable[str], stopped: list[KeyboardInterrupt]) -> Iterator[str]:
    """The lines that are learnt from; a Ctrl-C while they are read is noted."""
    try:
        for text in texts:
            for line in normalize(text).translate(_RESERVED).split("\n"):
                if line.strip():
                    yield _DEVANAGARI_DIGIT.sub(f"{_CUT}\\1{_CUT}", line)
    except KeyboardInterrupt as error:
        stopped.append(error)
        raise
