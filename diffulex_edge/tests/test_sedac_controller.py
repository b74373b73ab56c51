"""The cascade controller: the values of its formulas, causality, thresholds at batch size 1, and what it refuses."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from diffulex_edge.errors import UsageError
from diffulex_edge.sedac import SEED_LAYERS, CascadeController, ExitDecision, LayerConfig
from diffulex_edge.sedac.kernel import LEAST_THRESHOLD, soft_ratio


def never_exits(**settings: Any) -> CascadeController:
    """The seed's weights with thresholds of 1 and exits out of reach: C goes on to the end."""
    layers = [LayerConfig(c.layer_idx, c.target_exit_rate, 1.0, c.confidence_weight, math.inf) for c in SEED_LAYERS]
    return CascadeController(layers, **settings)


@pytest.mark.parametrize(
    ("confidences", "accumulated"),
    [
        ((1, 1, 1), (0.3, 0.67, 0.903)),
        ((0.5, 0.5, 0.5), (0.15, 0.335, 0.4515)),
        ((0.25, 0.5, 0.75), (0.075, 0.2675, 0.46575)),
    ],
)
def test_confidence_accumulates_with_decay_and_weights(
    confidences: tuple[float, ...], accumulated: tuple[float, ...]
) -> None:
    risks = 1 - np.array([confidences])
    found = [never_exits().evaluate_batch(risks[:, :k])[0].accumulated_confidence for k in (1, 2, 3)]
    np.testing.assert_allclose(found, accumulated, atol=1e-6)


@pytest.mark.parametrize(
    ("risks", "layer", "confidence", "ratio"),
    [
        ((0, 0, 0), 7, 0.3, 0.310026),
        ((0.1, 0.1, 0.1), 7, 0.2625, 0.278885),
        ((0.32, 0.1, 0), 14, 0.522, 0.521986),
        ((0.8, 0, 0), -1, 0.66, 0),
        ((0.8, 1, 0), -1, 0.3, 0),
        ((0.4, 0.5, 0.6), -1, 0.4515, 0),
    ],
)
def test_decisions_of_the_seed_s_cascade(risks: tuple[float, ...], layer: int, confidence: float, ratio: float) -> None:
    (decision,) = CascadeController(SEED_LAYERS).evaluate_batch([risks])
    assert decision.exit_layer == layer
    assert decision.should_exit == (layer >= 0)
    assert decision.accumulated_confidence == pytest.approx(confidence, abs=1e-6)
    assert decision.soft_exit_ratio == pytest.approx(ratio, abs=1e-6)


def test_no_token_exits_at_the_seed_s_third_checkpoint() -> None:
    """It needs C = (0.8 - 0.3) / 0.9 = 0.556 after the second, where 0.5 is enough to exit."""
    risks = np.random.default_rng(0).random((100_000, 3)) * 1.2
    exits = CascadeController(SEED_LAYERS).evaluate_batch(risks).exit_layer
    assert set(exits.tolist()) == {-1, 7, 14}


def test_confidence_is_not_bounded_by_one() -> None:
    layers = [LayerConfig(layer, 0.5, 1.0, 0.3, math.inf) for layer in range(200)]
    (decision,) = CascadeController(layers).evaluate_batch(np.zeros((1, 200)))
    assert decision.accumulated_confidence == pytest.approx(3.0, abs=1e-5)


def test_clamped_confidence_is_biased_up_by_noise() -> None:
    risks = 1 + 0.1 * np.random.default_rng(0).standard_normal((400_000, 1))
    layer = LayerConfig(0, 0.5, 1.0, 1.0, math.inf)
    mean = CascadeController([layer]).evaluate_batch(risks).accumulated_confidence.mean()
    assert mean == pytest.approx(0.1 / math.sqrt(2 * math.pi), abs=2e-4)


def test_soft_ratio_is_the_seed_s_curve() -> None:
    curve = {0: 0.119203, 0.1: 0.167982, 0.2: 0.231475, 0.3: 0.310026, 0.5: 0.5, 0.67: 0.663739, 0.75: 0.731059}
    curve |= {0.8: 0.768525, 0.9: 0.832018, 0.903: 0.833689, 1.0: 0.880797, 2.0: 0.997527}
    found = soft_ratio(np.array(list(curve), np.float32))
    np.testing.assert_allclose(found, list(curve.values()), atol=1e-6)


