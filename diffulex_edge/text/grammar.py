"""Finite probabilistic grammars whose probabilities, entropy and expected length are exact numbers.

A node is a leaf, a chain or a weighted choice. Each can draw a string, enumerate all of them with their
probabilities, and knows its entropy in nats: H(choice) = H(weights) + sum of w H(option), H(chain) = sum of H(part).
That is the entropy of the strings where no string has two derivations.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Node(Protocol):
    @property
    def entropy(self) -> float:
        """In nats."""
        ...

    @property
    def length(self) -> float:
        """Expected number of characters."""
        ...

    def draw(self, rng: random.Random) -> str: ...

    def strings(self) -> Iterator[tuple[str, float]]:
        """Every derivation, as its string and its probability."""
        ...


@dataclass(frozen=True)
class Leaf:
    """One string, always."""

    text: str
    entropy = 0.0

    @property
    def length(self) -> float:
        return len(self.text)

    def draw(self, rng: random.Random) -> str:
        return self.text

    def strings(self) -> Iterator[tuple[str, float]]:
        yield self.text, 1.0


class Chain:
    """Its parts one after the other, drawn independently."""

    def __init__(self, parts: Sequence[Node]) -> None:
        self.parts = tuple(parts)
        self.entropy = sum(part.entropy for part in parts)
        self.length = sum(part.length for part in parts)

    def draw(self, rng: random.Random) -> str:
        return "".join(part.draw(rng) for part in self.parts)

    def strings(self) -> Iterator[tuple[str, float]]:
        for parts in itertools.product(*(list(part.strings()) for part in self.parts)):
            yield "".join(text for text, _ in parts), math.prod(p for _, p in parts)


class Choice:
    """One of its options, with probabilities in proportion to the weights."""

    def __init__(self, options: Sequence[tuple[float, Node]]) -> None:
        total = sum(weight for weight, _ in options)
        self.options = tuple((weight / total, node) for weight, node in options)
        self._upto = list(itertools.accumulate(p for p, _ in self.options))
        self.entropy = sum(p * (node.entropy - math.log(p)) for p, node in self.options)
        self.length = sum(p * node.length for p, node in self.options)

    def draw(self, rng: random.Random) -> str:
        index = bisect.bisect_right(self._upto, rng.random())
        return self.options[min(index, len(self.options) - 1)][1].draw(rng)  # rounding may leave the last below 1

    def strings(self) -> Iterator[tuple[str, float]]:
        for share, node in self.options:
            yield from ((text, share * p) for text, p in node.strings())


def words(weights: Mapping[str, float]) -> Node:
    """A choice among strings; no choice where there is only one."""
    options = [(weight, Leaf(text)) for text, weight in weights.items()]
    return options[0][1] if len(options) == 1 else Choice(options)


def probabilities(node: Node) -> dict[str, float]:
    """Of every string that the node can say, by enumeration."""
    found: dict[str, float] = defaultdict(float)
    for text, p in node.strings():
        found[text] += p
    return dict(found)
