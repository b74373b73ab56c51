"""Hugging Face tokenizers (`tokenizer.json`): those of the open families, read without transformers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as HubTokenizer

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.text.normalize import normalize

# Tried in this order where tokenizer_config.json does not name the token: each family writes its mask in its own way.
MASKS = ("[MASK]", "<|mdm_mask|>", "<|mask|>", "<|MASK|>", "|<MASK>|", "<mask>")
ENDS = ("</s>", "<|endoftext|>", "<|im_end|>", "<eos>", "[SEP]", "[EOS]")
PADS = ("<pad>", "[PAD]", "<|pad|>", *ENDS)  # an end of text pads where there is nothing better


class JsonTokenizer:
    """A `tokenizer.json`. Text that spells a special token is tokenised like any other text.

    Decoding gives normalised text back exactly if the tokenizer is byte-level, as those of the open families are.
    """

    def __init__(self, content: dict[str, Any], names: dict[str, Any], name: str = "tokenizer.json") -> None:
        try:
            self._tokenizer = HubTokenizer.from_buffer(
                json.dumps({**content, "truncation": None, "padding": None}).encode()
            )
        except ValueError as error:
            raise ArtefactError(f"{name}: not a tokenizer.json ({error})") from error
        self.mask_id = self._control("mask_token", names, MASKS, name)
        self.eos_id = self._control("eos_token", names, ENDS, name)
        self.pad_id = self._control("pad_token", names, PADS, name)
        self._tokenizer.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self._controls = {i for i, token in added.items() if token.special}
        self._spelt = {token.content: i for i, token in added.items() if token.special}
        spellings = [_spelling(token) for token in added.values() if token.special]
        self._spellings = re.compile("|".join(sorted(spellings, key=len, reverse=True)))
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        vocabulary = json.dumps([content.get(part) for part in ("model", "added_tokens")], sort_keys=True)
        self.fingerprint = hashlib.sha256(vocabulary.encode()).hexdigest()

    def _control(self, role: str, names: dict[str, Any], usual: tuple[str, ...], name: str) -> int:
        named = names.get(role)
        named = named.get("content") if isinstance(named, dict) else named
        for token in (named, *usual):
            found = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
            if found is not None:
                self._tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
                return found
        raise ArtefactError(f"{name}: has no {role}: neither tokenizer_config.json nor {', '.join(usual)} names one")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(normalize(text), add_special_tokens=False).ids
        return ids

    def split_controls(self, text: str) -> list[str | int]:
        """The text cut at each spelling of a control token, which becomes its id. For text that no user wrote."""
        parts, start = list[str | int](), 0
        for found in self._spellings.finditer(text):
            parts += [text[start : found.start()], self._spelt.get(found[0], self._spelt.get(found[0].strip(), 0))]
            start = found.end()
        return [part for part in (*parts, text[start:]) if part != ""]

    def decode(self, ids: Iterable[int]) -> str:
        text: str = self._tokenizer.decode(
            [i for i in map(self._known, ids) if i not in self._controls], skip_special_tokens=False
        )
        return text

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._piece(i) for i in map(self._known, ids)]

    def _piece(self, i: int) -> str:
        if i in self._controls:
            return str(self._tokenizer.id_to_token(i))
        return str(self._tokenizer.decode([i], skip_special_tokens=False))

    def _known(self, i: int) -> int:
        if not 0 <= i < self.vocab_size:
            raise UsageError(f"id {i} is outside the vocabulary of {self.vocab_size}")
        return i


def _spelling(token: AddedToken) -> str:
    """Some tokens take the white space beside them."""
    return (r"\s*" if token.lstrip else "") + re.escape(token.content) + (r"\s*" if token.rstrip else "")


def load_json_tokenizer(path: Path) -> JsonTokenizer:
    """Loads a tokenizer.json; tokenizer_config.json beside it says which tokens mask, end and pad."""
    return JsonTokenizer(_read(path), _read(path.with_name("tokenizer_config.json"), optional=True), str(path))


def _read(path: Path, optional: bool = False) -> dict[str, Any]:
    if optional and not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{path}: must be an object, is {type(content).__name__}")
    return content