def test_a_hard_exit_skips_everything() -> None:
    hard = CascadeController(SEED_LAYERS, soft_exit_enabled=False).evaluate_batch([[0, 0, 0], [9, 9, 9]])
    assert hard.soft_exit_ratio.tolist() == [1, 0]


def test_a_decision_never_uses_layers_after_the_exit() -> None:
    seven, later = np.full((1, 3), 0.1), np.array([[0.1, 9, -9]])
    controller = CascadeController(SEED_LAYERS)
    assert controller.evaluate_batch(seven)[0] == controller.evaluate_batch(later)[0]


def test_step_by_step_is_the_same_as_all_at_once() -> None:
    risks = np.random.default_rng(1).random((1000, 3), dtype=np.float32)
    controller = CascadeController(SEED_LAYERS)
    state, ratios = controller.start(1000), []
    for at, layer in enumerate(controller.layers):
        ratios.append(state.observe(layer, risks[:, at]))
        exited = state.decisions().should_exit
        assert np.all(ratios[-1][~exited] == 0)
        assert np.all(ratios[-1][exited] > 0)
        assert all(np.array_equal(ratios[at][seen > 0], seen[seen > 0]) for seen in ratios), "a ratio is frozen"
    assert list(state.decisions()) == list(controller.evaluate_batch(risks))


def test_columns_that_are_not_there_yet_are_not_needed() -> None:
    controller = CascadeController(SEED_LAYERS)
    assert controller.evaluate_batch([[0.0]])[0].exit_layer == 7
    assert len(controller.evaluate_batch(np.empty((0, 3)))) == 0


def test_decisions_are_a_sequence_of_views() -> None:
    decisions = CascadeController(SEED_LAYERS).evaluate_batch(np.array([[0, 0, 0], [0.8, 1, 0]]))
    assert decisions[-1] == ExitDecision(-1, decisions.accumulated_confidence[1].item(), 0)
    assert list(decisions[1:]) == [decisions[1]]
    with pytest.raises(IndexError):
        decisions[2]


def test_a_risk_that_is_no_number_counts_as_no_confidence() -> None:
    nan, inf = float("nan"), float("inf")
    decisions = CascadeController(SEED_LAYERS).evaluate_batch([[nan, 0, 0], [inf, 0, 0], [0.8, 0, 0], [-inf, 9, 9]])
    assert decisions[0] == decisions[1] == decisions[2]
    assert decisions[3].accumulated_confidence == pytest.approx(0.3)


def track(rate: float, batch: int, steps: int) -> float:
    """The share of U(0, 1) risks below the threshold, over the second half of the steps."""
    controller = CascadeController([LayerConfig(7, rate, 0.9, 1.0)], alpha=0.005)
    below, risks = [], np.random.default_rng(3).random((steps, batch))
    for step, samples in enumerate(risks):
        if step > steps // 2:
            below.append(np.mean(samples < controller.thresholds[7]))
        controller.update_threshold(7, samples)
    return float(np.mean(below))


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("batch", [1, 8])
def test_thresholds_reach_the_target_rate_at_any_batch_size(rate: float, batch: int) -> None:
    assert track(rate, batch, 10_000) == pytest.approx(rate, abs=0.01)


def test_needed_thresholds_bring_the_exits_themselves_to_the_target_rate() -> None:
    """Where risks alone bring the first layer of the seed to rho (1 - rho / w) = 0.067 of 0.2, and the third to 0."""
    goals = (0.1, 0.3, 0.5)  # exited by this layer
    layers = [LayerConfig(7, goals[0], 1, 0.5, 0.2), LayerConfig(14, goals[1], 1, 0.5, 0.4)]
    controller = CascadeController([*layers, LayerConfig(21, goals[2], 1, 0.5, 0.5)], alpha=0.02)
    rng = np.random.default_rng(0)
    for _ in range(3000):
        risks, state = rng.random((8, 3)), controller.start(8)
        for at, layer in enumerate(controller.layers):
            controller.update_threshold(layer, state.needed(layer, risks[:, at]))
            state.observe(layer, risks[:, at])
    exits = controller.evaluate_batch(rng.random((100_000, 3))).exit_layer
    found = [np.mean((exits >= 0) & (exits <= layer)) for layer in controller.layers]
    np.testing.assert_allclose(found, goals, atol=0.03)


