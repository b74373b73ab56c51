"""What is promised holds: the values of the papers' formulas, and 200 repeats with a known risk."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from diffulex_edge.errors import UsageError
from diffulex_edge.sedac.guarantee import (
    SpotChecks,
    binomial_tail,
    conformal,
    fixed_sequence,
    hoeffding_bentkus,
    upper_bound,
)


@pytest.mark.parametrize(
    ("n", "risk", "level", "bentkus", "exact"),
    [
        (1000, 0.03, 0.05, 0.00347143, 0.00127707),
        (500, 0.03, 0.05, 0.0539807, 0.0198584),
        (1000, 0.04, 0.05, 0.219193, 0.0806366),
        (200, 0.0, 0.05, 3.50527e-05, 3.50527e-05),
        (45, 0.0, 0.05, 0.0994403, 0.0994403),
        (100, 0.02, 0.1, 0.00528674, None),
    ],
)
def test_p_values_are_those_of_the_formulas(
    n: int, risk: float, level: float, bentkus: float, exact: float | None
) -> None:
    assert hoeffding_bentkus(risk, n, level) == pytest.approx(bentkus, rel=1e-5)
    if exact is not None:
        assert binomial_tail(round(n * risk), n, level) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(("n", "k", "bound"), [(1000, 30, 0.03816), (500, 15, 0.04232), (1000, 40, 0.04916)])
def test_clopper_and_pearsons_bound(n: int, k: int, bound: float) -> None:
    assert upper_bound(k, n, 0.1) == pytest.approx(bound, abs=5e-6)


@pytest.mark.parametrize(("n", "level", "delta"), [(45, 0.05, 0.1), (230, 0.01, 0.1), (149, 0.02, 0.05)])
def test_so_many_sequences_without_a_loss_are_enough_and_one_less_is_not(n: int, level: float, delta: float) -> None:
    assert fixed_sequence([[0.0] * n], level, delta)[0].passed
    assert not fixed_sequence([[0.0] * (n - 1)], level, delta)[0].passed


def test_the_first_setting_that_fails_ends_the_sequence() -> None:
    good, bad = [0.0] * 100, [1.0] * 50 + [0.0] * 50
    assert [t.passed for t in fixed_sequence([good, bad, good], 0.05, 0.1)] == [True, False, False]


@pytest.mark.parametrize("kind", ["whole losses", "shares"])
def test_the_promised_level_is_violated_at_most_delta_of_the_time(kind: str) -> None:
    """200 repeats; the settings' true risks rise through epsilon, and any that passes above it violates the promise."""
    rng, epsilon, delta, violated = random.Random(0), 0.05, 0.1, 0
    risks = [0.01, 0.03, 0.045, 0.055, 0.07, 0.1]
    for _ in range(200):
        losses = []
        for risk in risks:
            hits = [float(rng.random() < risk) for _ in range(300)]
            if kind == "shares":  # of the same mean: a loss of 0.4 two and a half times as often
                hits = [0.4 * (rng.random() < 2.5 * risk) for _ in range(300)]
            losses.append(hits)
        passed = [risk for risk, test in zip(risks, fixed_sequence(losses, epsilon, delta), strict=True) if test.passed]
        violated += max(passed, default=0.0) > epsilon
    assert violated / 200 <= delta


def test_the_test_has_power_where_risks_are_well_below_the_level() -> None:
    rng = random.Random(1)
    passed = sum(
        fixed_sequence([[float(rng.random() < 0.01) for _ in range(300)]], 0.05, 0.1)[0].passed for _ in range(100)
    )
    assert passed >= 95


def test_conformal_risk_control_stops_at_its_bound() -> None:
    losses = [[1.0] * k + [0.0] * (100 - k) for k in (0, 4, 5)]
    assert conformal(losses, 0.05) == 1  # (4 + 1) / 101 <= 0.05 < (5 + 1) / 101
    assert conformal([[1.0] * 10], 0.05) is None


def test_conformal_risk_control_keeps_its_promise_on_average() -> None:
    rng, epsilon, total = random.Random(2), 0.1, 0.0
    risks = [i / 50 for i in range(20)]
    for _ in range(200):
        draws = [rng.random() for _ in range(100)]
        chosen = conformal([[float(u < risk) for u in draws] for risk in risks], epsilon)
        total += 0.0 if chosen is None else risks[chosen]
    assert total / 200 <= epsilon


def test_spot_checks_bring_the_loss_to_its_level_after_a_drift() -> None:
    rng, watch, late = random.Random(3), SpotChecks(epsilon=0.1), []
    for i in range(4000):
        loss = float(rng.random() < 0.6 * watch.scale)  # six times what was calibrated
        watch.see(loss)
        if i >= 1000:
            late.append(loss)
    assert sum(late) / len(late) == pytest.approx(0.1, abs=0.02)
    assert watch.scale <= watch.most


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: hoeffding_bentkus(1.5, 10, 0.1),
        lambda: binomial_tail(0, 0, 0.1),
        lambda: fixed_sequence([[2.0]], 0.1, 0.1),
        lambda: SpotChecks(epsilon=0.0),
    ],
)
def test_nonsense_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        wrong()
