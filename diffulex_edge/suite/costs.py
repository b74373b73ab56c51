"""Seed 000's cost model in one unit: how many tokens go through the denoiser, in all passes of a text together.

The seed counts token evaluations for `full` and `block` but token times slot products for frozen memory, and gives
`full` as many steps for a whole text as `block` has for each of its blocks. Here all count token evaluations, and all
show as many tokens a step.
"""

from __future__ import annotations


def token_evaluations(mode: str, *, new: int, prompt: int, block: int, steps: int) -> int:
    """Tokens through the denoiser for `new` tokens behind `prompt`, with `steps` for each block of `block` tokens.

    full: the whole text in all steps. block: the text so far and the block. block_frozen: the block in each step and
    once more to remember it, and the prompt once. prefix: the text at the first look at a block, the block at each.
    """
    blocks = -(-new // block)
    before = prompt * blocks + block * (blocks - 1) * blocks // 2  # tokens before each block, added up
    costs = {
        "full": steps * blocks * (prompt + new),
        "block": steps * (before + block * blocks),
        "block_frozen": (steps + 1) * blocks * block + prompt,
        "prefix": before + steps * blocks * block,
    }
    return costs[mode]
