"""An exported program as a Denoiser: the same contract, the arithmetic in ExecuTorch or OpenVINO. One text at a time.

What it remembers is in the program's own buffers, so there is one text, and its newest context is the one to go
on from; an older one is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Context, DenoiserSpec, Exit, StepLike
from diffulex_edge.model.kv_cache import Opening
from diffulex_edge.model.sampling import Sampling
from diffulex_edge.runtime.openvino_program import OpenvinoProgram, is_openvino_folder
from diffulex_edge.runtime.program import Program


@dataclass(frozen=True, eq=False)
class PteContext:
    """How much of which text the program remembers."""

    text: int  # texts begun before it
    position: int  # tokens remembered
    opening: Opening | None = None
    exact = True
    aligned = True

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        return block if self.opening is None else self.opening(block, banned)

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Self:
        return self

    def refresh(self, seen: Context, step: StepLike) -> Self:
        return self


@dataclass(frozen=True, eq=False)
class PteCanvas:
    """The ids around the block. Dual: after the first look at a block, only the block is read."""

    dual: bool
    prefix: Tensor  # (1, S)
    ahead: Tensor  # (1, R)
    warm: bool = False
    aligned = False

    @property
    def exact(self) -> bool:
        return not self.dual

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        return block

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Self:
        if at is not None and len(at) and int(at[-1]) != len(at) - 1:
            raise UsageError("a program reads the text ahead without gaps: it takes no plan that leaves some out")
        return replace(self, ahead=ahead, warm=False)

    def refresh(self, seen: Context, step: StepLike) -> Self:
        assert isinstance(seen, type(self))
        return seen


class _Look(NamedTuple):
    """How a program looks at a block."""

    method: str
    inputs: tuple[Tensor, ...]  # the first of the method's
    here: slice  # the block, of the columns that the method gives
    context: Context  # afterwards


class Runs(Protocol):
    """A program that is open: what is in it, and its methods by name."""

    @property
    def description(self) -> dict[str, Any]: ...

    def call(self, name: str, *inputs: Tensor) -> list[Any]:
        """What the method gives, in tensors that are good until it is called again."""
        ...


def _open(path: str | Path, threads: int | None) -> Runs:
    opened = OpenvinoProgram if is_openvino_folder(Path(path)) else Program
    return opened(path, threads=threads)


class PteDenoiser:
    """A Denoiser over a .pte, or a folder of OpenVINO's files, that `export_model` made."""

    def __init__(self, path: str | Path | Runs, *, threads: int | None = None) -> None:
        """path: the file or folder, or a program that is open. threads: of its operators; None: as its runtime chooses.

        Raises ArtefactError where a file is damaged or not one of ours, BackendUnavailable without its runtime.
        """
        self.program: Runs = _open(path, threads) if isinstance(path, str | Path) else path
        self.description = self.program.description
        self.block_size: int = self.description["block_size"]  # tokens
        self.kinds: dict[str, Any] = _KINDS[self.description["context"]]
        limit = self.description["max_length"]
        facts = {
            **self.description["model"],
            "contexts": dict.fromkeys(self.kinds, limit),
            "block_length": self.block_size,
            "sampling": Sampling(**self.description["model"].get("sampling", {})),
        }
        self.spec = DenoiserSpec(**{name: _tuple(value) for name, value in facts.items()})
        self.banned = tuple(self.description["banned"])
        self._texts = self._position = 0

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Context:
        if kind not in self.kinds:
            raise UsageError(f"context {kind!r} is not one of this program's: {', '.join(self.kinds)}")
        if batch_size != 1 or (first is not None and bool(first.any())):
            raise UsageError(f"batch of {batch_size}: a program decodes one text at a time")
        limit = self.spec.contexts[kind]
        if limit is not None and length > limit:
            raise UsageError(f"a text of {length} tokens is longer than the {limit} that the program was made for")
        context: Context = self.kinds[kind](self)
        return context

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
        context = self.begin(next(iter(self.kinds)), len(block), block.shape[1]) if context is None else context
        if rows is not None and not rows.numel():
            return block.new_zeros(0, self.spec.vocab_size, dtype=torch.float32), self._remember(block, context)
        self._at_full_depth(depth)
        if exit is not None:
            raise UsageError("a program has no early exit (SEDAC): use the checkpoint that it was exported from")
        look = self._looking("logits", block, context)
        (logits,) = self.program.call(look.method, *look.inputs, *self._time(look.method, t))
        logits = logits[:, look.here]
        return (logits.clone() if rows is None else logits[rows]), look.context

    def reveal(
        self,
        block: Tensor,
        context: Context,
        *,
        t: Tensor | None,
        depth: int,
        asked: int,
        count: int,
        threshold: float,
    ) -> tuple[Tensor, Tensor, Context]:
        """A reverse step with its reveal inside the program: the block (1, L), how sure each guess is, the context.

        asked: columns from there on are padding. What is shown: the `count` surest, and all of at least `threshold`.
        """
        look = self._looking("denoise", block, context)
        shallow = depth != self.spec.n_layers and look.method == "denoise"  # others leave behind what is read later
        name = f"{look.method}_{depth}" if shallow else look.method
        if name not in self.description["methods"]:
            raise UsageError(f"the program has no method of {depth} layers: export it with depths={depth}")
        asks = (torch.tensor(look.here.start + asked), torch.tensor(count), torch.tensor(threshold))
        shown, probability = self.program.call(name, *look.inputs, *self._time(name, t), *asks)
        return shown[:, look.here].clone(), probability[:, look.here].clone(), look.context

    def _remember(self, block: Tensor, context: Context) -> Context:
        if isinstance(context, PteCanvas):
            return replace(context, prefix=torch.cat((context.prefix, block), 1), ahead=block[:, :0], warm=False)
        assert isinstance(context, PteContext)
        self._newest(context)
        if block.shape[1] % self.block_size:
            raise UsageError(f"{block.shape[1]} tokens are not whole blocks of {self.block_size}, the program's size")
        opening = None
        for name, piece in self._pieces(block):
            self._room(piece)
            _, *logits = self.program.call(name, piece.contiguous(), torch.tensor(self._position))
            self._position += piece.shape[1]
            opening = Opening(logits[0].clone(), torch.ones(1, dtype=torch.bool), self.spec.mask_id) if logits else None
        return replace(context, position=self._position, opening=opening)

    def _pieces(self, blocks: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Blocks (1, N) as the program's methods take them in."""
        methods, whole = self.description["methods"], 0
        if "prefill" in methods:
            many = methods["prefill"]["inputs"][0]["shape"][1]
            whole = blocks.shape[1] // many * many
            yield from (("prefill", piece) for piece in blocks[:, :whole].split(many, 1) if whole)
        yield from (("commit", piece) for piece in blocks[:, whole:].split(self.block_size, 1) if piece.numel())

    def _looking(self, name: str, block: Tensor, context: Context) -> _Look:
        if block.shape[1] > self.block_size:
            raise UsageError(f"a block of {block.shape[1]} tokens is longer than the program's {self.block_size}")
        if isinstance(context, PteCanvas):
            return self._looking_at_canvas(name, block, context)
        assert isinstance(context, PteContext)
        self._newest(context)
        self._room(block)
        return _Look(name, (self._filled(block), torch.tensor(context.position)), slice(0, block.shape[1]), context)

    def _looking_at_canvas(self, name: str, block: Tensor, context: PteCanvas) -> _Look:
        """At a canvas's end the method's block reaches back over text that is written; `dual` then reads that again."""
        text = torch.cat((context.prefix, block, context.ahead), 1)
        stop, width = text.shape[1], self.description["max_length"]
        fitting = [length for length in (*self.description.get("buckets", ()), width) if length >= stop]
        if not fitting:
            raise UsageError(f"{stop} tokens do not fit into the program's {width}")
        cached = context.warm and context.dual
        length = width if cached else min(fitting)
        canvas = torch.full((1, length), self.spec.mask_id)
        canvas[:, :stop] = text
        start = min(context.prefix.shape[1], length - self.block_size)
        names = {"logits": ("logits", "logits_cached"), "denoise": ("look", "denoise")}[name]
        found = names[cached] if length == width else f"{names[0]}_of_{length}"
        behind = context.prefix.shape[1] - start
        here, inputs = slice(behind, behind + block.shape[1]), (canvas, torch.tensor(start), torch.tensor(stop))
        return _Look(found, inputs, here, replace(context, warm=True))

    def _filled(self, block: Tensor) -> Tensor:
        """A block that is shorter than the program's is filled up with masks, which the model sees."""
        fill = self.block_size - block.shape[1]
        return torch.nn.functional.pad(block, (0, fill), value=self.spec.mask_id).contiguous()

    def _time(self, method: str, t: Tensor | None) -> tuple[Tensor, ...]:
        timed = any(port["name"] == "t" for port in self.description["methods"][method]["inputs"])
        if timed and t is None:
            raise UsageError("this model is conditioned on the noise level: pass t (1,)")
        return (t.reshape(()).float(),) if timed and t is not None else ()

    def _newest(self, context: PteContext) -> None:
        if (context.text, context.position) != (self._texts, self._position):
            raise UsageError("the program has gone on from this context: it remembers one text, to its newest block")

    def _room(self, block: Tensor) -> None:
        limit = self.description["max_length"]
        if limit is not None and self._position + block.shape[1] > limit:
            raise UsageError(f"{self._position} + {block.shape[1]} tokens do not fit the {limit} of the program")

    def _at_full_depth(self, depth: int | None) -> None:
        if depth not in (None, self.spec.n_layers):
            raise UsageError(f"{depth=}: a program gives logits at its full depth of {self.spec.n_layers} layers alone")

    def new_text(self) -> PteContext:
        self._texts, self._position = self._texts + 1, 0
        return PteContext(self._texts, 0)


def _canvas(dual: bool) -> Any:
    empty = torch.zeros(1, 0, dtype=torch.long)
    return lambda denoiser: PteCanvas(dual, empty, empty)


_KINDS: dict[str, dict[str, Any]] = {  # context that was exported -> kinds that it serves, and how they begin
    "memory": {"memory": PteDenoiser.new_text},
    "kv": {"kv": PteDenoiser.new_text},
    "canvas": {"canvas": _canvas(dual=False), "dual": _canvas(dual=True)},
}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
