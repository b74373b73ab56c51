"""What is exported: a denoiser together with what it remembers, as methods of fixed shapes. The one call, nothing else.

Every method is `denoiser(block, context, ...)`. A graph keeps the context's tensors in buffers that its methods share,
and `start`, the column at which the block begins, says how much of them is text: 0 forgets everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.export.reveal import reveal
from diffulex_edge.model.base import NONE
from diffulex_edge.model.context import LayerMemory, MemoryContext
from diffulex_edge.model.eco_hybrid import Recall
from diffulex_edge.model.fixed import FixedKV


@dataclass(frozen=True)
class Port:
    """An input or output of a method."""

    name: str
    dtype: str  # int64 or float32
    shape: tuple[int, ...]

    def example(self) -> Tensor:
        return torch.zeros(self.shape, dtype=getattr(torch, self.dtype))


@dataclass(frozen=True, eq=False)
class Method:
    """A function of a graph."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    keeps: bool = False  # whether what it writes to the buffers is read later


class Graph(Protocol):
    """A denoiser and the buffers of one kind of context."""

    context: str  # the kind
    block_size: int  # tokens
    max_length: int | None  # tokens; None: no limit
    buckets: Sequence[int]  # lengths of texts that have methods of their own, tokens; none: all texts have the same
    banned: Sequence[int]  # ids that a step never shows

    def methods(self, depths: Sequence[int]) -> Iterator[Method]: ...

    def remember(self, block: Tensor, canvas: Tensor, start: Tensor, stop: Tensor) -> None:
        """Fills the buffers, without a program, with what follows a block (1, L) or a look at a canvas (1, T)."""
        ...


