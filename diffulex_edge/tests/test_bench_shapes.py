"""The command that writes a model of a published shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffulex_edge.bench.shapes import main


@pytest.mark.parametrize(
    ("words", "said"), [([], "a folder"), (["llada-230m"], "a folder"), (["gpt-2", "x"], "'gpt-2'")]
)
def test_wrong_words_are_one_line_and_the_code_of_usage(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    message = capsys.readouterr().err
    assert said in message
    assert "llada-230m" in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())
