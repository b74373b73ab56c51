"""All kernels decide alike: exactly on the layers of exits, boundaries included, and to 1e-6 on ratios."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from diffulex_edge.doctor import findings
from diffulex_edge.sedac import NO_EXIT, SEED_LAYERS, CascadeController, ExitDecisions, LayerConfig, native
from diffulex_edge.sedac.kernel import NumpyKernel
from diffulex_edge.sedac.tensors import begin, step, tensor_layers

GOLDEN = Path(__file__).parent / "golden" / "sedac.json"
Decide = Callable[[Any], ExitDecisions]


def by_numpy(risk: Any) -> ExitDecisions:
    return CascadeController(SEED_LAYERS, kernel=NumpyKernel).evaluate_batch(risk)


def by_rust(risk: Any) -> ExitDecisions:
    return CascadeController(SEED_LAYERS, kernel=native.RustKernel).evaluate_batch(risk)


def by_steps(risk: Any) -> ExitDecisions:
    state = CascadeController(SEED_LAYERS).start(len(risk))
    for config, column in zip(SEED_LAYERS, np.asarray(risk, np.float32).T, strict=True):
        state.observe(config.layer_idx, column)
    return state.decisions()


def by_torch(risk: Any) -> ExitDecisions:
    """tensors.py, as a model's layers use it."""
    columns = torch.as_tensor(np.asarray(risk, np.float32)).T.contiguous()
    state, exit_layer = begin(columns[0]), torch.full_like(columns[0], NO_EXIT, dtype=torch.int32)
    for (layer, numbers), column in zip(tensor_layers(CascadeController(SEED_LAYERS)).items(), columns, strict=True):
        before, state = state.exited, step(state.confidence, state.exited, column, numbers)
        exit_layer[state.exited & ~before] = layer
    return ExitDecisions(exit_layer.numpy(), state.confidence.numpy(), state.ratio.numpy())


RUST = pytest.param(by_rust, marks=pytest.mark.rust)
KERNELS = pytest.mark.parametrize("decide", [by_numpy, by_steps, by_torch, RUST])


def same(a: ExitDecisions, b: ExitDecisions) -> None:
    np.testing.assert_array_equal(a.exit_layer, b.exit_layer)
    np.testing.assert_array_equal(a.accumulated_confidence, b.accumulated_confidence)
    np.testing.assert_allclose(a.soft_exit_ratio, b.soft_exit_ratio, rtol=0, atol=1e-6)


@KERNELS
def test_the_vectors_that_all_kernels_share(decide: Decide) -> None:
    golden = {name: np.array(values) for name, values in json.loads(GOLDEN.read_text()).items()}
    floats = {name: golden[name].astype(np.uint32).view(np.float32) for name in ("risk", "confidence", "ratio")}
    expected = ExitDecisions(golden["exit_layer"].astype(np.int32), floats["confidence"], floats["ratio"])
    assert len(set(expected.exit_layer.tolist())) >= 3  # some exit at 7, some at 14, some never
    same(decide(floats["risk"].reshape(-1, 3)), expected)


@pytest.mark.parametrize("decide", [by_steps, by_torch, RUST])
@settings(max_examples=200, deadline=None)
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=1, max_dims=1, max_side=40).map(lambda shape: (*shape, 3)),
        elements=st.one_of(
            st.floats(-0.5, 2, width=32), st.sampled_from([float("nan"), float("inf"), -float("inf"), 3.4e38])
        ),
    )
)
def test_all_kernels_agree_on_any_risks(decide: Decide, risk: Any) -> None:
    same(decide(risk), by_numpy(risk))


@pytest.mark.parametrize("decide", [by_torch, RUST])
def test_all_kernels_agree_on_a_million_tokens(decide: Decide) -> None:
    risk = np.random.default_rng(0).random((1_000_000, 3), np.float32) * np.float32(1.5)
    same(decide(risk), by_numpy(risk))


@pytest.mark.rust
def test_eight_threads_lose_no_update_in_rust() -> None:
    alpha = 2.0**-16  # sums are exact in any order
    controller = CascadeController([LayerConfig(0, 0.5, 1.0, 1.0)], alpha=alpha, kernel=native.RustKernel)
    sample = np.array([100.0], np.float32)

    def work() -> None:
        for _ in range(1000):
            controller.update_threshold(0, sample)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controller.thresholds[0] == 1.0 + 8000 * alpha * 0.5


@pytest.mark.rust
def test_rust_serves_where_it_is_installed_and_refuses_what_numpy_s_kernel_is_never_given() -> None:
    assert type(CascadeController(SEED_LAYERS).kernel) is native.RustKernel
    assert "in Rust" in findings()["sedac"]
    kernel = CascadeController(SEED_LAYERS).kernel
    with pytest.raises(ValueError, match="risks"):
        kernel.evaluate(
            np.zeros((2, 3), np.float32), np.zeros(1, np.int32), np.zeros(1, np.float32), np.zeros(1, np.float32)
        )


def test_without_the_rust_core_numpy_serves_and_doctor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sedac_core", None)  # as if it were not installed
    native.core.cache_clear()
    try:
        assert type(CascadeController(SEED_LAYERS).kernel) is NumpyKernel
        assert "NumPy" in findings()["sedac"]
    finally:
        native.core.cache_clear()