class Bound(nn.Module):
    """A method as a module of its own. Buffers have the same names in all of a graph's, by which they are shared."""

    def __init__(self, graph: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.state, self.function = graph, function  # `graph` is a name that torch.fx wants for itself

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def as_vectors(method: Method) -> Method:
    """The method for who passes no scalars: they are vectors of one."""

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = method.function(*(value.reshape(port.shape) for value, port in zip(inputs, method.inputs, strict=True)))
        return tuple(value.reshape(value.shape or (1,)) for value in (found if isinstance(found, tuple) else (found,)))

    inputs, outputs = (
        tuple(replace(port, shape=port.shape or (1,)) for port in side) for side in (method.inputs, method.outputs)
    )
    return replace(method, function=call, inputs=inputs, outputs=outputs)


def touching(graph: Any, method: Method) -> Method:
    """The method for who takes a buffer for a constant unless it is written to: it writes the memory that it reads."""
    if method.keeps or not isinstance(graph, MemoryGraph):
        return method

    def call(*inputs: Tensor) -> Any:
        found = method.function(*inputs)
        graph.state.mul_(1)
        return found

    return replace(method, function=call)


START, STOP, ASKED, COUNT = (Port(name, "int64", ()) for name in ("start", "stop", "asked", "count"))
TIME, THRESHOLD = Port("t", "float32", ()), Port("threshold", "float32", ())


class BlockGraph(nn.Module):
    """Block by block: `denoise` looks, `commit` remembers, `logits` is for samplers that want them."""

    context: str
    max_length: int | None
    buckets: Sequence[int] = ()

    def __init__(self, denoiser: Any, block_size: int, banned: Sequence[int]) -> None:
        super().__init__()
        self.denoiser, self.block_size, self.banned = denoiser, block_size, banned
        self.timed = denoiser.ends.time is not None if hasattr(denoiser.ends, "time") else False
        self.block = Port("block", "int64", (1, block_size))

    def methods(self, depths: Sequence[int]) -> Iterator[Method]:
        time = (TIME,) if self.timed else ()
        seen = (self.block, Port("probability", "float32", self.block.shape))
        asks = (self.block, START, *time, ASKED, COUNT, THRESHOLD)
        for depth in (None, *depths):
            name = "denoise" if depth is None else f"denoise_{depth}"
            yield Method(name, partial(self.denoise, depth=depth), asks, seen)
        yield Method("commit", self.commit, (self.block, START), self.committed(), keeps=True)
        logits = Port("logits", "float32", (1, self.block_size, self.denoiser.spec.vocab_size))
        yield Method("logits", self.look, (self.block, START, *time), (logits,))

    def at(self, start: Tensor) -> Any:
        """The context of the text before column `start`."""
        raise NotImplementedError

    def committed(self) -> tuple[Port, ...]:
        return (START,)

    def look(self, block: Tensor, start: Tensor, *t: Tensor, depth: int | None = None) -> Tensor:
        logits, _ = self.denoiser(block, self.at(start), t=t[0].reshape(1) if t else None, depth=depth)
        return logits

    def denoise(self, block: Tensor, start: Tensor, *rest: Tensor, depth: int | None) -> tuple[Tensor, Tensor]:
        *t, asked, count, threshold = rest
        logits = self.look(block, start, *t, depth=depth)
        return reveal(logits, block, self.denoiser.spec.mask_id, self.banned, asked, count, threshold)

    def commit(self, block: Tensor, start: Tensor) -> Any:
        raise NotImplementedError

    def remember(self, block: Tensor, canvas: Tensor, start: Tensor, stop: Tensor) -> None:
        self.commit(block, start)


class MemoryGraph(BlockGraph):
    """EcoHybrid against its memory: one buffer (1, F) of all layers' tensors.

    What layers make of their memory (keys and values of bank and halo) is kept beside it: it is asked for at each step.
    That of no text is a constant of its own, for ExecuTorch gives a buffer that is written to no value to begin with.
    """

    context, max_length = "memory", None
    state: Tensor
    empty: Tensor

    def __init__(self, denoiser: Any, block_size: int, banned: Sequence[int]) -> None:
        super().__init__(denoiser, block_size, banned)
        if denoiser.spec.carries:
            raise UsageError("latent_self_cond=True carries slots from step to step, which a graph does not")
        empty = denoiser.begin("memory", 1, 0)
        with torch.no_grad():
            parts = self._parts(empty)
        self.shapes = [part.shape[1:] for part in parts]
        row = torch.cat([part.flatten() for part in parts])
        self.register_buffer("state", row[None].clone())
        self.register_buffer("empty", row[None])

    def _parts(self, context: MemoryContext) -> list[Tensor]:
        """Per layer bank, halo, and what `recall` makes of both; the last one may be the halo itself."""
        found = []
        for memory, recalled in zip(context.layers, context.recall(self.denoiser.layers), strict=True):
            found += [memory.bank, memory.halo, recalled.write, recalled.read]
            found += [] if recalled.halo is memory.halo else [recalled.halo]
        return found

    def at(self, start: Tensor) -> MemoryContext:
        row = torch.where(start > 0, self.state, self.empty)
        pieces = row.split([shape.numel() for shape in self.shapes], 1)
        parts = iter([piece.reshape(1, *shape) for piece, shape in zip(pieces, self.shapes, strict=True)])
        seen, layers, recalled = start.reshape(1), [], []
        for layer in self.denoiser.layers:
            bank, halo, write, read = (next(parts) for _ in range(4))
            real = torch.arange(halo.shape[1], 0, -1) <= seen[:, None]
            layers.append(LayerMemory(bank, halo))
            recalled.append(Recall(write, read, halo if layer.local.recall(halo) is halo else next(parts), real))
        context = MemoryContext(tuple(layers), seen)
        context.recalled.extend(recalled)
        return context

    def commit(self, block: Tensor, start: Tensor) -> Tensor:
        _, after = self.denoiser(block, self.at(start), rows=NONE)
        self.state[0] = torch.cat([part.flatten() for part in self._parts(after)])
        return start + self.block_size


class CacheGraph(BlockGraph):
    """Block-causal attention over a static cache: two buffers (1, H, T, E) a layer. `prefill` remembers many blocks."""

    context = "kv"

    def __init__(
        self, denoiser: Any, block_size: int, banned: Sequence[int], max_length: int, prefill: int = 0
    ) -> None:
        super().__init__(denoiser, block_size, banned)
        self.max_length, self.prefill = max_length, prefill
        kv_buffers(self, max_length)

    def methods(self, depths: Sequence[int]) -> Iterator[Method]:
        yield from super().methods(depths)
        if self.prefill:
            blocks = Port("block", "int64", (1, self.prefill))
            yield Method("prefill", self.commit, (blocks, START), self.committed(), keeps=True)

    def at(self, start: Tensor) -> FixedKV:
        return kv_cache(self, start)

    def committed(self) -> tuple[Port, ...]:
        logits = Port("opening", "float32", (1, self.denoiser.spec.vocab_size))
        return (START, logits) if self.denoiser.facts.shift.opens else (START,)

    def commit(self, block: Tensor, start: Tensor) -> Any:
        _, after = self.denoiser(block, self.at(start), rows=NONE)
        begun = start + block.shape[1]
        return begun if after.opening is None else (begun, after.opening.logits)


def kv_buffers(graph: Any, length: int) -> None:
    facts = graph.denoiser.facts
    for i in range(facts.spec.n_layers):
        for name in ("keys", "values"):
            graph.register_buffer(f"{name}_{i}", torch.zeros(1, facts.n_kv_heads, length, facts.head_dim))


def kv_cache(graph: Any, start: Tensor) -> FixedKV:
    layers = range(graph.denoiser.spec.n_layers)
    keys, values = (tuple(getattr(graph, f"{name}_{i}") for i in layers) for name in ("keys", "values"))
    return FixedKV.of(keys, values, start)
