"""The suite from end to end at the smallest size: killed, started again, and its page."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffulex_edge.cli.main import main
from diffulex_edge.suite.jobs import Results
from diffulex_edge.suite.page import page
from diffulex_edge.tests.tree import ROOT
from diffulex_edge.text.demo import demo_documents

ONLY = ("eco-s0", "quality-eco-s0", "confidence-stop")


def command(folder: Path) -> list[str]:
    sizes = ["--suite_recipe", "demo", "--suite_steps", "1", "--suite_rounds", "1", "--suite_prompts", "2"]
    places = ["--data_dir", folder / "data", "--data", folder / "held_out.jsonl", "--results", folder / "rows"]
    more = ["--suite_dir", folder / "models", "--only", *ONLY]
    return ["bench", "--suite", "seeds", *sizes, *map(str, places), *map(str, more)]


@pytest.mark.slow
def test_a_killed_suite_loses_no_finished_row_and_goes_on(tmp_path: Path) -> None:
    lines = [json.dumps({"text": document.text}, ensure_ascii=False) for document in demo_documents(4, seed=5)]
    (tmp_path / "held_out.jsonl").write_text("\n".join(lines))
    assert main(["prepare", "--source", "demo", "--vocab_size", "512", "--data_dir", str(tmp_path / "data")]) == 0
    first = tmp_path / "rows/eco-s0.json"
    with subprocess.Popen([sys.executable, "-m", "diffulex_edge.cli.main", *command(tmp_path)], cwd=ROOT) as process:
        while not first.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = {path.name: path.read_bytes() for path in (tmp_path / "rows").glob("*.json")}
    assert len(before) < len(ONLY)
    assert main(command(tmp_path)) == 0
    rows = Results(tmp_path / "rows").read()
    assert sorted(rows) == sorted(ONLY)
    assert {name: (tmp_path / "rows" / name).read_bytes() for name in before} == before
    sides = rows["confidence-stop"]["figures"]["rows"]
    assert [side["forwards"] > 0 and side["block_nelbo"] > 0 for side in sides] == [True] * 4
    assert "| confidence_stop 0.95 |" in page(rows)
    assert main(command(tmp_path)) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "rows").glob("*.json")}.items() >= before.items()
