"""A side of a comparison that runs in a program: timed and judged as any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffulex_edge.api import source_of
from diffulex_edge.suite.comparisons import Comparison, Entrant
from diffulex_edge.suite.workplace import SuiteConfig, Workplace
from diffulex_edge.tests import toys
from diffulex_edge.text.demo import demo_documents
from diffulex_edge.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.export


def test_a_program_writes_the_texts_of_its_model_and_is_judged_alike(tmp_path: Path) -> None:
    documents = tmp_path / "held_out.jsonl"
    documents.write_text("\n".join(json.dumps({"text": each.text}) for each in demo_documents(8, seed=5)))
    tokenizer = load_tokenizer(source_of("aria-hindi-tiny"))
    model = toys.eco(vocab_size=tokenizer.vocab_size, mask_id=tokenizer.mask_id)
    place = Workplace(SuiteConfig(suite_prompts=2), tmp_path, (documents,), {"toy": (model, tokenizer)})
    sides = [Entrant(title=name or "eager", model="toy", steps=4, program=name) for name in (None, "openvino")]
    found = Comparison(name="engines", entrants=tuple(sides), new_tokens=64, rounds=1).run(place)
    assert not found["skipped"]
    eager, program = found["rows"]
    assert program["block_nelbo"] == pytest.approx(eager["block_nelbo"], rel=1e-4)
    assert program["context_bytes"] == eager["context_bytes"] > 0
    assert program["tokens_kept"] == eager["tokens_kept"] == 64
    assert [point["mean_tokens"] for point in program["sampled"]["points"]] == [64.0] * 5
