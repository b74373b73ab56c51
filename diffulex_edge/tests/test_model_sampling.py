"""generation_config.json: what is read, what breaks a rule, and whom it reaches."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffulex_edge import api
from diffulex_edge.errors import ArtefactError
from diffulex_edge.model.sampling import NAME, Sampling


def said(folder: Path, **values: Any) -> Path:
    (folder / NAME).write_text(json.dumps(values))
    return folder


def test_a_folder_that_says_nothing_has_the_defaults(tmp_path: Path) -> None:
    assert Sampling.read(tmp_path) == Sampling()
    assert Sampling.read(said(tmp_path, eos_token_id=5, temperature=None)) == Sampling()
    assert Sampling.read(said(tmp_path, keep_script=True)) == Sampling(keep_script=True)


def test_what_is_said_in_part_cuts_nothing_else_off(tmp_path: Path) -> None:
    assert Sampling.read(said(tmp_path, temperature=0.6)) == Sampling(temperature=0.6, top_p=1.0)
    assert Sampling.read(said(tmp_path, top_k=20)) == Sampling(temperature=1.0, top_k=20, top_p=1.0)
    said(tmp_path, do_sample=True, temperature=0.6, top_k=20, top_p=0.95, repetition_penalty=1.1)
    assert Sampling.read(tmp_path) == Sampling(temperature=0.6, top_k=20, top_p=0.95)


def test_a_model_that_is_not_to_be_drawn_from_is_greedy(tmp_path: Path) -> None:
    assert Sampling.read(said(tmp_path, do_sample=False, temperature=0.6)).temperature == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", value) for value in (-1, "hot", True, 1e999)),
        *(("top_k", value) for value in (-1, 2.5, False)),
        *(("top_p", value) for value in (0, 1.1, [0.9])),
        *(("keep_script", value) for value in (1, "yes")),
        ("do_sample", 0),
    ],
)
def test_a_value_that_breaks_its_rule_is_named_with_file_and_rule(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(ArtefactError, match=re.escape(f"{NAME}: {name}={value!r} must be ")):
        Sampling.read(said(tmp_path, **{name: value}))


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("[]")
    with pytest.raises(ArtefactError, match="must be an object, is list"):
        Sampling.read(tmp_path)


@pytest.mark.parametrize("own", [Sampling(), Sampling(temperature=0.7, top_k=3, top_p=1.0, keep_script=True)])
def test_what_is_written_is_read_back(tmp_path: Path, own: Sampling) -> None:
    assert Sampling.read(said(tmp_path, **own.document())) == own


def test_wishes_go_before_what_the_model_says() -> None:
    own = Sampling(temperature=0.7, keep_script=True)
    assert own.override(temperature=None, top_k=None, steps=4) == own
    assert own.override(temperature=0.0, keep_script=False) == Sampling(temperature=0.0)


def test_load_puts_it_into_the_spec(tiny_run: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.run, tmp_path / "run")
    assert api.load(tmp_path / "run")[0].spec.sampling == Sampling()
    [step] = (tmp_path / "run").glob("step-*")
    said(step, top_k=7)
    assert api.load(tmp_path / "run")[0].spec.sampling.top_k == 7
