"""SEDAC fitted to a toy: labels against the truth, stages from files to files, promises with reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.runtime.cascading import Cascading
from diffulex_edge.runtime.decode import Draft, decode
from diffulex_edge.runtime.depth import ConstantDepth
from diffulex_edge.runtime.exit_file import (
    cascade_of,
    factor_of,
    note_watch,
    open_exits,
    promise,
    read_exits,
    read_kinds,
    read_probes,
    write_exits,
)
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.sedac.free import SCORES, FreeRisk, calibrated
from diffulex_edge.sedac.probe import auroc
from diffulex_edge.tests import toys
from diffulex_edge.tests.test_runtime_early_exit import says
from diffulex_edge.tuning.exit_curve import exit_curve, exit_rates
from diffulex_edge.tuning.exit_work import ExitTexts, calibrate_in, collect_into, report_of, train_in, watch_in
from diffulex_edge.tuning.exits import SCALES, Promise, calibrate_exits, changed, watch_exits
from diffulex_edge.tuning.states import collect, read_states, write_states

PLAN = Plan(max_new_tokens=16, block_size=8, steps=4)
PROMPTS = [toys.ids(1, 16, seed=s)[0].tolist() for s in range(12)]
EASY = Promise(epsilon=0.9, delta=0.4)


def test_labels_are_what_a_shallower_step_would_have_shown() -> None:
    """The first step of the first block, by the same loop at a constant depth."""
    model, prompt = toys.eco(), PROMPTS[0]
    states = collect(model, [prompt], PLAN, [0, 1])
    whole = next(e for e in decode(model, [prompt], PLAN) if isinstance(e, Draft))
    for layer in (0, 1):
        shallow = replace(PLAN, depth=ConstantDepth(layer + 1))
        early = next(e for e in decode(model, [prompt], shallow) if isinstance(e, Draft))
        expected = (early.block != whole.block)[0]
        assert torch.equal(states.layers[layer].changed[:8], expected)
    assert states.masked[:8].eq(1).all() and states.t[:8].eq(1).all()
    assert len(states.t) == 2 * (8 + 6 + 4 + 2)


def test_states_are_split_by_document_and_survive_the_disk(tmp_path: Path) -> None:
    states = collect(toys.eco(), PROMPTS[:4], PLAN, [0, 1])
    learn, judge = states.split(0.25)
    assert set(learn.document.tolist()) == {0, 1, 2} and set(judge.document.tolist()) == {3}
    write_states(tmp_path / "s", states, [torch.arange(3)])
    again, orders = read_states(tmp_path / "s")
    assert torch.equal(again.layers[1].x, states.layers[1].x) and torch.equal(orders[0], torch.arange(3))
    assert torch.equal(again.layers[0].free["entropy"], states.layers[0].free["entropy"])
    (tmp_path / "s").write_bytes(b"{}")
    with pytest.raises(ArtefactError, match="sedac collect"):
        read_states(tmp_path / "s")


def test_the_last_layer_and_no_prompt_are_refused() -> None:
    with pytest.raises(UsageError, match="all but the last"):
        collect(toys.eco(), PROMPTS[:1], PLAN, [2])
    with pytest.raises(UsageError, match="nothing to learn"):
        collect(toys.eco(), [], PLAN, [0])


def test_changed_counts_places_and_what_is_missing() -> None:
    assert changed([1, 2, 3, 4], [1, 2, 3, 4]) == 0
    assert changed([1, 9, 3], [1, 2, 3, 4]) == 0.5
    assert changed([], []) == 0


def test_a_promise_needs_enough_sequences() -> None:
    Promise(epsilon=0.01, delta=0.05).check(299)
    with pytest.raises(UsageError, match="298 sequences"):
        Promise(epsilon=0.01, delta=0.05).check(298)


def test_calibration_takes_the_largest_scale_that_passes_and_stops_at_the_first_that_does_not() -> None:
    model, risk = toys.eco(), 0.1
    probes = {0: says(risk), 1: says(risk)}
    goes_at = risk / (1 - 0.3 / (0.5 + 0.9 * 0.5))  # where confidence reaches 0.3 at the second checkpoint
    found = calibrate_exits(model, probes, PROMPTS, PLAN, Promise(epsilon=0.2, delta=0.1), Cascading())
    assert found["scale"] == max(scale for scale in SCALES if scale < goes_at)
    tests = found["tests"]
    assert [test["scale"] for test in tests] == list(SCALES[: len(tests)])
    assert tests[-1]["risk"] > 0.2 and tests[-1]["p_value"] > 0.1
    assert all(test["risk"] == 0 for test in tests[:-1]) and found["risk"] == 0


def test_conformal_control_promises_an_average_from_fewer_texts() -> None:
    Promise(epsilon=0.05, control="crc").check(19)
    with pytest.raises(UsageError, match="18 sequences cannot show a loss of at most 0.05, were"):
        Promise(epsilon=0.05, control="crc").check(18)
    probes, wanted = {0: says(0.1), 1: says(0.1)}, Promise(epsilon=0.1, delta=0.1, control="crc")
    found = calibrate_exits(toys.eco(), probes, PROMPTS, PLAN, wanted, Cascading())
    *good, last = found["tests"]
    assert all(test["bound"] == pytest.approx(1 / 13) for test in good)  # of twelve texts without a change
    assert last["bound"] == pytest.approx((12 * last["risk"] + 1) / 13)
    assert last["bound"] > 0.1 and found["scale"] == good[-1]["scale"] and found["control"] == "crc"


def test_exits_stay_off_where_nothing_passes() -> None:
    found = calibrate_exits(toys.eco(), {0: says(1e-6)}, PROMPTS, PLAN, Promise(epsilon=0.2, delta=0.1), Cascading())
    assert found["scale"] is None and found["risk"] is None and len(found["tests"]) == 1


def test_the_stages_go_from_files_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = collect_into(tmp_path, toys.eco(), PROMPTS, PLAN, lambda n: None)
    assert told["tokens"] == 12 * 40 and told["layers"] == [1]
    monkeypatch.setattr("diffulex_edge.tuning.risk.Judged.admitted", True)  # of a random toy little can be learned
    (row,) = train_in(tmp_path, toys.eco())["layers"]
    assert row["layer"] == 1 and 0 <= row["auroc"] <= 1
    found = calibrate_in(tmp_path, toys.eco(), PROMPTS, PLAN, EASY, Cascading(), lambda n: None)
    assert read_exits(tmp_path)["calibration"] == json.loads(json.dumps(found))
    assert (open_exits(tmp_path, toys.eco()) is None) == (found["scale"] is None)
    with pytest.raises(UsageError, match="nothing to watch"):
        watch_in(tmp_path, toys.eco(), [], PLAN, lambda n: None)
    watched = watch_in(tmp_path, toys.eco(), PROMPTS[:3], PLAN, lambda n: None)["watch"]
    assert watched["n"] == 3 and watched["began"] == 1
    assert read_exits(tmp_path)["watch"] == watched
    rows = report_of(tmp_path, toys.eco(), PROMPTS[:2], PLAN, lambda n: None)["curve"]
    assert rows[0]["name"] == "all layers" and rows[0]["changed"] == 0 and rows[0]["speed"] == 1


def test_a_cascade_that_was_learned_is_what_is_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = torch.arange(toys.eco().spec.vocab_size) % 3
    collect_into(tmp_path, toys.eco(), PROMPTS, PLAN, lambda n: None, kinds)
    monkeypatch.setattr("diffulex_edge.tuning.risk.Judged.admitted", True)
    told = train_in(tmp_path, toys.eco(), kinds)["learned"]
    assert told["numbers"]["routes"][0] == 1 and len(told["numbers"]["routes"]) == 3
    calibrate_in(tmp_path, toys.eco(), PROMPTS, PLAN, EASY, Cascading(learned=True), lambda n: None)
    cascade = cascade_of(read_exits(tmp_path))
    assert cascade.weights == tuple(told["numbers"]["weights"]) and cascade.fade == told["numbers"]["fade"]
    found = read_kinds(tmp_path)
    assert found is not None and torch.equal(found, kinds)
    write_exits(tmp_path, toys.eco(), {1: says(0.1)}, [torch.arange(32) for _ in range(3)], {})
    with pytest.raises(UsageError, match="no cascade was learned"):
        calibrate_in(tmp_path, toys.eco(), PROMPTS, PLAN, EASY, Cascading(learned=True), lambda n: None)


def test_drift_makes_exits_more_careful_until_they_are_off(tmp_path: Path) -> None:
    model, probes = toys.eco(), {0: says(0.1), 1: says(0.1)}
    promised = {"epsilon": 0.01, "scale": 0.8}  # at which every token goes at once, whatever was promised
    first = watch_exits(model, probes, PROMPTS, PLAN, promised, Cascading(), 1.0)
    assert first["risk"] > 0.1
    assert 0 < first["factor"] < 1
    second = watch_exits(model, probes, PROMPTS[:2], PLAN, promised, Cascading(), first["factor"])
    assert second["began"] == first["factor"] > second["factor"]
    write_exits(tmp_path, model, probes, [torch.arange(32) for _ in range(3)], {})
    promise(tmp_path, promised, Cascading())
    note_watch(tmp_path, {"factor": 0.5})
    assert factor_of(read_exits(tmp_path)) == 0.5
    opened = open_exits(tmp_path, model)
    assert opened is not None and opened.controller.thresholds == pytest.approx({0: 0.4, 1: 0.4})
    note_watch(tmp_path, {"factor": 0.0})
    assert open_exits(tmp_path, model) is None
    promise(tmp_path, promised, Cascading())  # a new calibration begins anew
    assert factor_of(read_exits(tmp_path)) == 1


def test_where_a_probe_is_refused_the_best_of_what_is_free_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffulex_edge.tuning.risk.Judged.admitted", False)
    collect_into(tmp_path, toys.eco(), PROMPTS, PLAN, lambda n: None)
    (row,) = train_in(tmp_path, toys.eco())["layers"]
    if row["free"][row["best_free"]] <= 0.5:
        pytest.skip("on this processor nothing ranks the toy's tokens")
    assert row["serves"] == row["best_free"]
    model = toys.eco()
    risk = read_probes(tmp_path, model)[1]
    assert isinstance(risk, FreeRisk) and risk.score.name == row["serves"]
    promise(tmp_path, {"epsilon": 0.5, "scale": 0.9}, Cascading(exit_confidence=0.01))
    exits = open_exits(tmp_path, toys.eco())
    assert exits is not None
    rates = exit_rates(model, exits, PROMPTS[:2], PLAN)
    assert 0 < rates[1] <= 1


def test_probes_where_nothing_beats_chance_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect_into(tmp_path, toys.eco(), PROMPTS, PLAN, lambda n: None)
    monkeypatch.setattr("diffulex_edge.tuning.risk.auroc", lambda score, changed: 0.5)
    with pytest.raises(UsageError, match="nothing ranks"):
        train_in(tmp_path, toys.eco())
    assert not (tmp_path / "sedac.json").exists()


@pytest.mark.parametrize("name", SCORES)
def test_a_free_score_is_the_risk_that_was_seen(name: str) -> None:
    """Of 20,000 tokens whose chance to change is a logistic curve of the score, the curve is found again."""
    generator = torch.Generator().manual_seed(0)
    x, last = torch.randn(2, 20_000, 8, generator=generator)
    score = SCORES[name](x, x, last)
    steep = 3 / float(score.std())
    seen = torch.rand(20_000, generator=generator) < torch.sigmoid(steep * (score - score.mean()) - 1)
    found = calibrated(name, score, seen)
    assert found.slope == pytest.approx(steep, rel=0.05)
    risk = FreeRisk(score=found, logits=lambda x: x)(x, x.new_zeros(()), x.new_zeros(()), last)
    assert float(risk.mean()) == pytest.approx(float(seen.float().mean()), abs=0.002)
    assert auroc(risk, seen) == pytest.approx(auroc(score, seen), abs=1e-6)


def test_free_scores_are_what_they_are_called() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    found = {name: score(p.log(), p, None) for name, score in SCORES.items()}
    assert found["max probability"].tolist() == pytest.approx([-0.7, -0.4])
    assert found["margin"].tolist() == pytest.approx([-0.5, -0.05])
    assert found["entropy"].tolist() == pytest.approx([0.8018, 1.0805], abs=1e-4)
    assert found["cosine"].tolist() == [0, 0]
    assert SCORES["cosine"](p, p, 2 * p).tolist() == pytest.approx([-1, -1])


def test_training_refuses_states_of_another_model(tmp_path: Path) -> None:
    collect_into(tmp_path, toys.eco(), PROMPTS[:2], PLAN, lambda n: None)
    other = toys.eco()
    other.layers[0].ff.down.weight.data[0, 0] += 1
    with pytest.raises(UsageError, match="other weights"):
        train_in(tmp_path, other)


def test_chance_exits_as_often_as_the_cascade() -> None:
    model, probes = toys.eco(), {0: says(0.1), 1: says(0.1)}
    rates = exit_rates(model, Cascading().exits(probes, 0.8), PROMPTS[:2], PLAN)
    assert rates[0] == 1.0
    assert exit_rates(model, Cascading().exits(probes, 0.05), PROMPTS[:2], PLAN) == {0: 0.0, 1: 0.0}
    rows = {row["name"]: row for row in exit_curve(model, probes, PROMPTS[:2], PLAN, Cascading())}
    assert rows["chance, as often as scale 0.8"]["changed"] == rows["V6.1, scale 0.8"]["changed"] > 0
    assert rows["V6.1, scale 0.05"]["changed"] == 0
    assert rows["2 of 3 layers"]["forwards"] == 1


def test_windows_do_not_overlap_and_short_documents_have_none() -> None:
    from diffulex_edge.text.corpus import Document

    class Letters:
        def encode(self, text: str) -> list[int]:
            return [ord(c) for c in text]

    words: Any = Letters()
    texts = ExitTexts(prompts=3, prompt_tokens=2, exit_tokens=3)
    documents = [Document(text=t, source="", script="latin") for t in ("abcd", "abcdefghijk", "lmnopqrstuv")]
    assert ["".join(map(chr, p)) for p in texts.windows(documents, words)] == ["ab", "fg", "lm"]
    with pytest.raises(UsageError, match="5 tokens"):
        texts.windows(documents[:1], words)
