"""What the engines share: which model, on which device, what prompts, which ids end a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.decode import Committed
from diffulex_edge.runtime.pte import PteDenoiser

Prompt = Sequence[int] | Sequence[Sequence[int]] | Tensor  # ids (S,) or (B, S), or a list of them a row


def open_model(
    model: Denoiser | None, pte_path: str | Path | None, device: torch.device | str | None
) -> tuple[Denoiser, torch.device]:
    """The model, ready to decode on the device, and that device; None: where its weights are.

    pte_path: a program that `export_model` wrote; it runs on the CPU, in as many threads as PyTorch has here.
    Raises UsageError for anything but one Denoiser, and what PteDenoiser raises.
    """
    if (model is None) == (pte_path is None):
        raise UsageError("an engine takes either a model or a pte_path")
    if pte_path is not None:
        return PteDenoiser(pte_path, threads=torch.get_num_threads()), torch.device("cpu")
    if not isinstance(model, Denoiser):
        raise UsageError(f"{type(model).__name__} is not a Denoiser: it lacks `spec` or `begin`, see model/base.py")
    if not isinstance(model, nn.Module):
        return model, torch.device(device or "cpu")
    model.eval()
    if device is not None:
        model.to(device)
    return model, next((p.device for p in model.parameters()), torch.device(device or "cpu"))


def best_context(model: Denoiser) -> str:
    """The kind that the model's spec names first."""
    return next(iter(model.spec.contexts))


def fitting_block(model: Denoiser, wished: int) -> int:
    """The size that was wished for, in whole blocks of the model; of a program the one that it was made for."""
    unit = model.spec.block_length or 1
    return unit if isinstance(model, PteDenoiser) else -(-wished // unit) * unit


def prompt_rows(prompt: Prompt) -> tuple[list[list[int]], bool]:
    """The prompt's rows, and whether it was one text rather than a batch: a list of ids, or a tensor (S,) or (1, S)."""
    if isinstance(prompt, Tensor):
        if prompt.dim() not in (1, 2) or prompt.is_floating_point():
            raise UsageError(f"a prompt of {prompt.dtype} {tuple(prompt.shape)}: ids (S,) or (B, S) are needed")
        rows = [prompt.tolist()] if prompt.dim() == 1 else prompt.tolist()
        return rows, len(rows) == 1
    found: list[Any] = list(prompt)
    if found and isinstance(found[0], Sequence | Tensor):
        return [[int(token) for token in row] for row in found], False
    return [[int(token) for token in found]], True


def one_prompt(prompt: Prompt) -> list[int]:
    rows, _ = prompt_rows(prompt)
    if len(rows) != 1:
        raise UsageError(f"a stream is of one prompt, not of {len(rows)}")
    return rows[0]


def end_ids(model: Denoiser, said: int | None) -> tuple[int, ...]:
    """The end of a text that was said; else those of the model's spec, which may name none."""
    return model.spec.stop_ids if said is None else (said,)


class StopSequences:
    """Follows a decode as its `until`: a row ends behind the first sequence that it writes, be it in two blocks.

    `pieces` is what each row got of the last block, without what stands behind its end.
    """

    def __init__(self, n_rows: int, sequences: Sequence[Sequence[int]]) -> None:
        self._sequences = [list(sequence) for sequence in sequences]
        self._written: list[list[int]] = [[] for _ in range(n_rows)]
        self.pieces: list[list[int]] = []

    def __call__(self, event: Committed) -> Tensor:
        new = [block[asked].tolist() for block, asked in zip(event.block, event.asked, strict=True)]
        before = [len(written) for written in self._written]
        ended = [self._take(written, tokens) for written, tokens in zip(self._written, new, strict=True)]
        self.pieces = [written[start:] for written, start in zip(self._written, before, strict=True)]
        return torch.tensor(ended, device=event.block.device)

    def _take(self, written: list[int], tokens: list[int]) -> bool:
        for token in tokens:
            written.append(token)
            if any(written[-len(sequence) :] == sequence for sequence in self._sequences):
                return True
        return False
