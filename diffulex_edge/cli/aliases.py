"""The flags of llama.cpp's diffusion example, put into the names used here before flags are read."""

from __future__ import annotations

from collections.abc import Sequence

from diffulex_edge.errors import UsageError

ALGORITHMS = ("origin", "entropy", "topk_margin", "random", "maskgit_plus")  # by number
ALIASES = {  # {} stands for the value
    "--diffusion-steps": ("--steps", "{}"),
    "--diffusion-algorithm": ("--reveal", "{}"),
    "--diffusion-block-length": ("--blockwise", "--block_size", "{}", "--quota", "even"),
    "--diffusion-eps": ("--quota", "proportional", "--eps", "{}"),
    "--diffusion-visual": (),  # a terminal always shows the steps
}


def translate(words: Sequence[str]) -> list[str]:
    """The command line in this program's names; what is no alias stays. `--name value` and `--name=value` alike."""
    rest, said = list(words), list[str]()
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if name not in ALIASES:
            said.append(word)
            continue
        if ALIASES[name] and not equals:
            if not rest:
                raise UsageError(f"{name} needs a value")
            value = rest.pop(0)
        said += [part.format(_algorithm(value) if name.endswith("algorithm") else value) for part in ALIASES[name]]
    return said


def _algorithm(value: str) -> str:
    numbered = dict(zip("01234", ALGORITHMS, strict=True))
    if value not in numbered:
        raise UsageError(f"--diffusion-algorithm {value!r} is not one of {', '.join(map(' '.join, numbered.items()))}")
    return numbered[value]
