"""Perplexity at equal entropy, the memory of a context, and that every side of the suite makes sense to its model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from diffulex_edge.bench.contexts import context_bytes
from diffulex_edge.suite.comparisons import Comparison
from diffulex_edge.suite.frontier import at_entropy
from diffulex_edge.suite.seeds import comparisons, jobs
from diffulex_edge.suite.workplace import SuiteConfig
from diffulex_edge.tests import toys


def test_perplexity_is_read_off_where_the_entropy_is_that_of_the_documents() -> None:
    points = [{"entropy": h, "judge_ppl": 20 * h} for h in (3.0, 3.2, 3.4, 3.1)]
    assert at_entropy(points, "judge_ppl", 3.1) == pytest.approx(62)
    assert at_entropy(points, "judge_ppl", 3.5) is None
    assert at_entropy(points, "judge_ppl", 2.9) is None
    assert at_entropy([{"entropy": h, "judge_ppl": None} for h in (3.0, 3.2)], "judge_ppl", 3.1) is None


def test_frozen_memory_does_not_grow_with_the_text_and_a_cache_does() -> None:
    eco, causal = toys.eco(), toys.backup(block_length=1)
    assert context_bytes(eco, "memory", 64, 8) == context_bytes(eco, "memory", 512, 8) > 0
    assert context_bytes(causal, "kv", 512, 8) > 7 * context_bytes(causal, "kv", 64, 8)


def test_each_row_comes_after_what_it_needs_and_none_twice() -> None:
    seen: set[str] = set()
    for job in jobs(SuiteConfig()):
        assert set(job.needs) <= seen
        assert job.name not in seen
        seen.add(job.name)


def test_a_comparison_has_its_baseline_first_and_titles_that_differ() -> None:
    for comparison in comparisons(SuiteConfig()):
        assert isinstance(comparison, Comparison)
        titles = [entrant.title for entrant in comparison.entrants]
        assert len(set(titles)) == len(titles) > 1


def test_the_settings_of_a_row_are_the_same_in_every_process() -> None:
    code = (
        "import json; from diffulex_edge.suite import seeds, workplace; jobs = seeds.jobs(workplace.SuiteConfig());"
        "print(json.dumps({job.name: dict(job.settings) for job in jobs}))"
    )
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(said) == 1
    assert len(json.loads(said.pop())) == len(jobs(SuiteConfig()))
