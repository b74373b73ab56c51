"""The command line as a whole: verbs, flags, help, JSON, exit codes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from diffulex_edge import errors
from diffulex_edge.cli import main as cli
from diffulex_edge.cli.main import main
from diffulex_edge.cli.parse import check_place, one_line, parse, report
from diffulex_edge.cli.verbs import VERBS


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Nested."""

    data_dir: Path = Path("here")  # a folder
    modes: tuple[str, ...] = ("full",)  # several
    compile: bool = False  # a switch


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Does a thing."""

    inner: Inner = field(default_factory=Inner)
    n: int = 3  # a number
    json: str | None = None  # where to

    def __post_init__(self) -> None:
        if self.n < 0:
            raise errors.UsageError(f"n={self.n} must be 0 or more")


def test_flags_are_spelled_with_either_stroke_and_nested_ones_need_no_prefix() -> None:
    read = parse(Flags, ["--data_dir", "a", "--modes", "x", "y", "--compile"], prog="p")
    assert read == Flags(inner=Inner(data_dir=Path("a"), modes=("x", "y"), compile=True))
    assert parse(Flags, ["--data-dir", "a_b"], prog="p").inner.data_dir == Path("a_b")


def test_the_last_of_two_equal_flags_counts() -> None:
    assert parse(Flags, ["--n", "5000", "--n", "1"], prog="p").n == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--nope", "1"], "Unrecognized options: --nope, 1; see p --help"),
        (["--n", "x"], "Error parsing --n: invalid literal for int() with base 10: 'x'; see p --help"),
        (["--n"], "Missing value for argument '--n'. Expected 1 values; see p --help"),
        (["--n", "-1"], "n=-1 must be 0 or more; see p --help"),
    ],
)
def test_nonsense_is_refused_in_one_line(argv: list[str], said: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        parse(Flags, argv, prog="p")
    assert str(caught.value) == said


def test_a_wrapped_complaint_becomes_one_line() -> None:
    box = "╭─ Title ──╮\n│ a long   │\n│ story    │\n│ ──────── │\n│ for help │\n╰──────────╯\n"
    assert one_line(box) == "a long story"
    assert one_line("╭─ Error ─╮\n│ Error parsing config: n=-1 must be 0 │\n╰─────────╯\n") == "n=-1 must be 0"
    assert one_line("╭─ Error ─╮\n│ Error parsing --n: no INT │\n╰─────────╯\n") == "Error parsing --n: no INT"


def test_help_ends_with_zero_and_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {verb} " in said for verb in VERBS)


def test_no_verb_and_an_unknown_verb_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    capsys.readouterr()
    assert main(["fly"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: 'fly' is not a verb")
    assert said.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_flags_with_help_and_writes_json(verb: str) -> None:
    module = import_module(f"diffulex_edge.cli.{verb}")
    assert is_dataclass(module.Flags)
    assert module.Flags.__doc__
    assert callable(module.run)
    assert hasattr(module.Flags, "json")


class _Verb:
    """A verb made of one function."""

    Flags = Flags

    def __init__(self, act) -> None:  # type: ignore[no-untyped-def]
        self.run = act


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("u"), 2),
        (errors.BackendUnavailable("b"), 2),
        (errors.ArtefactError("a"), 3),
        (errors.ResourceError("r"), 4),
        (errors.Interrupted("i"), 5),
        (ValueError("v"), 2),
        (MemoryError("m"), 4),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 4),
        (OSError(28, "No space left on device"), 4),
        (FileNotFoundError(2, "No such file", "x"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(flags: Flags) -> None:
        raise error

    monkeypatch.setitem(__import__("sys").modules, "diffulex_edge.cli.doctor", _Verb(fail))
    assert cli.main(["doctor"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


def test_an_error_of_the_program_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(flags: Flags) -> None:
        raise TypeError("a fault of ours")

    monkeypatch.setitem(__import__("sys").modules, "diffulex_edge.cli.doctor", _Verb(fail))
    with pytest.raises(TypeError, match="a fault of ours"):
        cli.main(["doctor"])


def test_json_goes_to_a_file_or_to_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"text": "नमस्ते", "path": Path("a"), "rate": 1.5}
    report(result, str(tmp_path / "deep" / "r.json"))
    report(result, "-")
    report(result, None)
    wanted = {"text": "नमस्ते", "path": "a", "rate": 1.5}
    assert json.loads((tmp_path / "deep" / "r.json").read_text()) == wanted
    said = capsys.readouterr().out
    assert json.loads(said) == wanted
    assert "नमस्ते" in said


def test_a_result_that_cannot_be_written_after_all_is_not_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError):
        report({"text": "नमस्ते"}, str(tmp_path / "file" / "r.json"))
    assert json.loads(capsys.readouterr().out) == {"text": "नमस्ते"}


def test_a_place_that_cannot_be_written_to_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def works(flags: Flags) -> None:
        raise AssertionError("the work began")

    monkeypatch.setitem(__import__("sys").modules, "diffulex_edge.cli.doctor", _Verb(works))
    assert cli.main(["doctor", "--json", str(tmp_path)]) == 2
    assert f"{tmp_path}: is a folder" in capsys.readouterr().err
    check_place(None)
    check_place("-")


def test_doctor_ends_well_and_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "-"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert {"torch", "cpu", "threads", "energy", "disk", "packages", "model"} <= set(found)
    assert "torch" in said.err
