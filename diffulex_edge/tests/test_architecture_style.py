"""The house's manners: how code reads, and what it must never do."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

import pytest

from diffulex_edge.tests.tree import ROOT, listed, package_sources, room, sources, walk

# Shapes are given as (B, L, V): see the legend in model/base.py.
SHAPE = re.compile(r"\((?:[BTLSKNHDVMRnWC]|[a-z] ?\* ?[A-Z])(?:, ?[A-Za-z0-9*+ ]{1,8})*,?\)")
SOURCE = re.compile(r"arXiv:\d{4}\.\d{4,5}|seed 00\d")
CHOOSERS = {"kind", "mode", "model_type", "model", "backend", "schedule", "context", "reveal", "sampler", "optimizer"}


def test_nothing_catches_everything() -> None:
    for name, node in walk(ast.ExceptHandler, package_sources()):
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        for kind in caught:
            where = f"{name}:{node.lineno}"
            assert kind is not None, where
            assert getattr(kind, "id", "") not in ("Exception", "BaseException"), where


def test_inheritance_is_one_deep_and_nothing_is_abstract() -> None:
    bases: dict[str, list[str]] = {}
    for _, node in walk(ast.ClassDef, package_sources()):
        bases[node.name] = [b.id if isinstance(b, ast.Name) else ast.unparse(b).split("[")[0] for b in node.bases]
    assert not [name for name, above in bases.items() if {"ABC", "abc.ABC", "ABCMeta"} & set(above)]
    errors = {"DiffulexEdgeError", "ValueError"}

    def depth(name: str) -> int:
        return max((1 + depth(base) for base in bases.get(name, []) if base in bases and base not in errors), default=0)

    assert not {name: bases[name] for name in bases if depth(name) > 1}


def test_choices_below_the_command_line_are_made_by_object() -> None:
    wrong = []
    for name, node in walk(ast.Compare, package_sources()):
        if room(name) == "cli" or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            continue
        left, right = node.left, node.comparators[0]
        said = left.attr if isinstance(left, ast.Attribute) else getattr(left, "id", "")
        if said in CHOOSERS and isinstance(right, ast.Constant) and isinstance(right.value, str):
            wrong.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


FORMULAS = (
    "diffusion/schedule diffusion/loss runtime/reveal runtime/reveal_settled runtime/reveal_stable runtime/sub_blocks"
)


@pytest.mark.parametrize("path", [f"{name}.py" for name in FORMULAS.split()])
def test_every_formula_names_its_source(path: str) -> None:
    tree = sources()[f"diffulex_edge/{path}"]
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in getattr(node, "bases", [])):
                continue
            said = (ast.get_docstring(node) or "") + (ast.get_docstring(tree) or "" if path.endswith("loss.py") else "")
            assert SOURCE.search(said), f"{path}: {node.name} does not say where its formula is from"


def test_shapes_are_given_where_tensors_are_born() -> None:
    texts = [(ROOT / name).read_text() for name in package_sources() if room(name) in ("model", "diffusion", "runtime")]
    mentions, lines = sum(len(SHAPE.findall(text)) for text in texts), sum(text.count("\n") for text in texts)
    assert mentions >= 20 * lines / 1000, f"{mentions} shapes in {lines} lines"
    assert sum("B batch" in text for text in texts) == 1, "one legend"


def test_no_code_comes_out_of_a_file_that_is_read() -> None:
    for name, node in walk((ast.Import, ast.ImportFrom), package_sources()):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        assert not {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"} & {
            n.split(".")[0] for n in names
        }, name
    for name, node in walk(ast.Call, package_sources()):
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        where = f"{name}:{node.lineno}"
        assert called not in ("eval", "exec"), where
        assert called != "torch.load" or given.get("weights_only") == "True", where
        assert called != "torch.save", where
        assert given.get("allow_pickle", "False") == "False", where
        assert given.get("trust_remote_code", "False") == "False", where
        assert given.get("shell", "False") == "False", where


def test_names_say_what_a_thing_is() -> None:
    empty = re.compile(r"(Manager|Handler|Helper|Wrapper|Utils|V2|Impl)$")
    kept = {"DiffusionBlockManager"}  # a name that code written for seed 003 imports
    assert not [
        f"{name}: {node.name}"
        for name, node in walk(ast.ClassDef, package_sources())
        if empty.search(node.name) and node.name not in kept
    ]
    assert not [name for name in listed() if re.search(r"(utils|helpers?|common|misc)\.py$", name)]


def test_every_signature_is_typed() -> None:
    for name, node in walk((ast.FunctionDef, ast.AsyncFunctionDef), package_sources()):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        assert not bare, f"{name}:{node.lineno} {node.name}: {bare}"
        assert node.returns is not None, f"{name}:{node.lineno} {node.name}"


def test_every_module_and_every_public_function_of_some_size_is_described() -> None:
    for name, tree in package_sources().items():
        assert not tree.body or ast.get_docstring(tree), name
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_") or room(name) == "cli":
                continue
            if (node.end_lineno or 0) - node.lineno > 12:
                assert ast.get_docstring(node), f"{name}:{node.lineno} {node.name}"


def test_no_notes_to_self_and_no_pictograms() -> None:
    for name in sources():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search("[T]ODO|[F]IXME|[X]XX", text), name
        assert "/tests/" in name or not re.search("[\U0001f300-\U0001faff\u2600-\u27bf]", text), name


def test_one_forward_serves_training_decoding_and_export() -> None:
    for name, node in walk(ast.FunctionDef, package_sources()):
        assert not re.match(r"forward_(export|pte|inference|eval)|(?!from_).*_pte$", node.name), f"{name}: {node.name}"


def test_the_same_six_lines_do_not_stand_twice() -> None:
    """Bodies only: a signature may repeat, since a contract is one that many classes keep."""
    seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for name, tree in package_sources().items():
        text = (ROOT / name).read_text(encoding="utf-8").splitlines()
        body = {n for function in _functions(tree) for n in range(function.body[0].lineno, _end(function))}
        lines = [(n, line.strip()) for n, line in enumerate(text, 1) if n in body and len(line.strip()) > 3]
        for start in range(len(lines) - 5):
            run = lines[start : start + 6]
            seen[tuple(line for _, line in run)].add(f"{name}:{run[0][0]}")
    twice = {run: places for run, places in seen.items() if len(places) > 1}
    assert not twice, "\n\n".join("\n".join([*sorted(places), *run]) for run, places in list(twice.items())[:3])


def _end(node: ast.FunctionDef) -> int:
    return (node.end_lineno or node.lineno) + 1


def _functions(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
