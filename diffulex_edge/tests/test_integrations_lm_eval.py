"""The real harness asks a checkpoint whose every answer can be worked out by hand. Nothing comes from a network."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from diffulex_edge.errors import BackendUnavailable, UsageError
from diffulex_edge.files import write_json
from diffulex_edge.integrations import lm_eval as ours
from diffulex_edge.integrations.answers import AnswerConfig, Answers
from diffulex_edge.model import checkpoint
from diffulex_edge.model.families import build
from diffulex_edge.model.transformer import TransformerConfig
from diffulex_edge.tests.bench_toys import Letters, Toy, reader
from diffulex_edge.tests.tree import ROOT
from diffulex_edge.text.tokenizer import load_tokenizer

CHANCES = {"a": 0.5, "b": 0.25, "c": 0.125, "d": 0.125}
CHOICES: list[dict[str, Any]] = [  # two choices: log 1/4 against log 1/16; the likelier is the longer only a character
    {"question": "aab", "choices": ["aa", "bb"], "label": 0},  # right
    {"question": "cd", "choices": ["bb", "aa"], "label": 0},  # wrong
    {"question": "", "choices": ["b", "aaaa"], "label": 0},  # right: log 1/4 > log 1/16; not a character: -1.39 < -0.69
]


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that says the same of every place: a with 1/2, b with 1/4, c and d with 1/8. A token is a byte."""
    root = tmp_path_factory.mktemp("unigram")
    letters = ["[PAD]", "[MASK]", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.decoder = decoders.ByteLevel()
    words.add_special_tokens(letters[:3])
    words.save(str(root / "tokenizer.json"))
    tokenizer = load_tokenizer(root / "tokenizer.json")
    config = TransformerConfig(
        vocab_size=len(letters),
        mask_id=1,
        d_model=8,
        n_layers=1,
        n_heads=1,
        head_dim=8,
        d_ff=8,
        trained_modes=("full",),
    )
    weights = {name: torch.zeros_like(p) for name, p in build("transformer", config).named_parameters()}
    weights["ends.head_bias"] -= 1e9
    for letter, p in CHANCES.items():
        weights["ends.head_bias"][tokenizer.encode(letter)[0]] = math.log(p)
    about = checkpoint.model_config("transformer", config, tokenizer.fingerprint)
    checkpoint.write(
        root / "model",
        {
            "model.safetensors": checkpoint.tensors(weights),
            "config.json": lambda path: write_json(path, about),
            "tokenizer.json": lambda path: words.save(str(path)),
        },
    )
    return root / "model"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three tasks and their documents."""
    root = tmp_path_factory.mktemp("tasks")
    metrics = "metric_list: [{metric: acc}, {metric: acc_norm}]"
    write_task(
        root, "toy_choice", CHOICES, "multiple_choice", "{{question}}", "label", f"doc_to_choice: choices\n{metrics}"
    )
    texts = [{"text": "aaaa"}, {"text": "bbbbbb"}]
    write_task(
        root, "toy_rolling", texts, "loglikelihood_rolling", "", "{{text}}", "metric_list: [{metric: bits_per_byte}]"
    )
    writing = [{"question": "क", "answer": "ab"}, {"question": "कम", "answer": "b"}, {"question": "ab", "answer": "ab"}]
    settings = "generation_kwargs: {until: [' '], max_gen_toks: 9}\nmetric_list: [{metric: exact_match}]"
    write_task(root, "toy_writing", writing, "generate_until", "{{question}}", "{{answer}}", settings)
    return root


def write_task(
    root: Path, name: str, documents: list[dict[str, Any]], kind: str, text: str, target: str, more: str
) -> None:
    lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    (root / f"{name}.jsonl").write_text(lines)
    (root / f"{name}.yaml").write_text(
        f"task: {name}\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {root / name}.jsonl}}, cache_dir: {root / 'cache'}}}\n"
        f"output_type: {kind}\ntest_split: test\ndoc_to_text: '{text}'\ndoc_to_target: '{target}'\n"
        f"target_delimiter: ''\n{more}\n"
    )


@pytest.fixture
def harness(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """lm-eval's own `simple_evaluate`, offline, over the tasks of the folder."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    pytest.importorskip("lm_eval", reason="the eval extra is not installed")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    ours.register()
    manager = TaskManager(include_path=str(tasks), include_defaults=False)

    def evaluate(task: str, model: Any, **more: Any) -> dict[str, Any]:
        found = simple_evaluate(model=model, tasks=[task], task_manager=manager, bootstrap_iters=0, **more)
        assert found is not None
        return found

    return evaluate


def test_a_multiple_choice_task_is_scored_as_worked_out_by_hand(harness: Any, unigram: Path) -> None:
    """Tokens of one kind have no chance in their bound: L / l times l log p is L log p."""
    found = harness("toy_choice", "diffulex", model_args=f"pretrained={unigram},samples=4,threads=1")
    assert found["results"]["toy_choice"]["acc,none"] == pytest.approx(2 / 3)
    assert found["results"]["toy_choice"]["acc_norm,none"] == pytest.approx(1 / 3)
    samples = sorted(found["samples"]["toy_choice"], key=lambda sample: sample["doc_id"])
    for document, sample in zip(CHOICES, samples, strict=True):
        told = [value for [(value, _)] in sample["resps"]]
        by_hand = [sum(math.log(CHANCES[letter]) for letter in choice) for choice in document["choices"]]
        assert told == pytest.approx(by_hand, rel=1e-5)
        assert [greedy for [(_, greedy)] in sample["resps"]] == ["b" not in choice for choice in document["choices"]]


def test_a_whole_text_costs_what_its_letters_cost(harness: Any, unigram: Path) -> None:
    found = harness(
        "toy_rolling", "diffulex", model_args={"pretrained": str(unigram), "samples": 2, "window": 4, "threads": 1}
    )
    assert found["results"]["toy_rolling"]["bits_per_byte,none"] == pytest.approx((4 * 1 + 6 * 2) / 10, rel=1e-5)


def test_a_checkpoint_writes_its_likeliest_letter_to_the_length_asked_for(harness: Any, unigram: Path) -> None:
    found = harness(
        "toy_writing", "diffulex", model_args=f"pretrained={unigram},block_size=4,steps=2,threads=1", batch_size=2
    )
    assert [sample["resps"] for sample in found["samples"]["toy_writing"]] == [[["a" * 9]]] * 3
    assert found["results"]["toy_writing"]["exact_match,none"] == 0


def test_a_generation_task_ends_at_its_stop_string(harness: Any, unigram: Path) -> None:
    """The reader writes "ab ab", "b ab" and " ab a": up to the first space that is two of three right."""
    model = ours.register()(pretrained=str(unigram), threads=1)
    model.answers = Answers(Toy(reader), Letters(), AnswerConfig(batch_size=3, block_size=2))
    found = harness("toy_writing", model)
    assert [sample["resps"] for sample in found["samples"]["toy_writing"]] == [[["ab"]], [["b"]], [[""]]]
    assert found["results"]["toy_writing"]["exact_match,none"] == pytest.approx(2 / 3)


def test_each_answer_is_handed_to_the_cache_as_it_is_found(harness: Any, unigram: Path) -> None:
    from lm_eval.api.instance import Instance

    class Kept(list):
        def add_partial(self, *kept: Any) -> None:
            self.append(kept)

    model = ours.register()(pretrained=str(unigram), threads=1, samples=1)
    model.cache_hook = Kept()
    pairs = [("a", "ab"), ("a", "b")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    told = model.loglikelihood(requests, disable_tqdm=True)
    assert sorted(model.cache_hook) == [
        ("loglikelihood", pair, answer) for pair, answer in zip(pairs, told, strict=True)
    ]


@pytest.mark.parametrize("quiet", [True, False])
def test_the_progress_bar_can_be_switched_off(harness: Any, unigram: Path, capsys: Any, quiet: bool) -> None:
    from lm_eval.api.instance import Instance

    model = ours.register()(pretrained=str(unigram), threads=1, window=4)
    capsys.readouterr()
    model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("aaaa",), 0)], disable_tqdm=quiet)
    assert ("1/1" in capsys.readouterr().err) != quiet


