"""A device pack: program, tokenizer, and the contract by which any language runs them, with vectors to test it against.

    PACK/  model.pte  model.pte.json  tokenizer.model  runner.json  golden.json  estimate.json  README.md ...
           manifest.json, which has the sha256 of every file here

A pack is a checkpoint's kind of folder: whole or absent, and verified before anything of it is parsed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.export.bundle import export_bundle
from diffulex_edge.export.config import SUFFIX, ExportConfig
from diffulex_edge.export.estimate import estimate
from diffulex_edge.files import read_json
from diffulex_edge.model import checkpoint
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.pte import PteDenoiser
from diffulex_edge.runtime.text import prompt_ids, text_plan
from diffulex_edge.text.tokenizer import Tokenizer, load_tokenizer, tokenizer_files

FORMAT = "diffulex-edge-pack/1"
PROGRAM, RUNNER, GOLDEN, ESTIMATE = "model.pte", "runner.json", "golden.json", "estimate.json"
PROMPTS = ("मैं कल बाज़ार गया", "एक समय की बात है", "mai kal bazaar gaya tha", "Set an alarm", "यह file open करो")
NEW_TOKENS = 48  # of each golden text
KINDS = {".model": "sentencepiece", ".json": "tokenizer.json"}


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """What a pack is made as."""

    target: str = "desktop"  # whose loop comes with it: android (Kotlin), ios (Swift, untested) or desktop
    steps: int | None = None  # reverse steps a block; None: as the model was trained

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UsageError(f"target={self.target!r} is not one of {', '.join(TARGETS)}")


TEMPLATES = Path(__file__).parent / "templates"
TARGETS: dict[str, tuple[str, ...]] = {  # files of templates/ that go along; on a desktop native/runner has the loop
    "desktop": (),
    "android": ("ANDROID.md", "DiffuLex.kt", "DiffuLexAndroid.kt"),
    "ios": ("IOS.md", "DiffuLex.swift"),
}


def make_pack(
    model: Any, source: Path, folder: Path, config: PackConfig, shape: ExportConfig, papers: Sequence[Path] = ()
) -> dict[str, Any]:
    """Exports the model, decodes the golden texts with the program, and writes the folder; gives the contract.

    source: folder that holds the tokenizer. papers: licence, model card and credits to go along.
    """
    with TemporaryDirectory(prefix="pack-", dir=_beside(folder)) as work:
        program = Path(work) / PROGRAM
        export_bundle(model, source, program, shape)
        denoiser, words = PteDenoiser(program, threads=1), load_tokenizer(source)
        plan = text_plan(denoiser, words, plan_for(denoiser.spec, steps=config.steps, max_new_tokens=NEW_TOKENS))
        contract = _contract(denoiser, words, tokenizer_files(source), plan, config)
        golden = {"texts": [_golden(denoiser, words, plan, prompt) for prompt in PROMPTS]}
        loop = (TEMPLATES / name for name in TARGETS[config.target])
        files = [program, program.with_name(PROGRAM + SUFFIX), *tokenizer_files(source), *papers, *loop]
        checkpoint.write(
            folder,
            {
                **{path.name: checkpoint.copy_of(path) for path in files},
                RUNNER: checkpoint.document(contract),
                GOLDEN: checkpoint.document(golden),
                ESTIMATE: checkpoint.document(estimate(denoiser, program)),
            },
        )
    checkpoint.verify(folder)
    return contract


def _beside(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.parent


_SAID = ("backend", "quantization", "context", "block_size", "max_length", "buckets", "banned")  # of the program


def _contract(
    denoiser: PteDenoiser, words: Tokenizer, tokenizer: Sequence[Path], plan: Plan, config: PackConfig
) -> dict[str, Any]:
    about = denoiser.description
    return {
        "format": FORMAT,
        "target": config.target,
        "program": PROGRAM,
        "tokenizer": {
            "file": tokenizer[0].name,
            "kind": KINDS[tokenizer[0].suffix],
            "controls": [words.mask_id, words.eos_id, words.pad_id],
        },
        **{name: about[name] for name in _SAID},
        "mask_id": denoiser.spec.mask_id,
        "stop_ids": list(plan.stop_ids),
        "vocab_size": denoiser.spec.vocab_size,
        "methods": about["methods"],
        "versions": about["versions"],
        "counts": counts(denoiser, plan),
    }


def counts(denoiser: PteDenoiser, plan: Plan) -> list[list[int]]:
    """For 0, 1, ... hidden tokens of a block how many each reverse step shows, so that nobody computes it again."""
    table: list[list[int]] = [[]]
    for hidden in range(1, denoiser.block_size + 1):
        steps = [step for step in plan.reverse_steps(torch.tensor([hidden]), denoiser.spec) if not step.fallback]
        table.append([int(step.quota) for step in steps])
    return table


def _golden(denoiser: PteDenoiser, words: Tokenizer, plan: Plan, prompt: str) -> dict[str, Any]:
    ids = prompt_ids(words, prompt)
    tokens = finish(decode(denoiser, [ids], plan)).tokens[0]
    return {
        "prompt": prompt,
        "ids": ids,
        "max_new_tokens": plan.max_new_tokens,
        "tokens": tokens,
        "text": words.decode(tokens),
    }


def peek(folder: Path) -> dict[str, Any]:
    """What a pack says of itself, after all of it was verified: its contract, files and estimate."""
    digests = checkpoint.verify(folder)
    missing = {RUNNER, GOLDEN, ESTIMATE, PROGRAM} - set(digests)
    if missing:
        raise ArtefactError(f"{folder}: not a pack: it lacks {sorted(missing)[0]}")
    contract = read_json(folder / RUNNER)
    if contract.get("format") != FORMAT:
        raise ArtefactError(f"{folder / RUNNER}: format {contract.get('format')!r} is not {FORMAT!r}")
    sizes = {name: (folder / name).stat().st_size for name in digests}
    return {"contract": contract, "files": sizes, "estimate": read_json(folder / ESTIMATE)}


def check(folder: Path, told: Callable[[int, int], None] = lambda done, of: None) -> int:
    """Decodes the golden texts on this host; gives their number. Raises ArtefactError for the first that differs."""
    contract = peek(folder)["contract"]
    denoiser, words = PteDenoiser(folder / PROGRAM, threads=1), load_tokenizer(folder / contract["tokenizer"]["file"])
    texts = read_json(folder / GOLDEN)["texts"]
    steps = max(map(len, contract["counts"]))
    plan = text_plan(denoiser, words, plan_for(denoiser.spec, steps=steps, max_new_tokens=NEW_TOKENS))
    for done, text in enumerate(texts, 1):
        found = _golden(denoiser, words, plan, text["prompt"])
        if found != text:
            name = next(name for name in text if found[name] != text[name])
            raise ArtefactError(f"{folder}: {text['prompt']!r} gives other {name} here: {json.dumps(found[name])[:80]}")
        told(done, len(texts))
    return len(texts)
