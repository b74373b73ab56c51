"""What a scheme is: how many bits weights, activations and the embedding have. It knows no model and no tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffulex_edge.errors import UsageError

GROUP = 32  # a group's length is a multiple of it: what the kernels for 4 bits take
EMBEDDING_BITS = (4, 8, 32)  # 32: it stays as it is


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Weights are symmetric about zero, a scale a row or a group. Activations are not, a scale and a zero a token."""

    name: str
    weight_bits: int
    activation_bits: int | None = None  # of what goes into a layer; None: it is not quantised
    calibrated: bool = False  # activations have one range a layer, seen before, that of its output as well
    group: int | None = None  # neighbouring weights of a row that share a scale, in bf16; None: the whole row, in fp32
    embedding_bits: int = 32  # of the token embedding; the head has the weights' bits
    cast: str | None = None  # the floating type that everything has instead
    delegates: bool = False  # XNNPACK computes it, and gets the eager model's numbers

    def __post_init__(self) -> None:
        if self.embedding_bits not in EMBEDDING_BITS:
            known = ", ".join(map(str, EMBEDDING_BITS))
            raise UsageError(f"embedding_bits={self.embedding_bits} is not one of {known}")
        if self.group is not None and (self.group < GROUP or self.group % GROUP):
            raise UsageError(f"group={self.group} is not a multiple of {GROUP}")


_ALL = (
    Scheme(name="dynamic_int8", weight_bits=8, activation_bits=8, embedding_bits=8, delegates=True),
    Scheme(name="static_int8", weight_bits=8, activation_bits=8, calibrated=True, embedding_bits=8, delegates=True),
    Scheme(name="weight_only_int8", weight_bits=8, embedding_bits=8),
    Scheme(name="weight_only_int4", weight_bits=4, group=GROUP, embedding_bits=8),
    Scheme(name="dynamic_int4", weight_bits=4, activation_bits=8, group=GROUP, embedding_bits=8, delegates=True),
    Scheme(name="bf16", weight_bits=16, cast="bfloat16"),
    Scheme(name="fp16", weight_bits=16, cast="float16"),
)
SCHEMES = {scheme.name: scheme for scheme in _ALL}


def find_scheme(name: str, embedding_bits: int | None = None, group: int | None = None) -> Scheme:
    """The scheme of that name, with another number of bits for the embedding (4, 8, 32) or another group if given.

    Raises UsageError naming the value and what is known: also for a group where a row has one scale.
    """
    if name not in SCHEMES:
        raise UsageError(f"quantisation {name!r} is not one of {', '.join(SCHEMES)}")
    scheme = SCHEMES[name]
    if group is not None and scheme.group is None:
        grouped = ", ".join(each.name for each in _ALL if each.group)
        raise UsageError(f"{group=}: {name} has one scale a row; groups are of {grouped}")
    if embedding_bits is not None and scheme.cast:
        raise UsageError(f"{embedding_bits=}: {name} casts the embedding like all else")
    bits = scheme.embedding_bits if embedding_bits is None else embedding_bits
    return replace(scheme, embedding_bits=bits, group=group or scheme.group)
