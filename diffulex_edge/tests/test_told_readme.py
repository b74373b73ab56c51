"""The README's commands run: those about the shipped model, and those that train one, made short."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffulex_edge.api import SHIPPED, locate
from diffulex_edge.cli.main import main
from diffulex_edge.cli.verbs import VERBS
from diffulex_edge.errors import UsageError
from diffulex_edge.tests.tree import ROOT

SHORTER = {
    "prepare": "--demo_documents 200",
    "train": "--max_steps 2 --d_model 32 --n_layers 2 --d_ff 32 --seq_len 32 --batch_size 4",
    "sample": "--max_new_tokens 8",
    "bench": "--max_new_tokens 8",
}


def blocks(mark: str) -> list[str]:
    """The fenced blocks of the README that follow `<!-- told: MARK -->`."""
    found = re.findall(rf"<!-- told: {mark} -->\n```\w+\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found, mark
    return found


def commands(mark: str) -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for block in blocks(mark) for line in block.splitlines()]
    assert all(words[0] == "diffulex-edge" for words in lines if words)
    return [words[1:] + SHORTER.get(words[1], "").split() for words in lines if words]


def shipped() -> bool:
    try:
        return locate(SHIPPED).exists()
    except UsageError:
        return False


ships = pytest.mark.skipif(not shipped(), reason="this checkout has no weights")


def test_the_training_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands("train"):
        assert main(words) == 0, words


@ships
def test_the_tour_of_the_shipped_model_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands("model"):
        assert main(words) == 0, words
        assert capsys.readouterr().out.strip(), words


@ships
@pytest.mark.slow
def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "Finished" in capsys.readouterr().out


def test_every_command_the_readme_prints_names_a_verb_and_flags_that_exist() -> None:
    page, told = (ROOT / "README.md").read_text(), (ROOT / "docs/cli.md").read_text()
    known = set(re.findall(r"--[a-z_]+", told)) | {"--nproc_per_node"}
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words and words[0].endswith("diffulex-edge"):
            assert words[1] in VERBS
            assert {w for w in words if w.startswith("--")} <= known, line


def test_the_files_the_readme_links_to_are_there() -> None:
    links = re.findall(r"\]\(([^):]+)\)", (ROOT / "README.md").read_text())
    missing = [link for link in links if not (ROOT / link).exists()]
    assert links
    assert not missing


def test_the_two_commands_on_top_are_make_targets_or_verbs() -> None:
    first = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert first is not None
    assert first[1].startswith("make demo")
    assert "\ndemo:" in (ROOT / "Makefile").read_text()
    assert sys.version_info >= (3, 11)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_installs_once_and_again_only_where_a_dependency_changed(tmp_path: Path) -> None:
    def would_install() -> bool:
        done = subprocess.run(["make", "-n", "demo"], cwd=tmp_path, capture_output=True, text=True, check=True)
        return "pip install" in done.stdout

    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert would_install()
    crc = subprocess.run(["cksum"], input=(ROOT / "pyproject.toml").read_bytes(), capture_output=True, check=True)
    stamp = tmp_path / ".venv" / f"installed-{crc.stdout.split()[0].decode()}"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (0, 0))  # a fresh checkout of the same files is newer than what was installed
    assert not would_install()
    (tmp_path / "pyproject.toml").write_text("changed")
    assert would_install()
