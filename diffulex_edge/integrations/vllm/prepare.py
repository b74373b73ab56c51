"""Makes a model fit for soft exits: sorts its channels, trains its risk probes, and says how good they are.

    python -m diffulex_edge.integrations.vllm.prepare --model FOLDER --output FOLDER --texts FILE --layers 7 14 21

Sorting changes nothing that the model computes but the order of its sums. The probe of a layer is a logistic
regression on the residual stream behind it; what it foretells is that the next token would be another one if the
layers ended there. Needs transformers, which comes with vLLM.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from diffulex_edge.errors import DiffulexEdgeError, UsageError
from diffulex_edge.files import write_atomic
from diffulex_edge.integrations.vllm.probes import Probe, write_probes
from diffulex_edge.integrations.vllm.settings import SedacSettings
from diffulex_edge.sedac.probe import auroc

UP, DOWN = ("gate_proj", "up_proj"), "down_proj"


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What to prepare, and from what text."""

    model: Path  # folder of a Qwen2 or Llama with safetensors weights
    output: Path  # folder to write; must not be there yet
    texts: Path  # a text file, one document a line; every fifth is kept to judge the probes by
    layers: tuple[int, ...]  # checkpoint layers, from 0
    window: int = 256  # tokens of a document that are read, at most


def prepare(said: Preparation) -> dict[str, Any]:
    """Writes `output`; returns, by layer, AUROC of the probe and of the logit lens, and a threshold to begin with."""
    if said.output.exists():
        raise UsageError(f"{said.output}: is there already")
    documents = [line for line in said.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(documents) < 10:
        raise UsageError(f"{said.texts}: {len(documents)} documents; probes need at least 10, one a line")
    weights, seen = look(said, documents)
    probes, report = {}, {}
    for layer, (states, lens, changed) in seen.items():
        probes[layer], report[layer] = _train(states, lens, changed)
    sort_channels(said.model, said.output, weights)
    write_probes(said.output / SedacSettings.probes, probes, said.output)
    return {"output": str(said.output), "layers": report}


Seen = dict[int, tuple[list[Tensor], list[Tensor], list[Tensor]]]  # layer -> a document's (n, D), (n,), (n,) each


@torch.inference_mode()
def look(said: Preparation, documents: Sequence[str]) -> tuple[dict[int, Tensor], Seen]:
    """Reads the documents with the whole model: channels' importance (K,) by layer, and what the probes learn from.

    Importance is mean |activation| times the norm of the channel's column of W_down (Wanda, arXiv:2306.11695, summed).
    """
    model, tokenizer = _open(said.model)
    inner, sums = model.model, dict.fromkeys(range(model.config.num_hidden_layers), torch.zeros(()))
    if wrong := [i for i in said.layers if not 0 <= i < len(sums) - 1]:
        raise UsageError(f"layers {wrong} must be from 0 to {len(sums) - 2}, before the last of {len(sums)}")

    def watch(i: int) -> Any:
        return lambda module, given: sums.__setitem__(i, sums[i] + given[0].abs().double().flatten(0, -2).sum(0))

    hooks = [layer.mlp.down_proj.register_forward_pre_hook(watch(i)) for i, layer in enumerate(inner.layers)]
    seen: Seen = {i: ([], [], []) for i in said.layers}
    for document in documents:
        ids = torch.tensor([tokenizer(document)["input_ids"][: said.window]])
        if not ids.numel():
            raise UsageError(f"{said.texts}: a document without tokens: {document[:40]!r}")
        out = model(ids, output_hidden_states=True, use_cache=False)
        last = out.logits[0].argmax(-1)
        for i, (states, lens, changed) in seen.items():
            state = out.hidden_states[i + 1][0]
            early = model.lm_head(inner.norm(state))
            states.append(state)
            lens.append(1 - early.softmax(-1).amax(-1))
            changed.append(early.argmax(-1) != last)
    for hook in hooks:
        hook.remove()
    columns = (layer.mlp.down_proj.weight.double().norm(dim=0) for layer in inner.layers)
    return {i: sums[i] * norm for i, norm in enumerate(columns)}, seen


def _open(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def sort_channels(model: Path, output: Path, weights: Mapping[int, Tensor]) -> None:
    """Writes the model with each layer's feed-forward channels in the order of `weights` (K,), the largest first."""
    orders = {f".{i}.mlp.": w.argsort(descending=True, stable=True) for i, w in weights.items()}
    for path in sorted(p for p in model.iterdir() if p.is_file() and p.suffix != ".safetensors"):
        output.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, output / path.name)
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors = {name: _sorted(name, file.get_tensor(name), orders) for name in file.keys()}  # noqa: SIM118
            write_atomic(output / path.name, save(tensors, file.metadata()))


def _sorted(name: str, tensor: Tensor, orders: Mapping[str, Tensor]) -> Tensor:
    order = next((order for place, order in orders.items() if place in name), None)
    if order is None:
        return tensor
    return tensor[:, order].contiguous() if DOWN in name else tensor[order] if any(up in name for up in UP) else tensor


def _train(states: list[Tensor], lens: list[Tensor], changed: list[Tensor]) -> tuple[Probe, dict[str, float]]:
    """A logistic regression on four documents of five, judged by the fifth."""
    held = [n % 5 == 4 for n in range(len(states))]
    x, y = _join(states, held, False), _join(changed, held, False).float()
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x = ((x - mean) / scale).clone()
    w, b = torch.zeros(x.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([w, b], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ w + b, y) + 1e-3 * w.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    weight = (w / scale).detach()
    probe = Probe(weight, b.detach() - mean @ weight)
    risk, truth = _join(states, held, True) @ probe.weight + probe.bias, _join(changed, held, True)
    report = {
        "auroc_probe": auroc(risk, truth),
        "auroc_logit_lens": auroc(_join(lens, held, True), truth),
        "changed": float(truth.float().mean()),
        "initial_threshold": float(risk.sigmoid().median()),
    }
    return probe, report


def _join(parts: list[Tensor], held: list[bool], which: bool) -> Tensor:
    return torch.cat([part for part, is_held in zip(parts, held, strict=True) if is_held is which])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    import tyro

    try:
        found = prepare(tyro.cli(Preparation, args=arguments, description=__doc__))
    except (DiffulexEdgeError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 3)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
