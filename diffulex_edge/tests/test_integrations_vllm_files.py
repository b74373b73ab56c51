"""What SEDAC in vLLM reads, and what it does without vLLM: no vLLM needed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diffulex_edge.errors import ArtefactError, BackendUnavailable, UsageError
from diffulex_edge.integrations.vllm import register
from diffulex_edge.integrations.vllm.probes import Probe, fingerprint, read_probes, write_probes
from diffulex_edge.integrations.vllm.settings import SedacSettings
from diffulex_edge.tests.tree import ROOT

FILE = "sedac/probes.safetensors"
CHECKPOINT = {"layer_idx": 1, "target_exit_rate": 0.5, "initial_threshold": 0.8, "confidence_weight": 0.3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, as far as probes look at it."""
    save_file({"a.weight": torch.arange(12.0).view(3, 4), "b": torch.tensor(2.0)}, tmp_path / "model.safetensors")
    write_probes(tmp_path / FILE, {1: Probe(torch.arange(4.0), torch.tensor(0.5))}, tmp_path)
    return tmp_path


def test_probes_come_back_as_they_were_written(folder: Path) -> None:
    probe = read_probes(folder, FILE, (1,), 4)[1]
    assert torch.equal(probe.weight, torch.arange(4.0))
    assert float(probe.bias) == 0.5


def test_another_models_probes_are_refused(folder: Path) -> None:
    save_file({"a.weight": torch.ones(3, 4), "b": torch.tensor(2.0)}, folder / "model.safetensors")
    with pytest.raises(ArtefactError, match=r"probes\.safetensors: is made out to another model"):
        read_probes(folder, FILE, (1,), 4)


def test_every_changed_byte_of_probes_is_noticed(folder: Path) -> None:
    path = folder / FILE
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ArtefactError, match=r"probes\.safetensors"):
            read_probes(folder, FILE, (1,), 4)
    for length in (0, 8, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ArtefactError, match=r"probes\.safetensors"):
            read_probes(folder, FILE, (1,), 4)


def test_missing_probes_layers_and_models_are_named(folder: Path) -> None:
    with pytest.raises(ArtefactError, match="no probe of 4 weights for layer 2"):
        read_probes(folder, FILE, (1, 2), 4)
    with pytest.raises(ArtefactError, match="no probe of 5 weights for layer 1"):
        read_probes(folder, FILE, (1,), 5)
    with pytest.raises(ArtefactError, match=r"other\.safetensors: no such file"):
        read_probes(folder, "other.safetensors", (1,), 4)
    with pytest.raises(ArtefactError, match="is no file of risk probes"):
        read_probes(folder, "model.safetensors", (1,), 4)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match="holds no safetensors weights"):
        read_probes(folder, FILE, (1,), 4)


def test_a_fingerprint_is_of_the_weights_and_not_of_the_files(folder: Path, tmp_path_factory: Any) -> None:
    parts = tmp_path_factory.mktemp("parts")
    save_file({"b": torch.tensor(2.0)}, parts / "model-1.safetensors")
    save_file({"a.weight": torch.arange(12.0).view(3, 4)}, parts / "model-2.safetensors")
    assert fingerprint(parts) == fingerprint(folder)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (None, 'no section "sedac"'),
        ({}, "checkpoints=None must be a list"),
        ({"checkpoints": []}, "must be a list"),
        ({"checkpoints": [{**CHECKPOINT, "treshold": 1}]}, "unknown treshold; there are layer_idx"),
        ({"checkpoints": [{"layer_idx": 1}]}, "missing 3 required"),
        ({"checkpoints": ["1"]}, "must be an object with layer_idx"),
        ({"checkpoints": [CHECKPOINT], "block": 4}, "unknown block; there are checkpoints, blocks"),
        ({"checkpoints": [CHECKPOINT], "blocks": 0}, "blocks=0 must be an integer from 1"),
        ({"checkpoints": [CHECKPOINT], "soft_exit": "no"}, "soft_exit='no' must be true or false"),
        ({"checkpoints": [CHECKPOINT], "confidence_decay": 2}, "confidence_decay=2 from 0 to 1"),
        ({"checkpoints": [CHECKPOINT, CHECKPOINT]}, "layer_idx must rise"),
        ({"checkpoints": [{**CHECKPOINT, "initial_threshold": "high"}]}, "sedac: "),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(said: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as failure:
        SedacSettings.read(said)
    assert "\n" not in str(failure.value)


def test_settings_must_fit_the_model() -> None:
    settings = SedacSettings.read({"checkpoints": [CHECKPOINT]})
    settings.check(3, 64)
    with pytest.raises(UsageError, match="layer_idx=1 must be before the last of the model's 2 layers"):
        settings.check(2, 64)
    with pytest.raises(UsageError, match="blocks=8 does not divide the 65 channels"):
        settings.check(3, 65)


def test_registering_is_light_and_may_happen_twice() -> None:
    register()
    register()
    code = "import sys, diffulex_edge.integrations.vllm; print('torch' in sys.modules, 'vllm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("False False\n", "")


def test_the_entry_point_is_the_one_that_pyproject_names() -> None:
    import tomllib

    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vllm.general_plugins"]
    assert said == {"diffulex_sedac": "diffulex_edge.integrations.vllm:register"}
    (name,) = said
    installed = [point for point in entry_points(group="vllm.general_plugins") if point.name == name]
    assert all(point.load() is register for point in installed)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is here")
def test_without_vllm_the_extra_is_named() -> None:
    from diffulex_edge.integrations.vllm import models

    with pytest.raises(BackendUnavailable, match=r"pip install 'diffulex-edge\[vllm\]'"):
        models.SedacQwen2ForCausalLM  # noqa: B018
    with pytest.raises(AttributeError, match="SedacMistral"):
        models.SedacMistralForCausalLM  # noqa: B018
