"""Every command line that the project's first documents print runs as printed, in a folder that starts empty."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffulex_edge.tests.tree import ROOT

COLAB = "python -m colab_train_eco --max_steps 500 --save_interval 100 --log_interval 10 --compile"
PRIMARY = """python -m train \\
  --model primary \\
  --data_dir data/processed \\
  --output_dir checkpoints/eco_hybrid_hi \\
  --edge_profile laptop \\
  --max_steps 5000"""
BACKUP = """python -m train \\
  --model backup \\
  --data_dir data/processed \\
  --output_dir checkpoints/diffusion_hi \\
  --edge_profile laptop \\
  --max_steps 5000"""
SAMPLE = """python -m sample \\
  --ckpt checkpoints/eco_hybrid_hi/latest.pt \\
  --tokenizer data/tokenizer/aria_hindi.model \\
  --model primary \\
  --prompt "mai kal bazaar gaya tha" \\
  --max_new_tokens 128 \\
  --edge_profile max \\
  --blockwise \\
  --frozen_context \\
  --min_decode_layers 3"""
SPEED = """python -m sample \\
  --ckpt checkpoints/eco_hybrid_hi/latest.pt \\
  --tokenizer data/tokenizer/aria_hindi.model \\
  --model primary \\
  --prompt "namaste" \\
  --max_new_tokens 128 \\
  --blockwise \\
  --frozen_context \\
  --benchmark_runs 5 \\
  --warmup_runs 1"""
BENCH = """python -m edge_benchmark \\
  --ckpt checkpoints/eco_hybrid_hi/latest.pt \\
  --tokenizer data/tokenizer/aria_hindi.model \\
  --model primary \\
  --modes full block block_frozen \\
  --runs_per_prompt 3"""
FIRST_REAL_RUN = """python -m diffusion.train_eco_hybrid \\
  --data_dir data/processed \\
  --output_dir checkpoints/eco_hybrid_hi_v1 \\
  --seq_len 512 \\
  --batch_size 4 \\
  --grad_accum 8 \\
  --d_model 512 \\
  --n_layers 10 \\
  --n_heads 8 \\
  --d_ff 1536 \\
  --memory_slots 16 \\
  --conv_kernel 7 \\
  --timesteps 32 \\
  --sample_steps 12 \\
  --max_steps 5000 \\
  --compile"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all commands of this file run; the one-shot command fills it first, as on a new machine."""
    place = tmp_path_factory.mktemp("checkout")
    said = run(place, COLAB + " --max_steps 1")
    for name in ("data/processed/train.bin", "data/processed/meta.json", "data/tokenizer/aria_hindi.model"):
        assert (place / name).exists(), said
    assert list((place / "checkpoints/eco_hybrid_hi").glob("step-*")), said
    (place / "said.txt").write_text(said)
    return place


def run(place: Path, command: str, **more: str) -> str:
    """Runs a printed command line in `place`, which sees the checkout's scripts; gives what it said on both streams.

    more: environment variables.
    """
    python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `python` is the one that runs the tests
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    env = {
        **os.environ,
        **offline,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "PATH": python,
        **more,
    }
    done = subprocess.run(
        ["bash", "-c", command], cwd=place, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_the_one_shot_command_says_where_its_text_is_from(folder: Path) -> None:
    assert "built-in grammar" in (folder / "said.txt").read_text()


@pytest.mark.parametrize("command", [PRIMARY, BACKUP], ids=["primary", "backup"])
def test_training_commands_run(folder: Path, command: str) -> None:
    run(folder, command + " --max_steps 2")


@pytest.mark.parametrize("command", [SAMPLE, SPEED, BENCH], ids=["sample", "speed", "bench"])
def test_sampling_commands_run(folder: Path, command: str) -> None:
    run(folder, command)


def test_the_first_real_run_of_the_design_document_runs(folder: Path) -> None:
    """Its --compile is taken but not carried out: the one-shot command compiles already, and this takes minutes."""
    run(folder, FIRST_REAL_RUN + " --max_steps 1", TORCHDYNAMO_DISABLE="1")


@pytest.mark.parametrize(
    "command",
    [
        "python -m diffusion.train_diffusion --max_steps 1 --output_dir checkpoints/old --n_layers 2",
        "python -m diffusion.sample_diffusion --ckpt checkpoints/diffusion_hi/latest.pt --max_new_tokens 8",
        "python -m diffusion.sample_eco_hybrid --ckpt checkpoints/eco_hybrid_hi/latest.pt --max_new_tokens 8",
    ],
)
def test_older_script_names_run(folder: Path, command: str) -> None:
    if "diffusion_hi" in command and not (folder / "checkpoints/diffusion_hi").exists():
        run(folder, BACKUP + " --max_steps 2")
    run(folder, command)


def test_the_older_sampling_name_refuses_the_other_model(folder: Path) -> None:
    if not (folder / "checkpoints/diffusion_hi").exists():
        run(folder, BACKUP + " --max_steps 2")
    with pytest.raises(AssertionError, match="--model primary, but"):
        run(folder, "python -m diffusion.sample_eco_hybrid --ckpt checkpoints/diffusion_hi/latest.pt --prompt kal")
