"""From a frame of the generated text to a grammar node: which word forms agree with which slot."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

from diffulex_edge.text.demo_lexicon import (
    ADJECTIVES,
    CLASSES,
    DISHES,
    DRINKS,
    FRUITS,
    KIN,
    LITERALS,
    PEOPLE,
    PRONOUNS,
    SUBJECTS,
    THINGS,
    UNCHANGED,
    VERBS,
    WEATHERS,
    WORDS,
    Forms,
    Noun,
    forms,
)
from diffulex_edge.text.grammar import Chain, Choice, Leaf, Node, words
from diffulex_edge.text.normalize import normalize

NOUNS: dict[str, tuple[Noun, ...]] = {
    "who": (*PRONOUNS, *PEOPLE),
    "person": PEOPLE,
    "kin": KIN,
    "thing": THINGS,
    "dish": DISHES,
    "fruit": FRUITS,
    "drink": DRINKS,
    "subject": SUBJECTS,
    "weather": WEATHERS,
}
CASES: dict[str, Callable[[Noun], Forms]] = {
    "": lambda noun: noun.direct,
    "o": lambda noun: noun.oblique,
    "e": lambda noun: noun.ergative,
    "t": lambda noun: noun.dative,
}
_TOKEN = re.compile(r"\{(?P<form>[a-z_]+)(?:\.(?P<part>[a-z]+))?(?:(?P<how>[:@])(?P<agrees>\w+))?\}")
_VOWEL = ("ा", "ो", "आ", "ी")  # a stem that ends in one of these takes whole vowels


def frame(line: str, column: int, full_stop: str) -> Node:
    """A frame in one script (column of Forms). Classes of a slot that look alike throughout the frame count as one."""
    asks = line.endswith("?")
    tokens = line.removesuffix("?").split()
    ruling = sorted({match["agrees"] for match in map(_TOKEN.fullmatch, tokens) if match and match["how"] == ":"})
    groups = [_groups(slot, tokens, column) for slot in ruling]
    options = []
    for combination in itertools.product(*groups):
        chosen = dict(zip(ruling, combination, strict=True))
        parts = [_node(token, chosen, column) for token in tokens]
        weight = 1.0
        for slot, classes in chosen.items():
            weight *= sum(noun.agrees in classes for noun in NOUNS[slot])
        options.append((weight, _joined(parts, "?" if asks else full_stop)))
    return options[0][1] if len(options) == 1 else Choice(options)


def _groups(slot: str, tokens: Sequence[str], column: int) -> list[tuple[str, ...]]:
    """The classes of a slot's words, put together where every agreeing form of the frame is the same for them."""
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for agrees in CLASSES:
        if any(noun.agrees == agrees for noun in NOUNS[slot]):
            matches = [match for match in map(_TOKEN.fullmatch, tokens) if match and match["agrees"] == slot]
            signature = [text for match in matches for text in _agreeing(match, agrees, column)]
            found[tuple(signature)].append(agrees)
    return [tuple(group) for group in found.values()]


def _node(token: str, chosen: dict[str, tuple[str, ...]], column: int) -> Node:
    match = _TOKEN.fullmatch(token)
    if match is None:
        return Leaf(normalize(LITERALS[token][column]))
    if match["how"]:
        agrees = match["agrees"] if match["how"] == "@" else chosen[match["agrees"]][0]
        return words(_agreeing(match, agrees, column))
    slot = match["form"]
    if slot in WORDS:
        return words(_weights([word[column] for word in WORDS[slot]]))
    classes = chosen.get(slot, CLASSES)
    return words(_weights([CASES[match["part"] or ""](noun)[column] for noun in NOUNS[slot] if noun.agrees in classes]))


def _weights(texts: Sequence[str]) -> dict[str, float]:
    weights: dict[str, float] = defaultdict(float)
    for text in texts:
        weights[normalize(text)] += 1.0
    return dict(weights)


def _joined(parts: Sequence[Node], end: str) -> Node:
    nodes: list[Node] = []
    for i, part in enumerate(parts):
        nodes += [Leaf(" "), part] if i else [part]
    return Chain([*nodes, Leaf(end)])


