"""What `Scheme.delegates` says: XNNPACK computes these layers, and gets the numbers of the eager quantised model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffulex_edge.model.layers import Ends, SwiGLU
from diffulex_edge.quant import SCHEMES, calibrating, find_scheme, quantize

pytestmark = [pytest.mark.export, pytest.mark.filterwarnings("ignore")]
IDS = torch.randint(0, 96, (1, 16), generator=torch.Generator().manual_seed(0))
NUMERIC = {"linear", "addmm", "mm", "quantize", "dequantize", "choose"}  # of operators that must not be left over


class Small(nn.Module):
    """Both ends and a feed-forward: every kind of layer that a scheme touches."""

    def __init__(self) -> None:
        super().__init__()
        self.ends, self.ff = Ends(96, 64, None), SwiGLU(64, 128)
        generator = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator) * 0.2 + (p.ndim == 1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.ends.embed(ids, None)
        return self.ends.logits(x + self.ff(x), None)


def _ran(model: nn.Module) -> tuple[list[str], Tensor]:
    """The operators that XNNPACK left over, and what the program computes."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    exported = torch.export.export(model, (IDS,), strict=False)
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    left = [str(node.target) for node in edge.exported_program().graph.nodes if node.op == "call_function"]
    data = edge.to_executorch().buffer  # it and the program must outlive the method, which reads their memory
    program = Runtime.get().load_program(data)
    method: Any = program.load_method("forward")
    return left, method.execute([IDS])[0].clone()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if scheme.delegates])
def test_what_delegates_equals_eager_and_leaves_no_product_behind(name: str, bits: int) -> None:
    model = Small().eval().requires_grad_(False)
    with calibrating(model) as seen:
        model(IDS)
    made = quantize(model, find_scheme(name, embedding_bits=bits), seen)
    left, found = _ran(made)
    want = made(IDS)
    assert not [target for target in left if any(word in target for word in NUMERIC)]
    assert any("delegate" in target for target in left)
    error = float((found - want).norm() / want.norm())
    assert error < (5e-3 if SCHEMES[name].calibrated else 1e-5)  # a sum that is a tie rounds to either side
    assert float((want - model(IDS)).norm()) > 10 * float((found - want).norm())
