"""The balancers on trial, each asked for the same split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from balancer import Balancer, bunched, rotating, shifting, sticky, weighted

from trio_echo.prober.split import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CASES", "SHORTLY", "Case"]

TWO = {"one": 80, "two": 20}
THREE = {"one": 60, "two": 25, "three": 15}
SEVENTY = {"one": 70, "two": 30}
CANARY = {"one": 95, "two": 5}
SMALL_CANARY = {"one": 99, "two": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A kind of balancer, and what is asked of it.

    Attributes:
        name: as the table says it.
        make: a new balancer from a seed.
        wrong: the verdict that would be wrong and whose chance is promised to
            be alpha at most; None where nothing is promised.
        right: what a check should say.
        expect: the weights that were asked for.
        lines: how many lines the probe sends on each connection.
        in_flight: how many connections the probe has in flight.
        tolerance: how far off a share may be without a FAIL.
        sources: from how many addresses the probe connects, in turn.
    """

    name: str
    make: Callable[[int], Balancer]
    wrong: Verdict | None
    right: str
    expect: Mapping[str, int]
    lines: int = 1
    in_flight: int = 16
    tolerance: float = 0.0
    sources: int = 1


def _accept(name: str, make: Callable[[int], Balancer], expect: Mapping[str, int] = TWO) -> Case:
    """A balancer that draws as asked; to call it wrong is a false alarm."""
    return Case(name=name, make=make, wrong=Verdict.FAIL, right="accept", expect=expect)


def _refuse(name: str, make: Callable[[int], Balancer], expect: Mapping[str, int] = TWO) -> Case:
    """A balancer that is off by the margin or more; to pass it is a miss."""
    return Case(name=name, make=make, wrong=Verdict.PASS, right="refuse", expect=expect)


def _draws(*weights: int) -> Callable[[int], Balancer]:
    """Independent draws with these weights."""
    named = dict(zip(THREE, weights, strict=False))
    return lambda seed: Balancer(choose=weighted(named, seed))


CASES = (
    _accept("80/20, as asked", _draws(80, 20)),
    _accept(
        "the same, two answers 200 ms late",
        lambda seed: Balancer(choose=weighted(TWO, seed), delays={"two": 0.2}),
    ),
    _accept("60/25/15, as asked", _draws(60, 25, 15), THREE),
    _accept("95/5, as asked", _draws(95, 5), CANARY),
    _accept("99/1, as asked", _draws(99, 1), SMALL_CANARY),
    Case(
        name="77.6/22.4 for 80/20, tolerance 3 points",
        make=_draws(776, 224),
        wrong=Verdict.FAIL,
        right="accept",
        expect=TWO,
        tolerance=0.03,
    ),
    _refuse("75/25: off by 5 points", _draws(75, 25)),
    _refuse("85/15: off by 5 points", _draws(85, 15)),
    _refuse("60/25/15 asked, 65/20/15 given", _draws(65, 20, 15), THREE),
    _refuse("70/30", _draws(70, 30)),
    # https://github.com/emissary-ingress/emissary/pull/5995: running totals as weights.
    _refuse("70/30 asked, 77/23 given (Emissary, 2026)", _draws(100, 30), SEVENTY),
    _refuse("50/50", _draws(50, 50)),
    _refuse("20/80: swapped", _draws(20, 80)),
    _refuse("all to one", _draws(100, 0)),
    _refuse("95/5 asked, the canary is dead", _draws(100, 0), CANARY),
    _refuse("99/1 asked, the canary is dead", _draws(100, 0), SMALL_CANARY),
    _refuse("sticky by source address", lambda seed: Balancer(choose=sticky(TWO, seed))),
    Case(
        name="80/20, drawn for each line (3 lines)",
        make=lambda seed: Balancer(choose=weighted(TWO, seed), by_line=True),
        wrong=Verdict.PASS,
        right="refuse",
        expect=TWO,
        lines=3,
        in_flight=1,  # beside others the lines would draw in the scheduler's order
    ),
    _refuse("80/20, two resets", lambda seed: Balancer(choose=weighted(TWO, seed), resets={"two"})),
    Case(
        name="77/23: off by 3 points",
        make=_draws(77, 23),
        wrong=None,
        right="either",
        expect=TWO,
    ),
    Case(
        name="four to one, one to two, in turns",
        make=lambda _seed: Balancer(choose=rotating(TWO)),
        wrong=None,
        right="say it",
        expect=TWO,
    ),
    Case(
        name="95/5, nineteen to one, one to two, in turns",
        make=lambda _seed: Balancer(choose=rotating(CANARY)),
        wrong=None,
        right="say it",
        expect=CANARY,
    ),
    Case(
        name="80/20, sticky, from ten addresses",
        make=lambda seed: Balancer(choose=sticky(TWO, seed)),
        wrong=None,
        right="say it",
        expect=TWO,
        sources=10,
    ),
    Case(
        name="80/20, each draw kept for ten",
        make=lambda seed: Balancer(choose=bunched(weighted(TWO, seed), 10)),
        wrong=None,
        right="say it",
        expect=TWO,
    ),
    Case(
        name="80/20, after 300 connections 20/80",
        make=lambda seed: Balancer(
            choose=shifting(
                weighted(TWO, seed), weighted({"one": 20, "two": 80}, seed + 1_000_000), 300
            )
        ),
        wrong=None,
        right="say it",
        expect=TWO,
    ),
)

SHORTLY = tuple(
    next(number for number, case in enumerate(CASES) if case.name == name)
    for name in (
        "70/30 asked, 77/23 given (Emissary, 2026)",
        "95/5 asked, the canary is dead",
        "50/50",
        "sticky by source address",
        "80/20, as asked",
    )
)
"""The cases of the short table, by their place."""
