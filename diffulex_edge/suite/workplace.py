"""Where the experiments happen: the data, the models trained for them, and what judges them, each opened once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from diffulex_edge.api import load
from diffulex_edge.bench import generation
from diffulex_edge.bench.judging import judge_of_data, judge_of_documents
from diffulex_edge.bench.rows import Quality
from diffulex_edge.bench.texts import Texts
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.model.checkpoint import newest
from diffulex_edge.text.corpus import Document, read_documents
from diffulex_edge.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    results: Path = Path("docs/results")  # a JSON file a row; a row that is there is not measured again
    suite_dir: Path = Path("checkpoints/suite")  # the models that are trained for the comparison; kept, and resumed
    only: tuple[str, ...] = ()  # rows whose names begin with one of these, and the models they need; none: all
    suite_recipe: str = "matched"  # the recipe that the models are trained by
    suite_steps: int | None = None  # of each training; None: the recipe's own
    suite_rounds: int = 3  # times that each side of a comparison decodes each prompt
    suite_prompts: int = 32  # prompts from the documents that sampled text follows, for perplexity at equal entropy
    workers: int = (
        0  # rows measured at once by Ray, which takes the machines of its cluster; 0: one after the other, here
    )

    def __post_init__(self) -> None:
        for name, least in (("suite_rounds", 1), ("suite_prompts", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}={getattr(self, name)} must be at least {least}")


@dataclass(eq=False)
class Workplace:
    config: SuiteConfig
    data_dir: Path  # folder that `prepare` wrote
    documents: tuple[Path, ...]  # what quality is measured on; none of it may be in data_dir
    _models: dict[str, tuple[Denoiser, Tokenizer]] = field(default_factory=dict)
    _quality: dict[str, Quality] = field(default_factory=dict)
    judged: dict[Any, Any] = field(default_factory=dict)  # what sampled text of a model and plan was worth

    def folder(self, name: str) -> Path:
        return self.config.suite_dir / name

    def trained(self, name: str, steps: int) -> bool:
        held = newest(self.folder(name))
        return held is not None and int(held.name.rpartition("-")[2]) >= steps

    def model(self, name: str) -> tuple[Denoiser, Tokenizer]:
        """A model that the suite trained, or any other that `load` finds."""
        if name not in self._models:
            self._models[name] = load(self.folder(name) if self.folder(name).exists() else name)
        return self._models[name]

    def check_documents(self) -> None:
        """Raises UsageError where there are none, ArtefactError where they cannot be read."""
        if not self.read:
            raise UsageError(f"there is no document in {', '.join(map(str, self.documents))}")

    @cached_property
    def read(self) -> Sequence[Document]:
        if not self.documents:
            raise UsageError(
                "the suite needs documents to judge quality on: --data FILE, of text that was not trained on"
            )
        return list(read_documents(self.documents))

    def quality(self, tokenizer: Tokenizer) -> Quality:
        """One for all rows, which share what it knows of a model and a mode."""
        if tokenizer.fingerprint not in self._quality:
            texts = Texts.read(self.read, tokenizer)
            judge = judge_of_data(self.data_dir, tokenizer) or judge_of_documents(texts.ids, tokenizer)
            self._quality[tokenizer.fingerprint] = Quality(tokenizer, texts, judge, window=256, n_samples=1, seed=0)
        return self._quality[tokenizer.fingerprint]

    def prompts(self, tokenizer: Tokenizer, script: str | None, new_tokens: int) -> list[generation.Prompt]:
        """Beginnings of documents, of one script where it is named, each with how the document went on."""
        pool = [document for document in self.read if script in (None, document.script)]
        if not pool:
            raise UsageError(f"none of the {len(self.read)} documents is {script}")
        return generation.choose_prompts(
            pool, tokenizer, self.config.suite_prompts, words=8, new_tokens=new_tokens, seed=0
        )