def test_needed_is_where_the_exit_begins() -> None:
    controller = CascadeController(SEED_LAYERS)
    state = controller.start(3)
    risks = np.array([0.2, 0.4, 0.0])
    (least, _, nothing) = state.needed(7, risks)
    assert least == pytest.approx(0.6)  # conf must be 2/3
    assert nothing == 0
    above, below = (CascadeController([LayerConfig(7, 0.2, least * k, 0.3)]) for k in (1.001, 0.999))
    assert above.evaluate_batch(risks[:1, None])[0].should_exit
    assert not below.evaluate_batch(risks[:1, None])[0].should_exit
    assert state.needed(14, risks).tolist() == [math.inf] * 3  # without C from before, 1.25 would be needed


def test_thresholds_are_by_the_model_s_layer_and_stay_positive() -> None:
    controller = CascadeController(SEED_LAYERS, alpha=10)
    assert controller.update_threshold(14, [0.0] * 5) == pytest.approx(float(LEAST_THRESHOLD))
    assert controller.thresholds == {7: pytest.approx(0.8), 14: pytest.approx(1e-6), 21: pytest.approx(1.2)}
    assert controller.evaluate_batch([[0, 0, 0]])[0].exit_layer == 7


def test_a_state_keeps_the_thresholds_it_began_with() -> None:
    controller = CascadeController(SEED_LAYERS, alpha=10)
    state = controller.start(1)
    controller.update_threshold(7, [0.0])
    assert state.observe(7, [0.1])[0] == pytest.approx(0.278885, abs=1e-6)


def test_no_update_is_lost_between_threads() -> None:
    controller = CascadeController([LayerConfig(3, 0.5, 1.0, 1.0)], alpha=2**-10)
    far = np.full(4, 1e9, np.float32)  # above any threshold: each update adds 2^-11, exactly
    threads = [
        threading.Thread(target=lambda: [controller.update_threshold(3, far) for _ in range(500)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controller.thresholds[3] == 1 + 8 * 500 * 2**-11


def test_the_environment_says_decay_soft_exit_and_weights() -> None:
    env = {"SEDAC_CONFIDENCE_DECAY": "0.5", "SEDAC_SOFT_EXIT": "0", "SEDAC_LAYER_WEIGHTS": "0.1, 0.2,0.9"}
    controller = CascadeController.from_env(env=env, alpha=0.3)
    assert (controller.confidence_decay, controller.soft_exit_enabled, controller.alpha) == (0.5, False, 0.3)
    assert [config.confidence_weight for config in controller.layer_configs] == [0.1, 0.2, 0.9]
    assert CascadeController.from_env(env={}).layer_configs == SEED_LAYERS


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"SEDAC_LAYER_WEIGHTS": "0.3,0.4"}, "must be 3 numbers"),
        ({"SEDAC_LAYER_WEIGHTS": "0.3,x,0.1"}, "'x' is not a number"),
        ({"SEDAC_LAYER_WEIGHTS": "0.3,-1,0.1"}, "confidence_weight=-1.0 must be a number above 0"),
        ({"SEDAC_CONFIDENCE_DECAY": "nan"}, "confidence_decay=nan from 0 to 1"),
        ({"SEDAC_SOFT_EXIT": "maybe"}, "SEDAC_SOFT_EXIT=maybe"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(env: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CascadeController.from_env(env=env)


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in (
        (-1, 0.2, 1, 1),
        (0, 0, 1, 1),
        (0, 1, 1, 1),
        (0, 0.2, 0, 1),
        (0, 0.2, 1, math.nan),
        (0, 0.2, 1, 1, -1),
    ):
        with pytest.raises(UsageError):
            LayerConfig(*wrong)
    with pytest.raises(UsageError, match="must rise"):
        CascadeController(SEED_LAYERS[::-1])
    with pytest.raises(UsageError, match="there must be one"):
        CascadeController([])
    controller = CascadeController(SEED_LAYERS)
    for shape in ((3,), (2, 4), (2, 0)):
        with pytest.raises(UsageError, match="checkpoints"):
            controller.evaluate_batch(np.zeros(shape))
    with pytest.raises(UsageError, match=r"layer_idx=8 is no checkpoint.*7, 14, 21"):
        controller.update_threshold(8, [0.1])
    with pytest.raises(UsageError, match="at least one"):
        controller.update_threshold(7, [])
    state = controller.start(2)
    state.observe(14, [0, 0])
    with pytest.raises(UsageError, match="in order"):
        state.observe(7, [0, 0])
    with pytest.raises(UsageError, match="began with 2"):
        state.observe(21, [0])


def test_importing_the_controller_imports_no_torch() -> None:
    code = "import sys, diffulex_edge.sedac; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
