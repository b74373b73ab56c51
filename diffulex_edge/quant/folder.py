"""A quantised model as a folder: a checkpoint for use alone, whose config.json also says the scheme.

Of a layer: NAME.codes (4 bits: two a byte), NAME.scale, and with static ranges NAME.before and NAME.after: scale, zero.
What is not quantised lies there under its own name. Nothing is stored twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import read_json
from diffulex_edge.model import checkpoint, sampling
from diffulex_edge.model.families import FAMILIES, build
from diffulex_edge.quant.calibration import Rounding, linears, round_around, rounds_inputs
from diffulex_edge.quant.embedding import QuantizedEmbedding, pack, unpack
from diffulex_edge.quant.observers import HIGH, LOW, Range
from diffulex_edge.quant.schemes import Scheme, find_scheme
from diffulex_edge.quant.weights import BY_TOKEN, assembled, bits_of, need_torchao

BESIDE = (  # copied
    *("*.model", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", sampling.NAME),
    *("LICENSE*", "CREDITS*"),
)
KEY, WEIGHTS, EMBEDDING = "quantization", "model.safetensors", "ends.tokens"


def is_quantized_folder(folder: Path) -> bool:
    """Whether config.json names a scheme."""
    values = read_json(folder / "config.json")
    return isinstance(values, dict) and KEY in values


def write_quantized(folder: Path, model: Any, scheme: Scheme, source: Path, fingerprint: str) -> int:
    """Writes a quantised model whole or not at all; gives the bytes of its weights.

    source: the folder of the model that it was made from, whose tokenizer, of that fingerprint, and licences go along.
    Raises UsageError for a model of no family of ours.
    """
    stored = dict(_pieces(model))
    kept = [n for n, layer in linears(model).items() if not rounds_inputs(layer)] if scheme.activation_bits else []
    told = {"scheme": scheme.name, "embedding_bits": scheme.embedding_bits, "group": scheme.group, "weights_only": kept}
    config = checkpoint.model_config(_model_type(model), model.config, fingerprint) | {KEY: told}
    writers: dict[str, Callable[[Path], None]] = {
        WEIGHTS: checkpoint.tensors(stored),
        "config.json": checkpoint.document(config),
        **{path.name: checkpoint.copy_of(path) for pattern in BESIDE for path in sorted(source.glob(pattern))},
    }
    checkpoint.write(folder, writers)
    return sum(value.nbytes for value in stored.values())


def _model_type(model: Any) -> str:
    names = [name for name, (_, kind, _) in FAMILIES.items() if kind == type(model).__name__]
    if not names:
        raise UsageError(f"{type(model).__name__} is not of a family that can be written: {', '.join(FAMILIES)}")
    return names[0]


def _pieces(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, value in model.named_parameters():
        if type(value) is nn.Parameter:
            yield name, value
    for name, module in model.named_modules():
        if isinstance(module, QuantizedEmbedding):
            yield from ((f"{name}.codes", module.codes), (f"{name}.scale", module.scale))
        elif isinstance(module, nn.Linear) and type(module.weight) is not nn.Parameter:
            weight: Any = module.weight
            codes = pack(weight.qdata) if bits_of(weight) == 4 else weight.qdata
            yield from ((f"{name}.codes", codes), (f"{name}.scale", weight.scale))
        elif isinstance(module, Rounding):
            yield name, torch.tensor([module.range.scale, module.range.zero], dtype=torch.float64)


def read_quantized(folder: Path) -> Any:
    """The model of a verified folder. Raises ArtefactError, naming the file and what in it does not fit."""
    source = folder / WEIGHTS
    model_type, config, _ = checkpoint.read_config(folder)
    scheme, kept = _scheme(folder / "config.json")
    values = checkpoint.read_tensors(source)
    if scheme.cast:
        model = build(model_type, config).to(getattr(torch, scheme.cast))
        checkpoint.place(model, values, source)
        return model.eval().requires_grad_(False)
    need_torchao()
    with torch.device("meta"):
        model = build(model_type, config)
    if any(True for _ in model.buffers()):  # computed as it is built, and in no file
        model = build(model_type, config)
    model.ends.untie()
    try:
        _fill(model, values, scheme, kept)
    except KeyError as error:
        raise ArtefactError(f"{source}: tensor {error.args[0]} is missing") from None
    except UsageError as error:
        raise ArtefactError(f"{source}: {error}") from None
    if values:
        raise ArtefactError(f"{source}: {len(values)} tensors do not fit the model: {', '.join(sorted(values)[:4])}")
    return model.eval().requires_grad_(False)


def _scheme(source: Path) -> tuple[Scheme, set[str]]:
    """What config.json says of the scheme, and the layers whose activations are not quantised."""
    told = read_json(source)[KEY]
    try:
        bits = told["embedding_bits"]
        scheme = find_scheme(told["scheme"], None if told["scheme"] in ("bf16", "fp16") else bits, told["group"])
        return scheme, set(told["weights_only"])
    except (KeyError, TypeError, UsageError) as error:
        raise ArtefactError(f"{source}: {KEY} is not a scheme: {error}") from None


def _fill(model: Any, values: dict[str, Tensor], scheme: Scheme, kept: set[str]) -> None:
    """Takes every tensor out of `values` and into its place."""
    if scheme.embedding_bits < 16:
        tokens = model.ends.tokens
        shape = (tokens.num_embeddings, tokens.embedding_dim)
        model.ends.tokens = QuantizedEmbedding(*_coded(values, EMBEDDING, shape, scheme.embedding_bits))
    for name, layer in linears(model).items():
        codes, scale = _coded(values, name, (layer.out_features, layer.in_features), scheme.weight_bits)
        codes = unpack(codes).to(torch.int8) if scheme.weight_bits == 4 else codes
        by_token = scheme.activation_bits and not scheme.calibrated and name not in kept
        layer.weight = assembled(codes, scale, bits=scheme.weight_bits, activations=BY_TOKEN if by_token else None)
        if scheme.calibrated and name not in kept:
            round_around(layer, _range(values, f"{name}.before"), _range(values, f"{name}.after"))
    placed: dict[int, nn.Parameter] = {}
    for name, parameter in [*model.named_parameters(remove_duplicate=False)]:
        if type(parameter) is not nn.Parameter:
            continue
        if id(parameter) not in placed:
            value = values.pop(name)
            if value.shape != parameter.shape or not value.is_floating_point():
                raise UsageError(f"{name} is {value.dtype} {tuple(value.shape)}, not {tuple(parameter.shape)}")
            placed[id(parameter)] = nn.Parameter(value, requires_grad=False)
        home, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(home), leaf, placed[id(parameter)])


def _coded(values: dict[str, Tensor], name: str, shape: tuple[int, int], bits: int) -> tuple[Tensor, Tensor]:
    """Codes and scales of a matrix of that shape, checked."""
    codes, scale = values.pop(f"{name}.codes"), values.pop(f"{name}.scale")
    height, width = shape
    dtype, wanted = (torch.uint8, (height, width // 2)) if bits == 4 else (torch.int8, shape)
    if codes.dtype != dtype or tuple(codes.shape) != wanted:
        raise UsageError(f"{name}.codes is {codes.dtype} {tuple(codes.shape)}, not {dtype} {wanted}")
    if scale.ndim != 2 or len(scale) != height or not scale.shape[1] or width % scale.shape[1]:
        raise UsageError(f"{name}.scale is {tuple(scale.shape)}, which does not divide {shape}")
    if not scale.is_floating_point():
        raise UsageError(f"{name}.scale is {scale.dtype}, not a floating type")
    return codes, scale


def _range(values: dict[str, Tensor], name: str) -> Range:
    pair = values.pop(name).flatten().tolist()
    if len(pair) != 2 or not 0 < pair[0] < float("inf") or not LOW <= pair[1] <= HIGH:
        raise UsageError(f"{name} is {pair}, not a scale above 0 and a zero from {LOW} to {HIGH}")
    return Range(pair[0], int(pair[1]))
