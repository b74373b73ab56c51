"""What a published folder of a family looks like: the names of its tensors, and the fields of its config.json.

A field that would change the mathematics and that we do not know is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from diffulex_edge.errors import ArtefactError
from diffulex_edge.model.llama import LlamaSizes


@dataclass(frozen=True, kw_only=True)
class TensorNames:
    """How a family calls the tensors of the network, without `.weight` or `.bias`; {i} stands for the layer."""

    embed: str = "model.embed_tokens"
    norm: str = "model.norm"
    head: str = "lm_head"
    q: str = "model.layers.{i}.self_attn.q_proj"
    k: str = "model.layers.{i}.self_attn.k_proj"
    v: str = "model.layers.{i}.self_attn.v_proj"
    out: str = "model.layers.{i}.self_attn.o_proj"
    gate: str = "model.layers.{i}.mlp.gate_proj"
    up: str = "model.layers.{i}.mlp.up_proj"
    down: str = "model.layers.{i}.mlp.down_proj"
    attn_norm: str = "model.layers.{i}.input_layernorm"
    ff_norm: str = "model.layers.{i}.post_attention_layernorm"
    q_norm: str = "model.layers.{i}.self_attn.q_norm"
    k_norm: str = "model.layers.{i}.self_attn.k_norm"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A family's folders as their makers publish them. The defaults are those of the Qwen line."""

    names: TensorNames = TensorNames()
    only: Mapping[str, tuple[Any, ...]]  # field -> values under which the network is ours
    ignored: frozenset[str] = frozenset()  # fields without influence on the logits
    needed: frozenset[str] = frozenset(  # fields without which the network would be a guess
        {
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "intermediate_size",
            "rms_norm_eps",
            "rope_theta",
        }
    )
    code: frozenset[str] = frozenset()  # the family's own classes, as auto_map names them; never run


class Place(NamedTuple):
    """Where a published tensor belongs: rows `start` to `start + n` of one of our parameters."""

    parameter: str
    start: int
    n: int


# Fields that the transformers library writes into every config.json, and that decoding does not hang on.
COMMON = frozenset(
    [
        "architectures",
        "auto_map",
        "model_type",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "use_cache",
        "initializer_range",
        "bos_token_id",
        "pad_token_id",
        "attention_dropout",
        "_name_or_path",
        "_attn_implementation",
        "attn_implementation",
        "sliding_window",
        "max_window_layers",
        "rope_parameters",
        "chunk_size_feed_forward",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "problem_type",
        "id2label",
        "label2id",
        "is_encoder_decoder",
    ]
)
PLAIN = {  # field -> the only values under which the network is the plain one
    "hidden_act": ("silu",),
    "rope_scaling": (None,),
    "use_sliding_window": (False,),
    "layer_types": ("full_attention",),
}


def read_fields(kind: Any, published: Published, values: Mapping[str, Any], source: str) -> Any:
    """A family's config out of config.json. Raises ArtefactError naming the field that is not ours, and its value."""
    _refuse_foreign_code(values, published, source)
    known = {field.name for field in fields(kind)}
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    found.update(_rope(values, source))
    for name, value in found.items():
        allowed = {**PLAIN, **published.only}.get(name)
        if allowed is not None:
            if not all(each in allowed for each in (value if isinstance(value, tuple) else (value,))):
                raise ArtefactError(f"{source}: {name}={value!r} makes another network; known is {allowed[0]!r}")
        elif name not in known | COMMON | published.ignored:
            raise ArtefactError(f"{source}: the field {name}={value!r} is not known, and may change the network")
    given = {name: value for name, value in found.items() if name in known and value is not None}
    missing = sorted(published.needed - set(given))
    if missing:
        raise ArtefactError(f"{source}: the field {missing[0]} is missing")
    types = get_type_hints(kind)
    for name, value in given.items():
        if not _fits(value, types[name]):
            raise ArtefactError(f"{source}: {name}={value!r} is not of type {types[name]}")
    return kind(**given)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value out of JSON is one of the types of a field; a whole number may stand for a float."""
    parts = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    for part in parts:
        if get_origin(part) is tuple:
            fits = isinstance(value, tuple) and all(_fits(each, get_args(part)[0]) for each in value)
        else:
            fits = isinstance(value, (int, float) if part is float else part) and isinstance(value, bool) == (
                part is bool
            )
        if fits:
            return True
    return False


def _refuse_foreign_code(values: Mapping[str, Any], published: Published, source: str) -> None:
    named = values.get("auto_map") or {}
    if not isinstance(named, dict):
        raise ArtefactError(f"{source}: auto_map={named!r} is not an object")
    for classes in named.values():
        for each in classes if isinstance(classes, list) else [classes]:
            if each is not None and each not in published.code:
                raise ArtefactError(f"{source}: auto_map wants the code {each!r}, which is never run here")


def _rope(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """rope_theta out of `rope_parameters`, as newer files write it."""
    rope = values.get("rope_parameters")
    if not rope:
        return {}
    if not isinstance(rope, dict) or set(rope) - {"rope_type", "rope_theta"} or rope.get("rope_type") != "default":
        raise ArtefactError(f"{source}: rope_parameters={rope!r} are not those of plain rotary positions")
    return {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}


def places(sizes: LlamaSizes, names: TensorNames) -> dict[str, Place]:
    """Every tensor that a published folder holds, by its name there."""
    found = {
        f"{names.embed}.weight": Place("ends.tokens.weight", 0, sizes.vocab_size),
        f"{names.norm}.weight": Place("ends.norm.weight", 0, sizes.width),
    }
    if not sizes.tied:
        found[f"{names.head}.weight"] = Place("ends.head.weight", 0, sizes.vocab_size)
    for i in range(sizes.n_layers):
        for name, place in _layer(sizes, names):
            found[name.format(i=i)] = place._replace(parameter=f"layers.{i}.{place.parameter}")
    return found


def _layer(sizes: LlamaSizes, names: TensorNames) -> Iterator[tuple[str, Place]]:
    q, kv = sizes.n_heads * sizes.head_dim, sizes.n_kv_heads * sizes.head_dim
    for kind in ("weight", "bias") if sizes.qkv_bias else ("weight",):
        yield f"{names.q}.{kind}", Place(f"qkv.{kind}", 0, q)
        yield f"{names.k}.{kind}", Place(f"qkv.{kind}", q, kv)
        yield f"{names.v}.{kind}", Place(f"qkv.{kind}", q + kv, kv)
    yield f"{names.out}.weight", Place("out.weight", 0, sizes.width)
    yield f"{names.gate}.weight", Place("ff.gate_up.weight", 0, sizes.d_ff)
    yield f"{names.up}.weight", Place("ff.gate_up.weight", sizes.d_ff, sizes.d_ff)
    yield f"{names.down}.weight", Place("ff.down.weight", 0, sizes.width)
    yield f"{names.attn_norm}.weight", Place("attn_norm.weight", 0, sizes.width)
    yield f"{names.ff_norm}.weight", Place("ff_norm.weight", 0, sizes.width)
    if sizes.head_norms:
        yield f"{names.q_norm}.weight", Place("q_norm.weight", 0, sizes.head_dim)
        yield f"{names.k_norm}.weight", Place("k_norm.weight", 0, sizes.head_dim)
