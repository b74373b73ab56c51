"""The library's way in: what `load` takes, and the names of the package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import diffulex_edge
from diffulex_edge import api
from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.decode import Finished
from diffulex_edge.tests.conftest import TinyRun
from diffulex_edge.text.tokenizer import train_tokenizer


def test_load_takes_a_run_a_checkpoint_and_latest_pt(tiny_run: TinyRun) -> None:
    [step] = tiny_run.run.glob("step-*")
    for path in (tiny_run.run, str(tiny_run.run), step, tiny_run.run / "latest.pt"):
        denoiser, tokenizer = diffulex_edge.load(path)
        assert isinstance(denoiser, Denoiser)
        assert tokenizer.vocab_size == denoiser.spec.vocab_size
        assert tokenizer.mask_id == denoiser.spec.mask_id


def test_generate_infill_and_decode_work_on_what_load_gives(tiny_run: TinyRun) -> None:
    denoiser, tokenizer = diffulex_edge.load(tiny_run.run)
    plan = diffulex_edge.Plan(max_new_tokens=8, steps=2)
    assert isinstance(diffulex_edge.generate(denoiser, tokenizer, "आज", plan), str)
    filled = diffulex_edge.infill(denoiser, tokenizer, "आज ___ है", plan, lengths=2)
    assert filled.startswith("आज")
    assert filled.endswith("है")
    *_, last = diffulex_edge.decode(denoiser, [tokenizer.encode("आज")], plan)
    assert isinstance(last, Finished)
    assert tokenizer.mask_id not in last.tokens[0]


def test_a_tokenizer_may_be_named_but_must_have_the_same_vocabulary(tiny_run: TinyRun, tmp_path: Path) -> None:
    assert diffulex_edge.load(tiny_run.run, tokenizer=tiny_run.tokenizer)[1].mask_id == 3
    other = tmp_path / "other.model"
    train_tokenizer(["नदी के किनारे एक पेड़ है। " * 20], other, vocab_size=512)
    with pytest.raises(ArtefactError, match=r"other\.model.*vocabulary"):
        diffulex_edge.load(tiny_run.run, tokenizer=other)


def test_a_run_whose_tokenizer_is_gone_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.run, tmp_path / "run")
    [words] = (tmp_path / "run").glob("step-*/tokenizer.model")
    words.unlink()
    with pytest.raises(ArtefactError, match=r"tokenizer\.model"):
        diffulex_edge.load(tmp_path / "run")


def test_a_name_that_is_nothing_is_a_usage_error_and_a_path_that_is_not_there_a_bad_artefact(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="aria-hindi-tiny"):
        diffulex_edge.load("aria-bengali-huge")
    with pytest.raises(ArtefactError, match="none"):
        diffulex_edge.load(tmp_path / "none" / "run")


def test_a_folder_here_goes_before_a_shipped_model_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / api.SHIPPED).mkdir()
    monkeypatch.chdir(tmp_path)
    assert api.locate(api.SHIPPED) == Path(api.SHIPPED)


def test_public_names_are_listed_and_unknown_ones_are_attribute_errors() -> None:
    assert {"load", "decode", "Plan", "official_plan", "generate", "infill", "__version__"} <= set(dir(diffulex_edge))
    with pytest.raises(AttributeError, match="nothing"):
        diffulex_edge.nothing  # noqa: B018
