"""Documents as the measurements read them, and `block_nelbo` of them in bits a character."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffulex_edge.bench import blocks, bounds
from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.statistics import BITS, ratio
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.text.corpus import Document
from diffulex_edge.text.normalize import normalize
from diffulex_edge.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Texts:
    """The documents that are not empty: as they came, as ids, and their lengths in code points."""

    documents: list[Document]
    ids: list[list[int]]
    chars: NDArray[np.float64]  # (n,)

    @classmethod
    def read(cls, documents: Sequence[Document], tokenizer: Tokenizer) -> Texts:
        cleaned = [(document, normalize(document.text)) for document in documents]
        cleaned = [(document, text) for document, text in cleaned if text.strip()]
        if not cleaned:
            raise UsageError(f"there is no text to evaluate in {len(documents)} documents")
        chars = np.array([len(text) for _, text in cleaned], np.float64)
        return cls([document for document, _ in cleaned], [tokenizer.encode(text) for _, text in cleaned], chars)

    @property
    def tokens(self) -> NDArray[np.float64]:
        return np.array([len(ids) for ids in self.ids], np.float64)


def block_figures(
    denoiser: Denoiser,
    tokenizer: Tokenizer,
    texts: Texts,
    *,
    block_size: int,
    window: int,
    n_samples: int,
    seed: int,
    reading: bounds.Reading,
    modes: Sequence[str] = tuple(blocks.JUDGED),
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Bits a character under each mode, None where the model cannot; and errors, reasons, what context is worth.

    A gain is isolated minus the mode, paired: how many bits a character the mode's context saves. By block it shows
    whether a memory wears out.
    """
    parts = blocks.stretches(texts.ids, block_size, window)
    chars = np.array([len(tokenizer.decode(part.ids.tolist())) for part in parts], np.float64)
    with bar("block by block", _work(parts, modes) * n_samples) as advance:
        watched = replace(reading, observe=None, advance=advance)
        found = blocks.block_bounds(
            denoiser, parts, block_size=block_size, n_samples=n_samples, seed=seed, modes=modes, reading=watched
        )
    per_char = chars.sum() / found.tokens.sum()  # characters a token, for the curve over blocks
    bits = {mode: nats.mean(1).sum(1) * BITS for mode, nats in found.nats.items()}
    estimates = {mode: ratio(each, chars) for mode, each in bits.items()}
    alone = bits.get("isolated")
    gains = {mode: ratio(alone - each, chars) for mode, each in bits.items()} if alone is not None else {}
    curves = {
        mode: (nats.mean(1).sum(0) * BITS / found.tokens.sum(0) / per_char).tolist()
        for mode, nats in found.nats.items()
    }
    details = {
        "block_nelbo_stderr": {mode: estimate.stderr for mode, estimate in estimates.items()},
        "block_nelbo_gain": {
            mode: {"bits_per_char": gain.value, "stderr": gain.stderr} for mode, gain in gains.items()
        },
        "block_nelbo_by_block": curves,
        "block_nelbo_missing": found.missing,
        "block_nelbo_characters": int(chars.sum()),
    }
    return {mode: estimates[mode].value if mode in estimates else None for mode in modes}, details


def _work(parts: Sequence[bounds.Window], modes: Sequence[str]) -> int:
    """Tokens of all forwards of one draw, as the progress bar counts them."""
    return len(modes) * sum(len(part.ids) for part in parts)
