"""Sides of one model beside each other: each reads the same texts once, then they write in turns, A B A B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffulex_edge.bench.parity import PROMPTS
from diffulex_edge.bench.progress import bar
from diffulex_edge.tuning.players import EngineFailed, Player, Side, players

LEAST_TURNS = 5

Reading = tuple[NDArray[np.float64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Finish:
    """How a side that held out to the end did."""

    side: Side
    limit: int | None  # tokens that a text may have
    ready_s: float  # seconds that opening it and its first text took
    times: NDArray[np.float64]  # (turns, 2): processor and wall seconds of each; turn i is all sides' at one time
    nats: NDArray[np.float64]  # (n,): -log p of each text, at most
    guesses: NDArray[np.int64]  # the likeliest token of each hidden place


class Race:
    """Runs sides; remembers what an engine has read in blocks of a size, and why sides dropped out."""

    def __init__(self, texts: Sequence[Sequence[int]], seconds: float, new_tokens: int) -> None:
        self._texts, self._seconds, self._new_tokens = texts, seconds, new_tokens
        self._read: dict[tuple[str, int], Reading] = {}
        self._opened: dict[Side, tuple[int | None, float]] = {}
        self.missing: dict[str, str] = {}

    def run(self, sides: Sequence[Side]) -> list[Finish]:
        with players() as company:
            self._enter(sides, company)
            times = self._turns(company)
        return [
            Finish(side, *self._opened[side], np.array(times[side]), *self._read[side.engine, side.block_size])
            for side in sides
            if side in times
        ]

    def _enter(self, sides: Sequence[Side], company: list[Player]) -> None:
        """Opens them; each writes once, which is not counted, and an engine reads the texts once a size of block."""
        with bar("opening engines and reading texts", len(sides)) as advance:
            for side in sides:
                try:
                    player = Player(side)
                    company.append(player)
                    _, first = player.write(PROMPTS[0], self._new_tokens)
                    self._opened[side] = player.limit, player.opened_s + first
                    if (side.engine, side.block_size) not in self._read:
                        self._read[side.engine, side.block_size] = player.read(self._texts)
                except EngineFailed as error:
                    self._drop(side, error, company)
                advance(1)

    def _turns(self, company: list[Player]) -> dict[Side, list[tuple[float, float]]]:
        """Turns until the time is up, of those that stayed."""
        times: dict[Side, list[tuple[float, float]]] = {player.side: [] for player in company}
        spent, turn = 0.0, 0
        with bar("writing in turns", int(self._seconds)) as advance:
            while company and (spent < self._seconds or turn < LEAST_TURNS):
                before = int(spent)
                for player in list(company):
                    try:
                        taken = player.write(PROMPTS[turn % len(PROMPTS)], self._new_tokens)
                    except EngineFailed as error:
                        del times[player.side]
                        self._drop(player.side, error, company)
                    else:
                        times[player.side].append(taken)
                        spent += taken[1]
                turn += 1
                advance(int(spent) - before)
        return times

    def _drop(self, side: Side, error: EngineFailed, company: list[Player]) -> None:
        self.missing[side.name] = str(error)
        for player in [each for each in company if each.side == side]:
            player.close()
            company.remove(player)
