"""A traced method rounded by its backend's own quantiser (PT2E), with the ranges that texts were seen to need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.export.graph import Method

NOTHING = -64.0  # in place of -inf, which has no range: nothing is left of it in a softmax
SHARES = (0.25, 0.5, 0.75, 1.0)  # of a block's tokens that are hidden, in turn


def rounded(program: Any, graph: Any, method: Method, quantizer: Any, texts: Sequence[Sequence[int]]) -> Any:
    """The exported program, rounded. Runs it over each text (ids), block by block, with what the graph remembers of it.

    Raises UsageError where no text has two blocks: a first block alone says nothing of what is remembered.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    lengths = {port.name: port.shape[-1] for port in method.inputs if port.shape}
    size, width = lengths.get("block", graph.block_size), lengths.get("canvas", graph.max_length)
    prepared, seen = prepare_pt2e(_bounded(program.module()), quantizer), 0
    with torch.no_grad():
        for text in texts:
            for values in _walk(graph, text, size, width):
                _remember(prepared, graph)
                prepared(*(values[port.name] for port in method.inputs))
                seen += 1
    if seen < 2:
        raise UsageError(f"{len(texts)} calibration texts of two blocks ({size} tokens each) at least: none is")
    examples = tuple(port.example() for port in method.inputs)
    with torch.no_grad():
        return torch.export.export(convert_pt2e(prepared), examples, strict=False)


def _bounded(module: Any) -> Any:
    """With NOTHING where the graph says -inf: what attention does not see, and ids that are never shown."""
    for node in module.graph.nodes:
        node.args = tuple(NOTHING if arg == float("-inf") else arg for arg in node.args)
    module.recompile()
    return module


def _walk(graph: Any, text: Sequence[int], size: int, width: int | None) -> Iterator[dict[str, Tensor]]:
    """Inputs of any method at each block of a text, of which the graph then remembers the clean block.

    size, width: tokens of the method's block and of its canvas, or of the longest text.
    """
    mask_id = graph.denoiser.spec.mask_id
    length = min(len(text), width or len(text)) // size * size
    ids, chance = torch.tensor(text[:length]), torch.Generator().manual_seed(0)
    for i, start in enumerate(range(0, length if length > size else 0, size)):
        clean = ids[start : start + size]
        hidden = torch.rand(size, generator=chance) < SHARES[i % len(SHARES)]
        block = clean.masked_fill(hidden, mask_id)
        whole = torch.full((width or length,), mask_id)
        whole[: start + size] = torch.cat((ids[:start], block))
        values = {
            "block": block[None],
            "canvas": whole[None],
            "start": start,
            "stop": length,
            "asked": size,
            "count": 1,
        }
        inputs = {name: torch.as_tensor(value) for name, value in values.items()}
        yield {**inputs, "threshold": torch.tensor(2.0), "t": torch.tensor(float(hidden.float().mean()))}
        graph.remember(clean[None], whole[None], torch.tensor(start), torch.tensor(length))


def _remember(prepared: Any, graph: Any) -> None:
    """Gives the traced method the graph's buffers, by their names."""
    known = {f"state.{name}": value for name, value in graph.named_buffers(recurse=False)}
    for name, buffer in prepared.named_buffers():
        if name in known:
            buffer.copy_(known[name])
