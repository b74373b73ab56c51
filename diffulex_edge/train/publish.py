"""From a run to a folder for use: averaged weights in bf16, config, tokenizer, manifest, and a card of figures.

python -m diffulex_edge.train.publish RUN diffulex_edge/assets/aria-hindi-tiny --figures eval.json
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from diffulex_edge.errors import ArtefactError
from diffulex_edge.files import read_json
from diffulex_edge.model import checkpoint, sampling


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    source: Annotated[Path, tyro.conf.Positional]  # run or checkpoint
    target: Annotated[Path, tyro.conf.Positional]  # folder that is written, or replaced
    figures: Path  # what `eval --json` wrote about this model
    history: str = ""  # a sentence for the card on how the run went
    credits: tuple[Path, ...] = ()  # files that licences ask to go with the weights


def publish(config: PublishConfig) -> Path:
    """Writes the folder; what it held before is replaced only when the new one is whole."""
    folder = checkpoint.find(config.source)
    weights = checkpoint.read_tensors(folder / "ema.safetensors")
    names = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json")
    tokenizers = [folder / name for name in names if (folder / name).exists()]
    if not tokenizers:
        raise ArtefactError(f"{folder}: no tokenizer in it")
    figures = read_json(config.figures)
    card = card_of(folder, figures, config.history, sum(w.numel() for w in weights.values()))
    checkpoint.write(
        config.target,
        {
            "model.safetensors": checkpoint.tensors({name: w.to(torch.bfloat16) for name, w in weights.items()}),
            "config.json": checkpoint.document(read_json(folder / "config.json")),
            sampling.NAME: checkpoint.document(_sampling(figures).document()),
            **{path.name: checkpoint.copy_of(path) for path in tokenizers},
            "README.md": checkpoint.content(card.encode()),
            **{path.name: checkpoint.copy_of(path) for path in config.credits},
        },
    )
    checkpoint.verify(config.target)
    return config.target


def card_of(folder: Path, figures: dict[str, Any], history: str, parameters: int) -> str:
    """assets/card.md with the figures of an evaluation; one that was not measured is a KeyError, not a blank."""
    details, written = figures["details"], figures["details"]["generation"]
    block = {name: value for name, value in figures["block_nelbo"].items() if value is not None}
    _, config, _ = checkpoint.read_config(folder)
    template = (files("diffulex_edge") / "assets" / "card.md").read_text(encoding="utf-8")
    return template.format(
        **{name: figures[name] for name in _PLAIN},
        **{name: details[name] for name in ("characters", "documents")},
        **{name: written[name] for name in ("texts", "mode", "steps", "temperature", "top_p")},
        **{f"reference_{name}": written["reference"][name] for name in ("rep4", "distinct2", "entropy", "judge_ppl")},
        held=", in the script of the prompt alone" if written["keep_script"] else "",
        drawn=" ".join(f"--{name} {value}" for name, value in asdict(_sampling(figures)).items()),
        new_tokens=written["mean_tokens"],
        parameters=parameters / 1e6,
        size_mb=parameters * 2 / 1e6,
        judge_bits=details["judge"]["bits_per_char"],
        ratio=details["judge"]["ratio"],
        by_script=", ".join(f"{name} {value['bits_per_char']:.3f}" for name, value in figures["by_script"].items()),
        block_nelbo=", ".join(f"`{name}` {value:.3f}" for name, value in block.items()),
        history=history,
        curve=_curve(folder.parent / "log.jsonl"),
        slots=config.memory_slots,
    )


def _sampling(figures: dict[str, Any]) -> sampling.Sampling:
    """How the text was drawn that the figures judge: from now on the model's own."""
    return sampling.Sampling().override(**figures["details"]["generation"])


_PLAIN = (
    *("bits_per_char", "stderr", "rep4", "distinct2", "entropy", "judge_ppl"),
    *("script_error_rate", "ill_formed_rate", "ece", "aurc"),
)


def _curve(log: Path) -> str:
    """Up to a dozen rows of the validations that a run wrote down."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "val_bits_per_char" in row]
    chosen = rows[:: -(-len(rows) // 12)] + rows[-1:]
    lines = [f"| {row['step']} | {row['tokens'] / 1e6:.1f} M | {row['val_bits_per_char']:.3f} |" for row in chosen]
    return "\n".join(dict.fromkeys(lines))


if __name__ == "__main__":
    print(publish(tyro.cli(PublishConfig)))
