"""The mixture of objectives: shares, curriculum, gradients where they belong, and no peeking."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.tests import toys
from diffulex_edge.train.objective import Moment, Objective, ObjectiveConfig, forget

CONFIG = ObjectiveConfig(block_sizes=(4, 8), min_depth=1)


def moment(progress: float = 0.9, seed: int = 0) -> Moment:
    return Moment(progress, torch.Generator().manual_seed(seed))


def objective(**changes: object) -> Objective:
    return Objective(replace(CONFIG, **changes), None, toys.eco().spec)  # type: ignore[arg-type]


def test_rows_are_allotted_by_their_shares_on_average() -> None:
    o, totals = objective(), torch.zeros(4)
    for seed in range(400):
        rows = o._allot(8, moment(seed=seed))
        assert sum(rows) == 8
        totals += torch.tensor(rows)
    expected = torch.tensor([0.5 * 0.85, 0.5 * 0.15, 0.1, 0.4])
    torch.testing.assert_close(totals / totals.sum(), expected, atol=0.02, rtol=0)


def test_the_run_begins_with_full_denoising_alone() -> None:
    for seed in range(20):
        assert objective()._allot(8, moment(0.1, seed))[2:] == [0, 0]


def test_a_model_without_memory_is_never_asked_for_it() -> None:
    o = Objective(CONFIG, None, toys.backup().spec)
    assert all(o._allot(8, moment(seed=seed))[3] == 0 for seed in range(20))
    assert o.trained_modes == ("full", "block")


def test_a_checkpoint_says_which_modes_it_was_trained_for() -> None:
    assert objective().trained_modes == ("full", "block", "block_frozen")
    assert objective(frozen_share=0.0, block_share=0.0).trained_modes == ("full",)


@pytest.mark.parametrize("share", ["full_share", "block_share", "frozen_share"])
def test_each_task_reaches_the_parameters_it_should(share: str) -> None:
    shares = {"full_share": 0.0, "block_share": 0.0, "frozen_share": 0.0, share: 1.0}
    model = toys.eco().requires_grad_(True)
    ((loss, tokens),) = objective(**shares, shallow=0.0, full_only=0.0)(model, toys.ids(4, 32), moment())
    loss.backward()
    assert torch.isfinite(loss) and tokens > 0
    gates = [layer.gate.weight.grad for layer in model.layers]
    assert all((g is not None and bool(g.abs().sum() > 0)) == (share == "frozen_share") for g in gates)
    assert model.layers[2].ff.down.weight.grad.abs().sum() > 0


def test_the_gradient_of_memory_is_cut_after_the_given_number_of_blocks() -> None:
    """With a cut before each block nothing flows from a later block's loss into an earlier block's update."""
    shares = {"full_share": 0.0, "block_share": 0.0, "frozen_share": 1.0, "full_only": 0.0, "own_context": 0.0}

    def gate_gradient(every: int) -> float:
        model = toys.eco().requires_grad_(True)
        o = objective(**shares, detach_every=every, block_sizes=(4,), forget_bank=0.0, forget_halo=0.0)
        ((loss, _),) = o(model, toys.ids(2, 32), moment())
        loss.backward()
        return float(
            sum(layer.gate.weight.grad.abs().sum() for layer in model.layers if layer.gate.weight.grad is not None)
        )

    assert gate_gradient(1) == 0.0
    assert gate_gradient(2) > 0.0
    assert gate_gradient(8) != gate_gradient(2)


def test_the_loss_of_full_denoising_is_an_unbiased_nelbo_of_a_uniform_model() -> None:
    """Zero logits give log(V - 1) at every masked token; the weights must average to one a token."""
    model = toys.eco().requires_grad_(True)
    with torch.no_grad():
        model.ends.tokens.weight.zero_()
        model.ends.head_bias.zero_()
    o, values = objective(full_share=1.0, block_share=0.0, frozen_share=0.0, shallow=0.0), []
    for seed in range(60):
        ((loss, tokens),) = o(model, toys.ids(16, 64), moment(seed=seed))
        values.append(float(loss.detach()) / tokens)
    mean = torch.tensor(values).mean().item()
    assert mean == pytest.approx(torch.tensor(47.0).log().item(), rel=0.03)


def test_the_seeds_objective_runs_with_discrete_times() -> None:
    model = toys.eco(timesteps=8).requires_grad_(True)
    o = Objective(replace(CONFIG, mask_schedule="cosine", full_only=0.0), 8, model.spec)
    parts = o(model, toys.ids(8, 32), moment())
    assert all(torch.isfinite(loss) for loss, _ in parts)
    torch.stack([loss for loss, _ in parts]).sum().backward()
    assert model.ends.time.weight.grad[0].abs().sum() >= 0


def test_the_models_own_tokens_replace_only_chosen_rows_and_only_late() -> None:
    model, x = toys.eco(), toys.ids(64, 8)
    o = objective(own_context=0.25)
    context = model.begin("memory", 64, 8)
    assert torch.equal(o._own(model, x, context, moment(0.5)), x)
    late = o._own(model, x, context, moment(0.9))
    changed = (late != x).any(1).float().mean()
    assert 0.1 < changed < 0.4
    assert not (late == model.spec.mask_id).any()


def test_forgetting_leaves_an_empty_bank_or_no_halo() -> None:
    model, x = toys.eco(), toys.ids(64, 8)
    start = model.begin("memory", 64, 8)
    from diffulex_edge.model.base import NONE

    _, context = model(x, start, rows=NONE)
    gone = forget(context, start, bank=1.0, halo=1.0, generator=torch.Generator().manual_seed(0))
    empty, _ = model(x, start)
    torch.testing.assert_close(model(x, gone)[0], empty)
    kept = forget(context, start, bank=0.0, halo=0.0, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x, kept)[0], model(x, context)[0])


def test_chains_grow_over_the_run() -> None:
    o = objective(full_only=0.4)
    assert [o._n_blocks(16, p) for p in (0.4, 0.5, 0.6, 0.9)] == [2, 4, 8, 16]


@pytest.mark.parametrize(
    "changes",
    [{"mask_schedule": "sine"}, {"full_share": -1.0}, {"block_sizes": ()}, {"own_context": 2.0},
     {"full_share": 0.0, "block_share": 0.0, "frozen_share": 0.0}],
)  # fmt: skip
def test_nonsense_is_refused(changes: dict) -> None:
    with pytest.raises(UsageError):
        replace(CONFIG, **changes)


@pytest.mark.parametrize("share", ["full_share", "frozen_share"])
def test_training_for_exits_adds_the_divergence_and_draws_nothing_where_it_is_off(share: str) -> None:
    shares = {"full_share": 0.0, "block_share": 0.0, "frozen_share": 0.0, share: 1.0, "shallow": 0.0, "full_only": 0.0}
    model, x = toys.eco(), toys.ids(4, 32)
    with torch.no_grad():
        ((plain, _),) = objective(**shares)(model, x, moment())
        ((with_exits, _),) = objective(**shares, exit_share=1.0)(model, x, moment())
        ((unweighted, _),) = objective(**shares, exit_share=1.0, exit_weight=0.0)(model, x, moment())
    assert with_exits > plain + 1e-3
    assert unweighted == plain


def test_the_whole_look_is_not_drawn_to_the_early_one() -> None:
    """At weight one for the divergence alone, layers behind the exit and channels beyond it get no gradient from it."""
    shares = {"full_share": 1.0, "block_share": 0.0, "frozen_share": 0.0, "shallow": 0.0}
    only_last = replace(CONFIG, **shares, min_depth=2, exit_share=1.0, exit_keeps=(0.0,))  # type: ignore[arg-type]
    grads = []
    for weight in (0.0, 1.0):
        model = toys.eco().requires_grad_(True)
        o = Objective(replace(only_last, exit_weight=weight), None, model.spec)
        ((loss, _),) = o(model, toys.ids(4, 32), moment())
        loss.backward()
        grads.append([p.grad.clone() for p in model.layers[2].parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
