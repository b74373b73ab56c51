"""The verbs that use a model, on a run of three steps: what they print, what they write as JSON, what they promise."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffulex_edge.cli.main import main
from diffulex_edge.model import checkpoint
from diffulex_edge.tests.conftest import TinyRun
from diffulex_edge.text.script import script_errors

Said = pytest.CaptureFixture[str]
SHORT = ["--max_new_tokens", "12", "--steps", "3", "--threads", "1"]


def result(argv: list[str], capsys: Said) -> dict[str, Any]:
    """What the command writes to standard output as JSON, and nothing else."""
    capsys.readouterr()
    assert main([*argv, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "mode", [[], ["--blockwise"], ["--blockwise", "--frozen_context"], ["--blockwise", "--block_size", "8"]], ids=str
)
def test_sample_writes_text_in_each_mode(tiny_run: TinyRun, capsys: Said, mode: list[str]) -> None:
    said = result(["sample", "--ckpt", str(tiny_run.run), "--prompt", "आज", *SHORT, *mode], capsys)
    assert said["text"].startswith("आज")
    assert 1 <= said["tokens"] <= 12
    assert said["forwards"] >= 1


def test_sample_prints_the_text_and_what_it_cost(tiny_run: TinyRun, capsys: Said) -> None:
    assert main(["sample", "--ckpt", str(tiny_run.run), "--prompt", "आज", *SHORT]) == 0
    said = capsys.readouterr().out
    assert said.startswith("आज")
    assert "tok/s" in said


def test_the_same_seed_gives_the_same_text_and_another_seed_another(tiny_run: TinyRun, capsys: Said) -> None:
    base = ["sample", "--ckpt", str(tiny_run.run), "--prompt", "आज", "--temperature", "1.5", *SHORT]
    one, two = (result([*base, "--seed", "1"], capsys)["text"] for _ in range(2))
    other = result([*base, "--seed", "2"], capsys)["text"]
    assert one == two != other


def test_sample_reads_standard_input(tiny_run: TinyRun, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("आज".encode())))
    assert result(["sample", "--ckpt", str(tiny_run.run), "--prompt", "-", *SHORT], capsys)["prompt"] == "आज"


def test_latest_pt_of_a_run_stands_for_its_newest_checkpoint(tiny_run: TinyRun, capsys: Said) -> None:
    by_name = result(["sample", "--ckpt", str(tiny_run.run / "latest.pt"), "--prompt", "आज", *SHORT], capsys)
    by_run = result(["sample", "--ckpt", str(tiny_run.run), "--prompt", "आज", *SHORT], capsys)
    assert by_name["text"] == by_run["text"]


@pytest.mark.parametrize("profile", ["phone", "pi", "laptop", "max"])
def test_every_edge_profile_decodes(tiny_run: TinyRun, capsys: Said, profile: str) -> None:
    flags = ["--edge_profile", profile, "--precision", "fp32", "--max_new_tokens", "8", "--threads", "1"]
    assert result(["sample", "--ckpt", str(tiny_run.run), "--prompt", "आज", *flags], capsys)["tokens"] >= 1


def test_sample_in_bf16_writes_text_too(tiny_run: TinyRun, capsys: Said) -> None:
    flags = ["--precision", "bf16", "--blockwise", "--frozen_context"]
    assert result(["sample", "--ckpt", str(tiny_run.run), "--prompt", "आज", *SHORT, *flags], capsys)["tokens"] >= 1


def test_a_benchmark_comes_with_its_quality(tiny_run: TinyRun, capsys: Said) -> None:
    flags = ["--benchmark_runs", "2", "--warmup_runs", "1", "--blockwise"]
    said = result(["sample", "--ckpt", str(tiny_run.run), "--prompt", "आज", *SHORT, *flags], capsys)
    [row] = said["benchmark"]["rows"]
    assert row["tokens_per_s"] > 0
    assert row["block_nelbo"] > 0


def test_guidance_changes_the_text_and_what_a_benchmark_measures_runs_with_it(tiny_run: TinyRun, capsys: Said) -> None:
    base = ["sample", "--ckpt", str(tiny_run.run), "--prompt", "आज घर", "--temperature", "0", *SHORT]
    plain, guided = result(base, capsys), result([*base, "--cfg_scale", "300"], capsys)
    assert plain["text"] != guided["text"]
    assert plain["forwards"] == guided["forwards"]
    assert result([*base, "--cfg_scale", "0"], capsys)["text"] == plain["text"]
    measured = result([*base, "--cfg_scale", "2", "--benchmark_runs", "1", "--blockwise"], capsys)["benchmark"]
    assert measured["rows"][0]["tokens_per_s"] > 0


def test_infill_takes_guidance_too(tiny_run: TinyRun, capsys: Said) -> None:
    flags = ["--cfg_scale", "300", "--length", "4", "--threads", "1"]
    texts = [
        result(["infill", "मैं ___ गया", "--ckpt", str(tiny_run.run), *flags[more:]], capsys)["filled"] for more in (0, 2)
    ]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("prompt", ["आज बाज़ार", "aaj bazaar"])
def test_text_can_be_held_to_the_script_that_was_given(tiny_run: TinyRun, capsys: Said, prompt: str) -> None:
    base = ["--ckpt", str(tiny_run.run), "--threads", "1", "--temperature", "5", "--top_p", "1"]
    sample = ["sample", "--prompt", prompt, "--max_new_tokens", "40", *base]
    fill = ["infill", f"{prompt} ___", "--length", "40", *base]
    for verb, name in ((sample, "text"), (fill, "filled")):
        assert script_errors(result(verb, capsys)[name], prompt).errors
        assert not script_errors(result([*verb, "--keep_script", "True"], capsys)[name], prompt).errors


def test_the_steps_can_be_drawn(tiny_run: TinyRun, capsys: Said, tmp_path: Path) -> None:
    picture = tmp_path / "p.svg"
    flags = ["--picture", str(picture), "--prompt", "आज"]
    done = result(["sample", "--ckpt", str(tiny_run.run), *SHORT, *flags], capsys)
    assert picture.read_text().count("<text") == done["forwards"] + 1


def test_asking_for_frozen_context_without_training_for_it_warns(
    tiny_run: TinyRun, capsys: Said, tmp_path: Path
) -> None:
    model, folder = checkpoint.load_model(tiny_run.run)
    model_type, config, fingerprint = checkpoint.read_config(folder)
    writers = {
        "model.safetensors": checkpoint.tensors(dict(model.named_parameters())),
        "config.json": checkpoint.document(
            checkpoint.model_config(model_type, replace(config, trained_modes=("full", "block")), fingerprint)
        ),
        "tokenizer.model": checkpoint.copy_of(folder / "tokenizer.model"),
    }
    checkpoint.write(tmp_path / "untrained", writers)
    base = ["sample", "--prompt", "आज", *SHORT, "--blockwise"]
    capsys.readouterr()
    assert main([*base, "--ckpt", str(tmp_path / "untrained"), "--frozen_context"]) == 0
    assert "not trained for --frozen_context" in capsys.readouterr().err
    assert main([*base, "--ckpt", str(tmp_path / "untrained")]) == 0
    assert main([*base, "--ckpt", str(tiny_run.run), "--frozen_context"]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("lengths", [[], ["--length", "2"], ["--lengths", "1", "3"]], ids=str)
def test_infill_fills_every_gap_and_changes_nothing_else(tiny_run: TinyRun, capsys: Said, lengths: list[str]) -> None:
    text = "मैं कल ___ गया और ___ खरीदी"
    said = result(["infill", text, "--ckpt", str(tiny_run.run), "--threads", "1", *lengths], capsys)
    start, middle, end = text.split("___")
    assert said["filled"].startswith(start.rstrip())
    assert said["filled"].endswith(end)
    assert middle in said["filled"]
    assert "___" not in said["filled"]


def test_eval_writes_every_key_it_promises(tiny_run: TinyRun, capsys: Said, tmp_path: Path) -> None:
    documents = tmp_path / "held_out.jsonl"
    lines = [{"text": "मैं कल बाज़ार गया। " * 8, "script": "devanagari"}, {"text": "main kal ghar gaya. " * 8}]
    documents.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ["--data", str(documents), "--generations", "4", "--new_tokens", "8", "--judge_data", str(tiny_run.data)]
    said = result(["eval", "--ckpt", str(tiny_run.run), "--threads", "1", *flags], capsys)
    promised = (
        "bits_per_char nelbo_nats_per_token stderr by_script block_nelbo masked_pll pll_t0 judge_ppl entropy rep4 "
        "distinct2 script_error_rate ill_formed_rate ece aurc"
    )
    assert set(promised.split()) <= set(said)
    assert set(said["block_nelbo"]) == {"full", "block", "block_frozen", "isolated", "memory_shuffled"}
    assert said["bits_per_char"] > 0


def test_bench_compares_the_modes_and_can_draw(tiny_run: TinyRun, capsys: Said, tmp_path: Path) -> None:
    flags = "--modes full block block_frozen --max_new_tokens 8 --runs_per_prompt 1 --quality_documents 2 --threads 1"
    chart = tmp_path / "chart.svg"
    said = result(["bench", "--ckpt", str(tiny_run.run), *flags.split(), "--plot", str(chart)], capsys)
    assert [row["name"] for row in said["rows"]] == ["full", "block", "block_frozen"]
    assert chart.stat().st_size > 0


def test_bench_of_training_names_the_share_of_the_machine(tiny_run: TinyRun, capsys: Said) -> None:
    flags = ["--train", "--recipe", "phone", "--data_dir", str(tiny_run.data), "--threads", "1", "--precision", "fp32"]
    few = ["--rounds", "2", "--sizes", "64", "--warmup_steps", "1"]
    said = result(["bench", *flags, *few], capsys)
    assert said["training_number_type"] == "fp32"
    assert said["utilisation"]["fp32"] > 0


def test_prepare_tells_what_it_wrote(capsys: Said, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("मैं कल बाज़ार गया। " * 50 + "\n\n" + "kal main ghar gaya. " * 50)
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "आज मौसम अच्छा है। " * 50}) + "\n")
    where = ["--data_dir", str(tmp_path / "data"), "--tokenizer", str(tmp_path / "t.model"), "--vocab_size", "512"]
    said = result(["prepare", "--source", str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl"), *where], capsys)
    assert said["splits"]["train"]["n_tokens"] > 0
    assert (tmp_path / "data" / "train.bin").exists()