def test_without_lm_eval_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lm_eval", "lm_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'diffulex-edge\[eval\]'"):
        ours.register.__wrapped__()


def test_model_args_that_mean_nothing_are_refused(unigram: Path) -> None:
    with pytest.raises(UsageError, match=r"sample: .* samples"):
        ours.open_answers(pretrained=str(unigram), threads=1, sample=3)
    with pytest.raises(UsageError, match="device='cuda'"):
        ours.open_answers(pretrained=str(unigram), threads=1, device="cuda")
    with pytest.raises(UsageError, match="threads=0"):
        ours.open_answers(pretrained=str(unigram), threads=0)
    assert (
        ours.open_answers(pretrained=str(unigram), threads=1, batch_size="auto", max_batch_size=3).config.batch_size
        == 3
    )


@pytest.mark.slow
def test_the_command_line_is_that_of_lm_eval_with_the_model_at_hand(unigram: Path, tasks: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the eval extra is not installed")
    command = [sys.executable, "-m", "diffulex_edge.integrations.lm_eval", "--tasks", "toy_choice"]
    command += ["--include_path", str(tasks), "--model_args", f"pretrained={unigram},samples=4,threads=1"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command += ["--output_path", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    [written] = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(written.read_text())
    assert results["results"]["toy_choice"]["acc,none"] == pytest.approx(2 / 3)
    assert results["config"]["model"] == "diffulex"
    bad = subprocess.run([*command, "--device", "cuda"], env=environment, capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert bad.stderr.splitlines()[-1].startswith("error: device='cuda'")
