"""What one process of the trial does: all runs of a case, for the probe and the usual checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trial.cases import CASES
from trial.exact import QUESTIONS, Chances
from trial.figures import Figures
from trial.judging import draw, fed, over_sockets
from trial.usual import USUAL

from trio_echo.prober.split import shares_of

if TYPE_CHECKING:
    from balancer import Balancer
    from trial.usual import Draw

__all__ = ["compute", "differences", "try_out"]


def try_out(number: int, runs: int, alpha: float) -> Figures:
    """Run one case: the probe and the usual checks, each on a balancer with the same seed."""
    case = CASES[number]
    shares = shares_of(case.expect)
    return Figures(
        name=case.name,
        right=case.right,
        wrong=case.wrong,
        alpha=alpha,
        runs=[fed(case, seed, margin=None, alpha=alpha) for seed in range(runs)],
        accepted={
            name: sum(check(_requests(case.make(seed)), shares) for seed in range(runs))
            for name, check in USUAL.items()
        },
    )


def _requests(balancer: Balancer) -> Draw:
    """Requests of one line each, one after another, as the usual checks make them."""
    return lambda: draw(balancer).name


def differences(number: int, runs: int, alpha: float) -> list[str]:
    """Run one case over sockets as well.

    Returns:
        A line for each run that did not come to the same as when it was fed.
    """
    case = CASES[number]
    different = []
    for seed in range(runs):
        expected = fed(case, seed, margin=None, alpha=alpha)
        found = over_sockets(case, seed, margin=None, alpha=alpha)
        if found != expected:
            different.append(f"{case.name}, seed {seed}: {found}, but fed {expected}")
    return different


def compute(number: int) -> Chances:
    """The chances that answer one question."""
    return QUESTIONS[number].answer()
