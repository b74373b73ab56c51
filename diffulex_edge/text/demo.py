"""Generated Hindi, Roman and mixed-script text with known entropy: all works offline, and a bound meets the truth.

A document: a script, then sentences drawn independently, a space or a newline between them, until a coin with P(stop)
= STOP says so. So the text is stationary, and its entropy a character is an exact number. One grammar serves the
three scripts: each word has a spelling in each; mixed text is Hindi in Devanagari with English loans in Latin letters
and full stops. No text has two derivations.
"""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Iterable, Iterator

from diffulex_edge.text.corpus import Document
from diffulex_edge.text.demo_frames import FRAMES
from diffulex_edge.text.demo_lexicon import SCRIPTS
from diffulex_edge.text.demo_words import frame
from diffulex_edge.text.grammar import Choice, Node, probabilities
from diffulex_edge.text.normalize import normalize

SCRIPT_SHARES = {"devanagari": 0.5, "roman": 0.3, "mixed": 0.2}
STOP = 1 / 24  # after each sentence
JOINTS = {" ": 0.75, "\n": 0.25}
FULL_STOPS = {"devanagari": "।", "roman": ".", "mixed": "."}

_SENTENCE = re.compile(r"([ \n]?)([^।.?]*[।.?])")  # with the joint before it


def demo_documents(n: int, seed: int = 0) -> Iterator[Document]:
    """Yields n documents; the first ones are the same for every n."""
    for index in range(n):
        rng = random.Random(f"{seed}/{index}")
        script = rng.choices(list(SCRIPT_SHARES), list(SCRIPT_SHARES.values()))[0]
        text = sentences(script).draw(rng)
        while rng.random() >= STOP:
            text += rng.choices(list(JOINTS), list(JOINTS.values()))[0] + sentences(script).draw(rng)
        yield Document(text, "demo", script)


def log_prob(text: str) -> float:
    """The exact log-probability of a document in nats, its end included; -inf for what the grammar cannot say."""
    text = normalize(text)
    parts = _SENTENCE.findall(text)
    joints, said = [joint for joint, _ in parts], [sentence for _, sentence in parts]
    if not parts or joints[0] or not all(joints[1:]) or "".join(map("".join, parts)) != text:
        return -math.inf
    structure = math.log(STOP) + sum(math.log((1 - STOP) * JOINTS[joint]) for joint in joints[1:])
    given = {script: sum(_log_probs(script).get(sentence, -math.inf) for sentence in said) for script in SCRIPT_SHARES}
    script = max(given, key=given.__getitem__)  # no sentence belongs to two scripts
    return structure + math.log(SCRIPT_SHARES[script]) + given[script]


@functools.cache
def _log_probs(script: str) -> dict[str, float]:
    """Of every sentence in a script; a second's work for each."""
    return {text: math.log(p) for text, p in probabilities(sentences(script)).items()}


def entropy_per_char(script: str | None = None) -> float:
    """Bits a character: a document's entropy over its expected length. For one script: the script is known."""
    shares = SCRIPT_SHARES if script is None else {script: 1.0}
    n = 1 / STOP  # expected sentences a document
    sentence = sum(share * sentences(s).entropy for s, share in shares.items())
    length = sum(share * sentences(s).length for s, share in shares.items())
    nats = entropy(shares.values()) + n * (sentence + entropy((STOP, 1 - STOP))) + (n - 1) * entropy(JOINTS.values())
    return nats / math.log(2) / (n * length + n - 1)


def entropy(probabilities: Iterable[float]) -> float:
    """In nats."""
    return -sum(p * math.log(p) for p in probabilities if p)


@functools.cache
def sentences(script: str) -> Node:
    """All sentences in one script, every frame as likely as every other."""
    column = SCRIPTS.index(script)
    return Choice([(1.0, frame(line, column, FULL_STOPS[script])) for line in FRAMES.strip().splitlines()])