def _agreeing(match: re.Match[str], agrees: str, column: int) -> dict[str, float]:
    """The spellings of an agreeing token for a class, with their weights."""
    form, part = match["form"], match["part"]
    if part is not None:
        spelt = [TENSES[form](part, agrees)]
    elif form in ADJECTIVES:
        spelt = [_ending(word, agrees) for word in ADJECTIVES[form]]
    elif form == "whose":
        spelt = [_ending(word, agrees) for word in OWNERS]
    else:
        spelt = [AGREEING[form][_PLAIN[agrees] if agrees not in AGREEING[form] else agrees]]
    return _weights([each[column] for each in spelt])


_PLAIN = {"m1": "ms", "f1": "fs"}  # "I" has endings of its own in few places


def _table(line: str) -> dict[str, Forms]:
    """ "ms=है=hai ..." by class."""
    return {agrees: forms(*rest) for agrees, *rest in (cell.split("=") for cell in line.split())}


AGREEING: dict[str, dict[str, Forms]] = {
    "is": _table("ms=है=hai mp=हैं=hain fs=है=hai fp=हैं=hain m1=हूँ=hoon f1=हूँ=hoon"),
    "was": _table("ms=था=tha mp=थे=the fs=थी=thi fp=थीं=theen"),
    "of": _table("ms=का=ka mp=के=ke fs=की=ki fp=की=ki"),
    "this": _table("ms=यह=yeh mp=ये=ye fs=यह=yeh fp=ये=ye"),
    "own_o": _table("ms=अपने=apne mp=अपने=apne fs=अपनी=apni fp=अपनी=apni"),
    "ending": _table("ms=ा=a mp=े=e fs=ी=i fp=ी=i"),
    "perfective": _table("ms=ा=a mp=े=e fs=ी=i fp=ीं=in"),
    "was_doing": _table("ms=रहा=raha mp=रहे=rahe fs=रही=rahi fp=रही=rahi"),
}
OWNERS: tuple[Forms, ...] = (
    forms("मेरा", "mera"),
    forms("हमारा", "hamara"),
    forms("उसका", "uska"),
    forms("आपका", "aapka"),
    *(forms(f"{noun.oblique[0]} का", f"{noun.oblique[1]} ka") for noun in PEOPLE[:9]),
)


def _add(stem: Forms, ending: Forms) -> Forms:
    return stem[0] + ending[0], stem[1] + ending[1], stem[2] + ending[2]


def _form(name: str, agrees: str) -> Forms:
    table = AGREEING[name]
    devanagari, roman, _ = table[agrees if agrees in table else _PLAIN[agrees]]
    return devanagari, roman, devanagari


def _ending(word: Forms, agrees: str) -> Forms:
    """An adjective or genitive in -a, made to agree; any other word as it is."""
    if not word[0].endswith("ा") or word[0] in UNCHANGED:
        return word
    return _add((word[0][:-1], word[1][:-1], word[2][:-1]), _form("ending", agrees))


def _habitual(verb: str, agrees: str) -> Forms:
    stem = _add(VERBS[verb][0], forms("त", "t"))
    return _add(stem, _form("ending", agrees))


def _progressive(verb: str, agrees: str) -> Forms:
    return _add(_add(VERBS[verb][0], forms("_", "_")), _form("was_doing", agrees))


def _perfective(verb: str, agrees: str) -> Forms:
    stem, irregular = VERBS[verb]
    if irregular:
        return irregular[("ms", "fs", "mp", "fp").index(_PLAIN.get(agrees, agrees))]
    return _add(stem, _form("perfective", agrees))


def _future(verb: str, agrees: str) -> Forms:
    stem = VERBS[verb][0]
    whole = stem[0].endswith(_VOWEL)
    person = {"s": ("एग", "yeg") if whole else ("ेग", "eg"), "p": ("एँग", "yeng") if whole else ("ेंग", "eng")}
    person["1"] = ("ऊँग", "ung") if whole else ("ूँग", "ung")
    if verb == "become":  # the third person is hoga, not hoega
        person |= {"s": ("ग", "g"), "p": ("ंग", "ng")}
    return _add(_add(stem, forms(*person[agrees[1]])), _form("ending", agrees))


TENSES: dict[str, Callable[[str, str], Forms]] = {
    "hab": _habitual,
    "prog": _progressive,
    "perf": _perfective,
    "fut": _future,
}
