"""Run the honest trial: ``nox -s trial``, with options after ``--``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

from trial.cases import CASES, SHORTLY
from trial.exact import QUESTIONS
from trial.figures import (
    LEVEL,
    delays_table,
    exact_table,
    lengths_table,
    peeking_table,
    short_table,
    table,
)
from trial.moves import MOVES, PROMISES, delays, lengths
from trial.peeking import LOOKS, peek
from trial.runs import compute, differences, try_out

from trio_echo.monitor.change import FALSE_ALARMS
from trio_echo.prober.split import DEFAULT_ALPHA

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="nox -s trial --", description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="of each case (default: 300)")
    parser.add_argument(
        "--alpha", type=float, default=0.05, help="the promised bound (default: 0.05)"
    )
    parser.add_argument(
        "--sockets", type=int, default=3, help="runs of each case over sockets (default: 3)"
    )
    parser.add_argument(
        "--questions",
        type=int,
        default=len(QUESTIONS),
        help="how many of the exact computations, from the first (default: all)",
    )
    parser.add_argument(
        "--moves", type=int, default=100, help="runs of each change of a split (default: 100)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trial; 1 if a promise was broken beyond chance."""
    options = parse(arguments)
    started = time.perf_counter()
    numbers = range(len(CASES))
    # spawn: a fork copies whatever the parent's threads hold, and Python warns of it.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        work = partial(try_out, runs=options.runs, alpha=options.alpha)
        figures = list(pool.map(work, numbers))
        shortly = list(pool.map(partial(try_out, runs=options.runs, alpha=DEFAULT_ALPHA), SHORTLY))
        work_sockets = partial(differences, runs=options.sockets, alpha=options.alpha)
        different = [line for lines in pool.map(work_sockets, numbers) for line in lines]
        questions = QUESTIONS[: options.questions]
        exact = dict(zip(questions, pool.map(compute, range(len(questions))), strict=True))
        peeked = list(pool.map(peek, LOOKS))
        late = list(pool.map(partial(delays, runs=options.moves), MOVES))
        long = list(pool.map(partial(lengths, runs=options.moves), PROMISES))
    compared = options.sockets * len(CASES)
    print(table(figures))
    print(
        f"\n{options.runs} runs of each case, seeds 0 to {options.runs - 1}, a margin of 5 points "
        f"or half the smaller weight, alpha {options.alpha:g}, the judge fed with the balancer's "
        f"draws. Over real sockets {compared - len(different)} of {compared} runs "
        "came to the same verdict and words after the same number of connections.\n"
    )
    for line in different:
        print(f"different: {line}")
    print(short_table(shortly))
    print(f"\n{options.runs} runs of each case, the probe at its defaults.\n")
    print(exact_table(exact))
    print(
        "\nComputed, not measured, at the defaults: a margin of 5 points or half the smaller "
        f"weight, alpha {DEFAULT_ALPHA:g}, and the number of connections that comes with them."
    )
    print(f"\n{peeking_table(peeked)}")
    print("\nComputed: a look after each connection, from the 25th on.")
    print(f"\n{delays_table(late)}")
    print(
        f"\n{options.moves} runs of each, changed after 300 connections, at a rate of "
        f"{FALSE_ALARMS:g} false alarms for each connection. A dash: not seen in 100000 in most "
        "runs.\n"
    )
    print(lengths_table(long))
    print(f"\n{time.perf_counter() - started:.0f} s in all.", file=sys.stderr)
    promises = sum(case.wrong is not None for case in figures)
    broken = [f"{case.name}, measured" for case in figures if case.broken(promises)]
    broken += [
        f"{question}, computed" for question, found in exact.items() if question.broken_by(found)
    ]
    broken += [f"a false alarm in {length.promised}" for length in long if length.broken]
    for name in broken:
        print(f"BROKEN PROMISE: {name}: more wrong verdicts than chance allows (level {LEVEL:g})")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
