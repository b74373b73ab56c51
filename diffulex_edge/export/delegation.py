"""Whether the backend took what it should. What it leaves out is slow and cuts the graph up, so it is never silent."""

from __future__ import annotations

from typing import Any

from diffulex_edge.errors import UsageError

# Operators, in ExecuTorch's names, that may stay outside of a backend: looking ids up, what is made of the column at
# which the block begins (which keys are seen, which rotary angles), what writes to a buffer, and the reveal.
OUTSIDE = frozenset(
    [
        *(
            "embedding",
            "index_select",
            "index",
            "index_put",
            "copy",
            "select_copy",
            "select_scatter",
            "cat",
            "slice_copy",
        ),
        *("arange", "full", "scalar_tensor", "where", "lt", "le", "gt", "ge", "eq", "logical_not", "logical_and"),
        *(
            "bitwise_and",
            "bitwise_or",
            "bitwise_not",
            "add",
            "sub",
            "mul",
            "clamp",
            "minimum",
            "maximum",
            "floor_divide",
        ),
        *("view_copy", "unsqueeze_copy", "squeeze_copy", "expand_copy", "alias_copy", "unfold_copy", "constant_pad_nd"),
        *("_to_dim_order_copy", "argmax", "gather", "sum", "cos", "sin", "getitem", "embedding_byte"),
    ]
)


def outside(program: Any) -> dict[str, int]:
    """The operators of a lowered method that the backend did not take, and how often each occurs."""
    from executorch.devtools.backend_debug import get_delegation_info

    info = get_delegation_info(program.graph_module)
    counts: dict[str, int] = {}
    for name, counted in info.delegation_by_operator.items():
        if counted.non_delegated:
            plain = _plain(name)
            counts[plain] = counts.get(plain, 0) + counted.non_delegated
    return counts


def check(method: str, counts: dict[str, int], backend: str, allowed: frozenset[str]) -> None:
    """Raises UsageError naming what stayed outside of the backend and is not allowed to."""
    wrong = sorted(set(counts) - OUTSIDE - allowed)
    if wrong:
        named = ", ".join(f"{counts[name]} x {name}" for name in wrong)
        raise UsageError(f"{backend} does not take all of {method!r}: {named} would stay outside of it")


def _plain(name: str) -> str:
    """aten_le_tensor -> le: without library and overload."""
    for prefix in ("aten_", "dim_order_ops_", "quantized_decomposed_"):
        name = name.removeprefix(prefix)
    known = [each for each in OUTSIDE if name == each or name.startswith(f"{each}_")]
    return max(known, key=len, default=name)
