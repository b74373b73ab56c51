"""Writes what documents repeat: docs/cli.md of `--help`, pages of docs/results/, ARCHITECTURE.md's tree."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from diffulex_edge.backends import BACKENDS
from diffulex_edge.backends.base import here
from diffulex_edge.cli.aliases import ALGORITHMS, ALIASES
from diffulex_edge.cli.main import main
from diffulex_edge.cli.verbs import VERBS, usage
from diffulex_edge.files import read_json
from diffulex_edge.quant import SCHEMES
from diffulex_edge.suite.jobs import Results
from diffulex_edge.suite.page import page as results_page
from diffulex_edge.suite.plots import draw
from diffulex_edge.suite.sedac_page import sedac_page

ROOT = Path(__file__).resolve().parents[1]
CLI_HEAD = """# Command line

Written by `make docs` from the program's own `--help`. Flags may be spelled `--data_dir` or `--data-dir`.
"""
BACKENDS_HEAD = """# Backends

Written by `make docs` from the backends themselves, where ExecuTorch is installed (`make test-export`); `diffulex-edge
doctor` says the last column of your machine. A program says in its description what it was made for.
`openvino_ir`, beside these, writes OpenVINO's own files for laptops, without ExecuTorch: all models, in fp32, bf16 or
`weight_only_int8`, equal to the eager model to 1e-4 in fp32 (`pip install 'diffulex-edge[openvino]'`).
`mlpackage` writes Core ML's own package, in fp16 or with `weight_only_int8`: the program that coremltools is given
equals the eager model to 1e-4 in fp32; what it makes was never run. Each takes all models: EcoHybrid with its memory,
SDAR, Fast-dLLM v2 and the backup Transformer with a cache, LLaDA and Dream on a canvas.
"""
LONGEST = 100  # characters said of a file
BEGIN, END = "<!-- tree -->\n```text\n", "```\n<!-- end of tree -->"


def help_of(verb: str) -> str:
    """What `diffulex-edge VERB --help` prints on a terminal 110 columns wide, without colours."""
    said, old = io.StringIO(), {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ.update(COLUMNS="110", NO_COLOR="1")
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([verb, "--help"])
    finally:
        for name, value in old.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return "\n".join(line.rstrip() for line in said.getvalue().strip().splitlines())


def aliases() -> str:
    """The names of llama.cpp that are understood, and what they stand for."""
    rows = [f"| `{name}` | {_meant(words)} |" for name, words in ALIASES.items()]
    numbers = ", ".join(f"{number} `{name}`" for number, name in enumerate(ALGORITHMS))
    head = ["| llama.cpp | here |", "|---|---|"]
    said = f"The rules: {numbers}. Steps are those of one block here, of all together there; `infill` has no blocks."
    return "\n".join(["`sample` and `infill` understand names of llama.cpp too:", "", *head, *rows, "", said, ""])


def _meant(words: tuple[str, ...]) -> str:
    return f"`{' '.join(words).format('N')}`" if words else "nothing: a terminal always shows the steps"


def cli_page() -> str:
    parts = [CLI_HEAD, f"```text\n{usage()}\n```\n", aliases()]
    parts += [f"## {verb}\n\n```text\n{help_of(verb)}\n```\n" for verb in VERBS]
    return "\n".join(parts)


def backends_page() -> str:
    """The support matrix: what each backend takes, how far it is tested, and what it says of this machine."""
    head = "| backend | runs on | integers | tested | on the machine that made this page |"
    rows = [BACKENDS_HEAD, head, "|---|---|---|---|---|"]
    for backend in BACKENDS.values():
        schemes = ", ".join(scheme.name for scheme in SCHEMES.values() if scheme.delegates) if backend.integers else "-"
        cells = (f"`{backend.name}`", backend.about, schemes, backend.tested, here(backend))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def drawable(paths: Iterable[str]) -> list[str]:
    """The files that the tree shows: all but empty ones, and rows of results."""
    return [path for path in paths if (ROOT / path).stat().st_size and not path.startswith("docs/results/")]


def read_tree(page: str) -> dict[str, str]:
    """From ARCHITECTURE.md: path -> what is said about it."""
    about, folder = {}, ""
    for line in page.split(BEGIN)[1].split(END)[0].splitlines():
        if line.endswith("/") and not line.startswith(" "):
            folder = line
        elif line.strip():
            name, _, rest = line.strip().partition(" ")
            about[(folder if line.startswith(" ") else "") + name] = rest.strip()
    return about


def tree(paths: Iterable[str], said: dict[str, str]) -> str:
    """Folder by folder, a line a file; a file nobody has described yet is described by the head of its docstring."""
    lines, folder = [], ""
    for path in sorted(drawable(paths), key=lambda p: (p.rpartition("/")[0], p)):
        parent, _, name = path.rpartition("/")
        if parent and parent + "/" != folder:
            folder = parent + "/"
            lines.append(folder)
        lines.append(f"{'  ' if parent else ''}{name:{30 if parent else 32}} {said.get(path) or _head(path)}".rstrip())
    return "\n".join(lines) + "\n"


def _head(path: str) -> str:
    """The first sentence of a module's docstring; only what stands before its colon, if it is long."""
    if not path.endswith(".py"):
        return ""
    text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"[.;?](?:\s|$)", text, maxsplit=1)[0].replace("\n", " ")
    short = sentence if len(sentence) <= LONGEST else sentence.split(": ")[0]
    return short if " " in short else sentence[:LONGEST].rpartition(" ")[0]


def write() -> None:
    from diffulex_edge.tests.tree import listed

    (ROOT / "docs/cli.md").write_text(cli_page(), encoding="utf-8")
    if find_spec("executorch"):  # what backends say without it is of no use to a reader
        (ROOT / "docs/backends.md").write_text(backends_page(), encoding="utf-8")
    rows = Results(ROOT / "docs/results").read()
    (ROOT / "docs/results.md").write_text(results_page(rows), encoding="utf-8")
    draw(rows, ROOT / "docs/results")
    sedac = [read_json(ROOT / f"docs/results/sedac/{name}.json") for name in ("bench", "report")]
    (ROOT / "docs/sedac.md").write_text(sedac_page(*sedac), encoding="utf-8")
    target = ROOT / "ARCHITECTURE.md"
    page = target.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    target.write_text(before + BEGIN + tree(listed(), read_tree(page)) + END + after, encoding="utf-8")


if __name__ == "__main__":
    write()
