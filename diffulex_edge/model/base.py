"""The contract: one call, one context. Every denoiser implements this page; the rest of the package knows no more.

Shapes, here and everywhere:
B batch  T training length  L block length  S tokens in the context  K blocks
N layers  H heads  E width of a head  D width  V vocabulary  M memory slots
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffulex_edge.model.sampling import Sampling
from diffulex_edge.model.soft_exit import Keep

NONE = torch.zeros(0, dtype=torch.bool)  # rows=NONE: no logits are wanted, the block is to be remembered


@dataclass(frozen=True, kw_only=True)
class DenoiserSpec:
    """The facts a decoder needs of a model; nothing else about it may leak out."""

    vocab_size: int
    mask_id: int
    n_layers: int
    block_length: int | None  # tokens; None where attention is not block-causal
    contexts: Mapping[str, int | None]  # kind -> longest text it takes (None: no limit), best kind first
    trained_modes: tuple[str, ...]  # of full, block, block_frozen: what the weights were trained to do
    stop_ids: tuple[int, ...] = ()  # ids that end a text, where the model says so and not the tokenizer alone
    mask_schedule: str = (
        "linear"  # the noise schedule that they were trained with, by its name in diffusion/schedule.py
    )
    sample_steps: int | None = None  # reverse steps a block that decoding takes by default; None: the plan's own
    sampling: Sampling = Sampling()  # how text is best drawn from it
    carries: bool = False  # a reverse step may start from the one before it, by `refresh` of its memory context
    autoregressive: bool = False  # blocks of one token, which the pass that remembers the one before it speaks about


class StepLike(Protocol):
    """What a context may know of a reverse step."""

    @property
    def index(self) -> int: ...  # 0 is the first, noisiest step of the block


class Context(Protocol):
    """What is remembered of the tokens before the block. A value: going on from an old one is always allowed."""

    @property
    def exact(self) -> bool: ...  # decoding with it equals decoding without it, for the same model and mode

    @property
    def aligned(self) -> bool: ...  # blocks must start at multiples of the block size, counted from `first`

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        """Fills in what the context already decides about the coming block (B, L), with none of the banned ids.

        The identity for most.
        """
        ...

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Context:
        """The same context, told the text (B, R) that lies beyond the coming block; only a canvas looks at it.

        at (R,): how many columns behind the block each column of it is, ascending; None: 0, 1, 2, ...
        """
        ...

    def refresh(self, seen: Context, step: StepLike) -> Context:
        """The context for the next step, given what a denoise call returned; exact contexts return themselves.

        But for what a model that `carries` takes along from step to step, and forgets when a block is remembered.
        """
        ...


class Exit(Protocol):
    """An early exit: how much of a look at a block is still worth computing."""

    def __call__(self, layer: int, x: Tensor) -> Keep | None:
        """Asked behind the layer of this number, the first being 0, with what it made of the block, x (B, L, D).

        Returns what is left of the layers to come, from now on; None: as it was.
        """
        ...


@runtime_checkable
class Denoiser(Protocol):
    spec: DenoiserSpec

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Context:
        """An empty context of the given kind for texts of up to `length` tokens.

        first (B,) is the position of each row's first real token where rows are padded on the left; None means 0.
        Raises UsageError for a kind the model has not, or a length beyond what the kind takes.
        """
        ...

    def __call__(
        self,
        block: Tensor,
        context: Context | None = None,
        *,
        t: Tensor | None = None,
        depth: int | None = None,
        exit: Exit | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Context]:
        """From a block (B, L) of ids to logits and a context.

        Denoise (look, forget): `rows` (B, L) of bool names the positions whose logits are wanted, (n, V) in row-major
        order, or None for all, (B, L, V). Row i speaks about token i. The context that comes back remembers nothing
        new. Prefill and commit (look, remember): `rows=NONE`. No logits (0, V); the context has the block in it.
        context None: nothing before the block. t (B,) in [0, 1]: the noise level, for models that ask for it.
        depth: how many layers to run, None for all. exit: asked behind each of them what is left of the others. Both
        are ignored when remembering, so that what is remembered is exact.
        """
        ...
