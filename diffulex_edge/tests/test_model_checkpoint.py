"""Checkpoints: whole or absent, verified before use, placed exactly once."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch

from diffulex_edge import files
from diffulex_edge.errors import ArtefactError, ResourceError
from diffulex_edge.model import checkpoint
from diffulex_edge.tests import toys


def publish(folder: Path, seed: int = 0) -> Path:
    model = toys.randomise(toys.eco(), seed)
    config = checkpoint.model_config("eco_hybrid", model.config, "fingerprint")
    checkpoint.write(
        folder,
        {
            "model.safetensors": checkpoint.tensors(dict(model.named_parameters())),
            "config.json": checkpoint.document(config),
        },
    )
    return folder


def test_what_is_loaded_is_what_was_written(tmp_path: Path) -> None:
    model, folder = checkpoint.load_model(publish(tmp_path / "step-00000001"))
    torch.testing.assert_close(model(toys.ids(1, 8))[0], toys.eco()(toys.ids(1, 8))[0])
    assert model.spec.trained_modes == toys.MODES and not model.training
    assert folder == tmp_path / "step-00000001"


def test_a_run_and_its_latest_pt_mean_the_newest_intact_checkpoint(tmp_path: Path) -> None:
    publish(tmp_path / "step-00000005", seed=5)
    publish(tmp_path / "step-00000010", seed=10)
    assert checkpoint.find(tmp_path) == tmp_path / "step-00000010"
    with open(tmp_path / "step-00000010" / "model.safetensors", "r+b") as file:
        file.seek(-3, 2)
        file.write(b"x")
    assert checkpoint.find(tmp_path / "latest.pt") == tmp_path / "step-00000005"


def test_a_run_without_an_intact_checkpoint_says_which_file_is_bad(tmp_path: Path) -> None:
    (publish(tmp_path / "step-00000005") / "model.safetensors").write_bytes(b"")
    with pytest.raises(ArtefactError, match="model.safetensors"):
        checkpoint.find(tmp_path)
    with pytest.raises(ArtefactError, match="no checkpoint here"):
        checkpoint.find(tmp_path / "nowhere")


def test_every_bit_flip_and_truncation_is_detected_and_a_file_named(tmp_path: Path) -> None:
    """500 flips and 100 truncations over all files of a checkpoint."""
    folder = publish(tmp_path / "step-00000005")
    contents = {path: path.read_bytes() for path in folder.iterdir()}
    rng = random.Random(0)
    for trial in range(600):
        path, data = rng.choice(sorted(contents.items()))
        if trial < 500:
            broken = bytearray(data)
            broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            broken = bytearray(data[: rng.randrange(len(data))])
        path.write_bytes(broken)
        with pytest.raises(ArtefactError, match="step-00000005/"):
            checkpoint.find(folder)
        path.write_bytes(data)
    checkpoint.find(folder)


def test_tensors_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    model = toys.eco()
    values: dict[str, torch.Tensor] = dict(model.named_parameters())
    values["stranger"] = values.pop("slots0")
    safetensors.torch.save_file(values, tmp_path / "w.safetensors")
    with pytest.raises(ArtefactError, match="slots0, stranger"):
        checkpoint.place(model, checkpoint.read_tensors(tmp_path / "w.safetensors"), tmp_path / "w.safetensors")


@pytest.mark.parametrize("values", [{"d_model": -1}, {"d_modle": 32}, {"d_model": "wide"}, {"conv_kernel": 4}, 7])
def test_a_config_with_nonsense_names_its_file(values: object) -> None:
    from diffulex_edge.model.families import config_from_dict

    with pytest.raises(ArtefactError, match=r"some/config\.json"):
        config_from_dict("eco_hybrid", values, "some/config.json")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_what_was_there_and_leaves_no_rubbish(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish(tmp_path / "step-00000005", seed=5)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(code, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ResourceError, match="what was there before is unchanged"):
        publish(folder, seed=6)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_old_checkpoints_go_and_so_does_what_a_killed_writer_left(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        publish(tmp_path / f"step-{step:08d}")
    (tmp_path / ".step-00000005.999.tmp").mkdir()
    checkpoint.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_a_manifest_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    folder = publish(tmp_path / "step-00000005")
    entries = {"../outside": {"sha256": "0" * 64, "size": 1}}
    files.write_json(
        folder / "manifest.json",
        {"format": checkpoint.FORMAT, "files": entries, "digest": checkpoint._digest(entries)},
    )
    with pytest.raises(ArtefactError, match="outside"):
        checkpoint.verify(folder)


def test_a_full_disk_under_the_tensors_costs_nothing_that_was_there(tmp_path: Path) -> None:
    """safetensors has an error of its own for it; a limit on the size of files stands for the full disk."""
    resource = pytest.importorskip("resource")
    whole = publish(tmp_path / "step-00000005")
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ResourceError, match="step-00000005: File too large; what was there before is unchanged"):
            checkpoint.write(whole, {"w.safetensors": checkpoint.tensors({"w": torch.zeros(1 << 16)})})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_passing_over_a_damaged_checkpoint_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = publish(tmp_path / "step-00000005"), publish(tmp_path / "step-00000006")
    assert checkpoint.find(tmp_path) == bad
    assert capsys.readouterr().err == ""
    (bad / "manifest.json").unlink()
    (bad / "manifest.json").mkdir()
    assert checkpoint.find(tmp_path) == good
    said = capsys.readouterr().err
    assert "manifest.json: no such file; going on with step-00000005" in said
    assert said.count("\n") == 1
