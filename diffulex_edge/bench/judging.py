"""Which judge: one trained on the training text, kept beside it; else one trained on the documents themselves.

An n-gram has no seed and no other data to learn from than the model had. It is independent as a class of model: it
shares neither the denoiser's weights nor its way to be wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffulex_edge.bench.judge import KneserNey
from diffulex_edge.errors import ArtefactError
from diffulex_edge.files import sha256_file
from diffulex_edge.text.batches import read_meta
from diffulex_edge.text.tokenizer import Tokenizer

ORDER = 5
CACHE = f"judge-{ORDER}gram.npz"


@dataclass(frozen=True, eq=False)
class Judge:
    model: KneserNey
    trained_on: str
    held_out: bool  # it has not seen the documents that are evaluated


def judge_of_data(data_dir: Path, tokenizer: Tokenizer) -> Judge | None:
    """The judge of a folder that `prepare` wrote; None where there is no such folder, or one of another vocabulary.

    It is kept in the folder and used again while the text is the same. Raises ArtefactError for a corrupt folder.
    """
    if not (data_dir / "meta.json").exists():
        return None
    meta = read_meta(data_dir)
    fingerprint, split, dtype = meta["tokenizer"]["fingerprint"], meta["splits"]["train"], meta["dtype"]
    text, digest = data_dir / split["file"], split["sha256"]
    if fingerprint != tokenizer.fingerprint:
        return None
    cache = data_dir / CACHE
    if cache.exists():
        model, trained_on = KneserNey.load(cache)
        if trained_on == digest:
            return Judge(model, str(text), True)
    if sha256_file(text) != digest:
        raise ArtefactError(f"{text}: corrupt: its sha256 is not the one in meta.json")
    ids = np.fromfile(text, np.dtype(dtype).newbyteorder("<"))
    model = KneserNey.train(ids, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, order=ORDER)
    with contextlib.suppress(PermissionError):  # somebody else's folder: trained again next time
        model.save(cache, digest)
    return Judge(model, str(text), True)


def judge_of_documents(documents: Sequence[Sequence[int]], tokenizer: Tokenizer) -> Judge:
    """Fit to tell lively text from stuck text; its likelihood of these very documents means nothing."""
    ids = np.concatenate([np.append(np.asarray(document, np.int64), tokenizer.eos_id) for document in documents])
    model = KneserNey.train(ids, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, order=ORDER)
    return Judge(model, "the evaluated documents", False)
