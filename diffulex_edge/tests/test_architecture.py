"""The house's shape: who imports whom, how long things are, and that the drawn tree is the real one."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import statistics
import subprocess
import sys
from typing import Any

import pytest

from diffulex_edge.tests.tree import PACKAGE, ROOT, listed, package_sources, room, sources, walk

FREE = {"errors", "files", "machine"}  # the ground floor: everyone may stand on it
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "machine": set(),
    "text": set(),
    "diffusion": set(),
    "model": set(),
    "quant": {"model"},
    "sedac": set(),
    "runtime": {"diffusion", "model", "sedac"},
    "train": {"text", "diffusion", "model"},
    "bench": {"text", "diffusion", "model", "quant", "runtime", "train", "export", "sedac"},
    "hub": {"text", "model"},
    "tuning": {"text", "diffusion", "model", "quant", "runtime", "train", "sedac", "bench", "export", "api"},
    "backends": set(),
    "export": {"text", "model", "quant", "backends", "runtime"},
    "api": {"text", "model", "quant", "hub", "runtime"},
    "integrations": {"diffusion", "text", "model", "runtime", "bench", "api", "sedac"},
    "suite": {"text", "diffusion", "model", "runtime", "train", "bench", "api", "sedac"},
    "doctor": {"api", "bench", "backends", "sedac"},
    "__init__": {"api", "runtime"},
}
EVERYTHING = {"cli"}


def _imported_rooms(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names]
        found |= {p[1] for p in parts if p[0] == "diffulex_edge" and len(p) > 1 and not p[1].startswith("__")}
    return found


def test_imports_go_one_way() -> None:
    wrong = []
    for name, tree in package_sources().items():
        here = room(name)
        if here in EVERYTHING:
            continue
        assert here in MAY_IMPORT, f"{name}: a room that the import table does not know"
        ground = FREE if here not in FREE else {"errors"}
        wrong += [f"{name} imports {other}" for other in _imported_rooms(tree) - MAY_IMPORT[here] - ground - {here}]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_long() -> None:
    lengths = {name: (ROOT / name).read_text(encoding="utf-8").count("\n") for name in sources()}
    assert not {name: n for name, n in lengths.items() if n > 400}
    assert statistics.median(n for n in lengths.values() if n) <= 150


def test_no_function_is_long() -> None:
    functions = [
        (node.end_lineno - node.lineno + 1, f"{name}:{node.lineno} {node.name}")
        for name, node in walk((ast.FunctionDef, ast.AsyncFunctionDef), sources())
    ]
    functions.sort()
    assert functions[-1][0] <= 60, functions[-1]
    assert functions[int(len(functions) * 0.99)][0] <= 40, functions[int(len(functions) * 0.99) :]


def test_command_line_modules_hold_no_logic() -> None:
    lengths = {path.name: path.read_text().count("\n") for path in (PACKAGE / "cli").glob("*.py")}
    assert not {name: n for name, n in lengths.items() if n > 80}


def test_a_model_family_reads_in_one_sitting() -> None:
    from diffulex_edge.model.families import FAMILIES

    for module, _, config in FAMILIES.values():
        path = ROOT / (module.replace(".", "/") + ".py")
        assert _code_lines(path.read_text(), config) <= 150, path


def _code_lines(text: str, config: str) -> int:
    """Lines that carry code: not blank, not a comment, not of a docstring, not of the config."""
    other: set[int] = set()
    nodes: list[Any] = list(ast.walk(ast.parse(text)))
    for node in nodes:
        said = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if said or (isinstance(node, ast.ClassDef) and node.name == config):
            other.update(range(node.lineno, node.end_lineno + 1))
    code = [n for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.strip().startswith("#")]
    return len(set(code) - other)


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn, real = _docs().read_tree((ROOT / "ARCHITECTURE.md").read_text()), set(_docs().drawable(listed()))
    assert set(drawn) - real == set(), "drawn, but not there: run `make docs`"
    assert real - set(drawn) == set(), "there, but not drawn: run `make docs`"
    assert not [name for name, about in drawn.items() if len(about.split()) < 2], "each file has half a sentence"


def test_the_command_line_page_is_what_help_says() -> None:
    said, written = _docs().cli_page(), (ROOT / "docs/cli.md").read_text()
    assert _words(said) == _words(written), "run `make docs`"


@pytest.mark.export
def test_the_support_matrix_is_what_the_backends_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QNN_SDK_ROOT", raising=False)
    assert (ROOT / "docs/backends.md").read_text(encoding="utf-8") == _docs().backends_page(), "run `make docs`"


def _words(page: str) -> list[str]:
    """Without frames and line breaks, which are the terminal's affair."""
    return re.sub(r"[\u2500-\u257f]+|-{4,}", " ", page).split()


def _docs():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("docs_make", ROOT / "docs/make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _modules_after(code: str) -> set[str]:
    code += "; import sys; print(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == ""
    return set(done.stdout.splitlines())


def test_importing_the_package_is_silent_and_light() -> None:
    assert not {"torch", "numpy", "rich", "tyro"} & _modules_after("import diffulex_edge")


def test_top_level_help_loads_no_heavy_package() -> None:
    loaded = _modules_after("from diffulex_edge.cli.main import main; main(['--help'])")
    assert not {"torch", "numpy", "rich", "tyro"} & loaded


def test_optional_packages_load_with_no_room() -> None:
    """Every module of the package imports without the extras' packages."""
    bridges = ("lm_eval", "sacrebleu", "matplotlib", "executorch", "torchao", "ray", "vllm")
    optional = ("datasets", "huggingface_hub", "pyarrow", *bridges)
    names = [n.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for n in package_sources()]
    block = f"import sys; sys.modules.update(dict.fromkeys({optional!r}))"
    code = block + "; import importlib; [importlib.import_module(n) for n in " + repr(names) + "]"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr


def test_one_local_command_is_what_ci_runs() -> None:
    make, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci/run").read_text()
    check = make.split("\ncheck:")[1].split("\n\n")[0]
    assert all(word in check for word in ("ruff format --check", "ruff check", "mypy", "pytest"))
    assert "make check" in ci
    assert "make demo" in ci
