"""`eval` on models whose figures are known: a uniform guesser, a copyist, a stuck key."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffulex_edge.bench import generation
from diffulex_edge.bench.judging import judge_of_data
from diffulex_edge.bench.quality import EvalConfig, evaluate, generating_mode
from diffulex_edge.bench.report import eval_tables
from diffulex_edge.bench.texts import Texts
from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import write_sealed_json
from diffulex_edge.tests.bench_toys import EOS, FIRST, VOCAB, Letters, Toy, always, copyist, uniform
from diffulex_edge.text.corpus import Document
from diffulex_edge.text.packing import FORMAT

FIGURES = "bits_per_char nelbo_nats_per_token stderr by_script block_nelbo masked_pll pll_t0"
WRITTEN = "judge_ppl entropy rep4 distinct2 script_error_rate ill_formed_rate"
KEYS = {*FIGURES.split(" "), *WRITTEN.split(" "), "ece", "aurc", "details"}
DOCUMENTS = [
    Document("कम मक कमक " * 6, "a", "devanagari"),
    Document("ab ba aab " * 5, "b", "roman"),
    Document("कम ab", "c", "mixed"),
]


def small(tmp_path: Path, **changes) -> EvalConfig:
    values = {
        "window": 16,
        "block_size": 4,
        "block_window": 16,
        "generations": 4,
        "prompt_words": 2,
        "new_tokens": 9,
        "steps": 2,
    }
    return EvalConfig(judge_data=tmp_path, **{**values, **changes})


def test_the_result_has_exactly_the_promised_keys_and_is_json(tmp_path):
    result = evaluate(Toy(uniform), Letters(), DOCUMENTS, small(tmp_path))
    assert set(result) == KEYS
    assert list(result["block_nelbo"]) == ["full", "block", "block_frozen", "isolated", "memory_shuffled"]
    json.dumps(result, allow_nan=False)
    assert set(result["by_script"]) == {"devanagari", "roman", "mixed"}
    assert len(eval_tables(result)) == 3


def test_a_uniform_guesser_costs_log2_of_its_letters_under_every_mode(tmp_path):
    result = evaluate(Toy(uniform), Letters(), DOCUMENTS, small(tmp_path))
    assert result["bits_per_char"] == pytest.approx(math.log2(5), rel=1e-6)
    assert result["nelbo_nats_per_token"] == pytest.approx(math.log(5), rel=1e-6)
    for mode in ("full", "block", "isolated"):
        assert result["block_nelbo"][mode] == pytest.approx(math.log2(5), rel=1e-6)
    assert result["masked_pll"] == pytest.approx(-math.log(5), rel=1e-6)
    assert result["stderr"] == pytest.approx(0, abs=1e-6)


def test_a_mode_that_the_model_has_no_context_for_is_null_with_the_reason(tmp_path):
    result = evaluate(Toy(uniform), Letters(), DOCUMENTS, small(tmp_path))
    assert result["block_nelbo"]["block_frozen"] is None
    assert "no context memory" in result["details"]["block_nelbo_missing"]["block_frozen"]
    with_memory = evaluate(Toy(uniform, ("memory", "full")), Letters(), DOCUMENTS, small(tmp_path))
    assert with_memory["block_nelbo"]["memory_shuffled"] == pytest.approx(math.log2(5), rel=1e-6)
    assert with_memory["block_nelbo"]["full"] is None


def test_a_copyist_is_perfect_by_the_seeds_measure_and_clueless_by_ours(tmp_path):
    result = evaluate(Toy(copyist), Letters(), DOCUMENTS, small(tmp_path))
    assert result["pll_t0"] == 0
    assert result["masked_pll"] == pytest.approx(-math.log(VOCAB - 1), rel=1e-6)
    assert "degenerate" in result["details"]["notes"]["pll_t0"]


def test_a_stuck_key_is_exposed_by_entropy_and_repetition(tmp_path):
    result = evaluate(Toy(always(FIRST)), Letters(), DOCUMENTS, small(tmp_path))
    assert result["entropy"] == 0
    assert result["rep4"] == pytest.approx(5 / 6)  # nine tokens have six 4-grams, all alike
    assert result["details"]["generation"]["reference"]["entropy"] > 0.5
    assert result["script_error_rate"] > 0  # Devanagari after Roman prompts


def test_calibration_of_a_guesser_that_knows_its_chances_is_good(tmp_path):
    text = Document("".join(np.random.default_rng(0).choice(list(Letters.letters), 400)), "a", "mixed")
    honest = evaluate(Toy(uniform), Letters(), [text], small(tmp_path, generations=1))
    boastful = evaluate(Toy(always(FIRST)), Letters(), [text], small(tmp_path, generations=1))
    assert honest["ece"] < 0.08 < 0.5 < boastful["ece"]
    assert honest["details"]["calibration_by_noise"][-1]["n"] > 0


def test_characters_are_code_points_after_normalisation():
    texts = Texts.read([Document("\u0958a", "a", "mixed"), Document(" \n", "b", "other")], Letters())
    assert texts.chars.tolist() == [3]  # the nukta letter is two, and blank documents are none
    with pytest.raises(UsageError, match="no text to evaluate in 1 documents"):
        Texts.read([Document(" ", "a", "other")], Letters())


def test_half_of_the_prompts_are_roman_and_the_reference_is_what_follows():
    prompts = generation.choose_prompts(DOCUMENTS, Letters(), 40, words=2, new_tokens=5, seed=0)
    roman = [prompt for prompt in prompts if set(prompt.text) <= set("ab ")]
    assert len(roman) == 20
    for prompt in prompts:
        assert any(prompt.text + Letters().decode(prompt.reference) in document.text for document in DOCUMENTS)
        assert prompt.ids == Letters().encode(prompt.text)


def test_the_end_of_text_is_not_part_of_what_was_written():
    from diffulex_edge.runtime.plan import Plan

    plan = Plan(stop_ids=(EOS,))
    assert generation.kept([5, 6, EOS], plan) == [5, 6]
    assert generation.kept([5, 6], plan) == [5, 6]
    assert generation.kept([], plan) == []


def test_texts_are_written_by_a_trained_mode_if_there_is_one():
    assert generating_mode(Toy(uniform)) == "block"
    assert (
        generating_mode(Toy(uniform, ("memory", "full"))) == "block"
    )  # the toy says it was trained for full and block
    with pytest.raises(UsageError, match="canvas"):
        generating_mode(Toy(uniform, ("canvas",)))


def prepared(folder: Path, fingerprint: str = "letters") -> Path:
    """A data folder as `prepare` leaves it, as far as the judge reads it."""
    ids = np.concatenate([np.append(Letters().encode(document.text), EOS) for document in DOCUMENTS]).astype("<u2")
    folder.mkdir(exist_ok=True)
    (folder / "train.bin").write_bytes(ids.tobytes())
    split = {"file": "train.bin", "sha256": hashlib.sha256(ids.tobytes()).hexdigest()}
    meta = {"format": FORMAT, "dtype": "uint16", "tokenizer": {"fingerprint": fingerprint}, "splits": {"train": split}}
    write_sealed_json(folder / "meta.json", meta)
    return folder


def test_the_judge_learns_from_prepared_data_once_and_says_so(tmp_path):
    folder = prepared(tmp_path / "data")
    result = evaluate(Toy(uniform), Letters(), DOCUMENTS, small(folder))
    judge = result["details"]["judge"]
    assert judge["trained_on"].endswith("train.bin")
    assert judge["ratio"] == pytest.approx(result["bits_per_char"] / judge["bits_per_char"])
    kept = next(folder.glob("judge*.npz"))
    before = kept.stat().st_mtime_ns
    assert judge_of_data(folder, Letters()) is not None
    assert kept.stat().st_mtime_ns == before
    (folder / "train.bin").write_bytes(b"\x04\x00\x02\x00")
    kept.unlink()
    with pytest.raises(ArtefactError, match=r"train\.bin: corrupt"):
        judge_of_data(folder, Letters())


def test_a_changed_meta_json_is_no_judge(tmp_path):
    folder = prepared(tmp_path / "data")
    meta = (folder / "meta.json").read_text()
    (folder / "meta.json").write_text(meta.replace("letters", "lettres"))
    with pytest.raises(ArtefactError, match=r"meta\.json: its sha256"):
        judge_of_data(folder, Letters())


def test_without_data_of_this_vocabulary_the_judge_learns_from_the_documents_and_claims_no_likelihood(tmp_path):
    folder = prepared(tmp_path / "data", "another vocabulary")
    judge = evaluate(Toy(uniform), Letters(), DOCUMENTS, small(folder))["details"]["judge"]
    assert judge["trained_on"] == "the evaluated documents"
    assert judge["bits_per_char"] is None


def test_no_texts_are_no_figures_and_no_error(tmp_path):
    result = evaluate(Toy(uniform), Letters(), DOCUMENTS, small(tmp_path, generations=0))
    assert [result[name] for name in ("judge_ppl", "entropy", "rep4", "distinct2")] == [None] * 4


@pytest.mark.parametrize("change", [{"window": 0}, {"mode": "frozen"}, {"steps": 0}, {"seed": -1}, {"generations": -1}])
def test_nonsense_settings_are_refused_by_name(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        EvalConfig(**change)


def test_a_model_is_told_the_time_of_its_own_schedule_and_writes_in_its_own_steps(tmp_path):
    told = {}
    for schedule in ("linear", "cosine"):
        model = Toy(uniform)
        model.spec = replace(model.spec, mask_schedule=schedule, sample_steps=3)
        result = evaluate(model, Letters(), DOCUMENTS, small(tmp_path, steps=None))
        assert result["details"]["generation"]["steps"] == 3
        noisy = [call["t"] for call in model.calls if call["t"] is not None]
        told[schedule] = torch.cat([t for t in noisy if (t > 0).all()][:4])
    torch.testing.assert_close(told["cosine"], torch.asin(told["linear"]) * 2 / math.pi)


def test_generated_text_can_be_held_to_the_script_of_its_prompt(tmp_path):
    free, held = (
        evaluate(Toy(uniform), Letters(), DOCUMENTS, small(tmp_path, keep_script=keep)) for keep in (False, True)
    )
    assert free["script_error_rate"] > 0.2
    assert held["script_error_rate"] == 0
    assert held["details"]["generation"]["keep_script"]
    assert held["bits_per_char"] == free["bits_per_char"]
