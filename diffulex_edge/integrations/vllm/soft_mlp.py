"""A gated feed-forward cut into blocks of channels, of which each token runs its first few.

The channels are sorted by importance offline (prepare.py), so that the first blocks are those that matter most. Every
block is packed once with the matrix kernel that vLLM itself would have taken for the whole; nothing is held twice.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.errors import UsageError

SORTED = 16  # tokens; below them a block runs for all tokens if one wants it, and counts only for those that do
OP = "sedac_soft_mlp"


class SoftMLP(nn.Module):
    """The sum over a token's first blocks of W_down,b (silu(W_gate,b x) * W_up,b x), `n_blocks` of them in all."""

    def __init__(self, name: str, n_blocks: int) -> None:
        super().__init__()
        self.name, self.n_blocks = name, n_blocks
        self.gate_up: list[Any] = []  # n_blocks x (2 K / n_blocks, D), packed
        self.down: list[Any] = []  # n_blocks x (D, K / n_blocks), packed
        self.ran = self.offered = 0  # blocks times tokens: what was computed, and what a whole feed-forward would have

    def pack(self, gate_up: Tensor, down: Tensor) -> None:
        """Cuts and packs the weights gate over up (2 K, D) and down (D, K)."""
        gates, ups = (half.chunk(self.n_blocks) for half in gate_up.chunk(2))
        self.gate_up = [_packed(torch.cat(pair)) for pair in zip(gates, ups, strict=True)]
        self.down = [_packed(part.contiguous()) for part in down.chunk(self.n_blocks, dim=1)]

    def forward(self, x: Tensor, blocks: Tensor) -> Tensor:
        """x (n, D) through the first `blocks` (n,) blocks, int32, each from 0 to n_blocks."""
        found: Tensor = getattr(torch.ops.vllm, OP)(x, blocks, self.name)
        return found

    def run(self, x: Tensor, blocks: Tensor) -> Tensor:
        """What `forward` does, outside of any graph: how many blocks run depends on the numbers in `blocks`."""
        if not self.down:
            raise UsageError(
                "SEDAC packs its weights while vLLM loads them: load_format='dummy' and the like load none"
            )
        fewest, most = (int(n) for n in blocks.aminmax())
        self.offered += self.n_blocks * len(blocks)
        if fewest == most:
            self.ran += most * len(blocks)
            return self._sum(x, [len(blocks)] * most)
        wanting = [int(n) for n in (blocks > torch.arange(most, dtype=blocks.dtype)[:, None]).sum(1)]
        self.ran += sum(wanting)
        if len(blocks) < SORTED:
            return self._masked(x, blocks, most)
        order = blocks.argsort(descending=True, stable=True)
        return torch.empty_like(x).index_copy_(0, order, self._sum(x[order], wanting))

    def _sum(self, x: Tensor, wanting: list[int]) -> Tensor:
        """Block i for the first wanting[i] tokens, which never grow."""
        if wanting[:1] != [len(x)]:
            total = torch.zeros_like(x)
        else:
            total, wanting = self._block(0, x), [0, *wanting[1:]]
        for i, n in enumerate(wanting):
            if n:
                total[:n] += self._block(i, x[:n])
        return total

    def _masked(self, x: Tensor, blocks: Tensor, most: int) -> Tensor:
        total = torch.zeros_like(x)
        for i in range(most):
            total += self._block(i, x) * (blocks > i)[:, None]
        return total

    def _block(self, i: int, x: Tensor) -> Tensor:
        gate, up = self.gate_up[i](x).chunk(2, -1)
        found: Tensor = self.down[i](nn.functional.silu(gate) * up)
        return found


def _packed(weight: Tensor) -> Any:
    """x -> x W^T by the kernel that vLLM chooses for a linear layer of this shape on this CPU."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    layer: Any = nn.Module()
    layer.weight = nn.Parameter(weight, requires_grad=False)
    dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    return lambda x: layer.cpu_linear(x, layer.weight, None)


@cache
def define_op() -> None:
    """Makes `torch.ops.vllm.sedac_soft_mlp`: opaque to torch.compile, so that its branch needs no enforce_eager."""
    from vllm.forward_context import get_forward_context
    from vllm.utils.torch_utils import direct_register_custom_op

    def soft_mlp(x: Tensor, blocks: Tensor, name: str) -> Tensor:
        found: Tensor = get_forward_context().no_compile_layers[name].run(x, blocks)
        return found

    def fake(x: Tensor, blocks: Tensor, name: str) -> Tensor:
        return torch.empty_like(x)

    soft_mlp.__annotations__ = fake.__annotations__ = {"x": Tensor, "blocks": Tensor, "name": str, "return": Tensor}
    direct_register_custom_op(op_name=OP, op_func=soft_mlp, fake_impl=fake)
