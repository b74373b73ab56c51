"""From a run and its figures to a folder for use, whose figures become its card and its way of sampling."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffulex_edge import api
from diffulex_edge.bench.quality import EvalConfig, evaluate
from diffulex_edge.cli import infill, sample
from diffulex_edge.errors import ArtefactError
from diffulex_edge.model import checkpoint
from diffulex_edge.model.sampling import Sampling
from diffulex_edge.tests.conftest import TinyRun
from diffulex_edge.text.corpus import Document
from diffulex_edge.train.publish import PublishConfig, publish

DRAWN = Sampling(temperature=1.7, top_k=40, top_p=0.8, keep_script=True)
SMALL = EvalConfig(samples=1, generations=2, new_tokens=8, prompt_words=2, steps=2, **vars(DRAWN))
DOCUMENTS = [
    Document("मैं कल बाज़ार गया और सब्ज़ी लाया। वह आज घर पर है।", "a", "devanagari"),
    Document("main kal bazaar gaya aur sabzi laya. woh aaj ghar par hai.", "b", "roman"),
]


@pytest.fixture(scope="module")
def figures(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = replace(SMALL, judge_data=tiny_run.data)
    path = tmp_path_factory.mktemp("figures") / "eval.json"
    path.write_text(json.dumps(evaluate(*api.load(tiny_run.run), DOCUMENTS, config)))
    return path


@pytest.fixture(scope="module")
def published(tiny_run: TinyRun, figures: Path) -> Path:
    credit = figures.with_name("CREDITS.tsv")
    credit.write_text("nobody\n")
    told = PublishConfig(
        source=tiny_run.run,
        target=figures.parent / "model",
        figures=figures,
        history="It was short.",
        credits=(credit,),
    )
    return publish(told)


def test_the_folder_holds_averaged_weights_in_bf16_and_all_that_belongs_to_them(
    tiny_run: TinyRun, published: Path
) -> None:
    own = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.model", "README.md", "CREDITS.tsv"}
    assert set(checkpoint.verify(published)) == own
    written = checkpoint.read_tensors(published / "model.safetensors")
    averaged = checkpoint.read_tensors(checkpoint.find(tiny_run.run) / "ema.safetensors")
    assert written.keys() == averaged.keys()
    assert all(weight.equal(averaged[name].to(weight.dtype)) for name, weight in written.items())
    assert {str(weight.dtype) for weight in written.values()} == {"torch.bfloat16"}


def test_the_card_says_what_was_measured_and_how_to_measure_it_again(figures: Path, published: Path) -> None:
    card, measured = (published / "README.md").read_text(), json.loads(figures.read_text())
    assert f"bound | {measured['bits_per_char']:.3f} ±" in card
    assert f"{measured['details']['judge']['bits_per_char']:.3f} |" in card
    assert "--temperature 1.7 --top_k 40 --top_p 0.8 --keep_script True" in card
    assert "in the script of the prompt alone" in card
    assert "It was short." in card


def test_how_the_figures_were_drawn_is_how_the_model_is_sampled(published: Path) -> None:
    denoiser, tokenizer = api.load(published)
    assert denoiser.spec.sampling == DRAWN
    sampler = sample.Flags().decoding.plan(denoiser, None).sampler
    assert (sampler.temperature, sampler.top_k, sampler.top_p) == (1.7, 40, 0.8)  # type: ignore[attr-defined]
    assert infill.Flags(text="___").decoding.plan(denoiser, None).sampler != sampler  # gaps are filled greedily
    ours = evaluate(denoiser, tokenizer, DOCUMENTS, EvalConfig(samples=1, generations=2, new_tokens=8, prompt_words=2))
    assert ours["details"]["generation"].items() >= vars(DRAWN).items()


def test_a_figure_that_was_not_measured_is_no_blank_in_the_card(
    tiny_run: TinyRun, figures: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.json"
    short.write_text(
        json.dumps({name: value for name, value in json.loads(figures.read_text()).items() if name != "ece"})
    )
    with pytest.raises(KeyError, match="ece"):
        publish(PublishConfig(source=tiny_run.run, target=tmp_path / "model", figures=short))
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_without_a_tokenizer_is_refused(tiny_run: TinyRun, figures: Path, tmp_path: Path) -> None:
    source = checkpoint.find(tiny_run.run)
    kept = ("ema.safetensors", "config.json")
    checkpoint.write(tmp_path / "bare", {name: checkpoint.copy_of(source / name) for name in kept})
    with pytest.raises(ArtefactError, match="no tokenizer"):
        publish(PublishConfig(source=tmp_path / "bare", target=tmp_path / "model", figures=figures))
