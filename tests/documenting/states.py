"""The page of state tables: of the drain, as its module has them; of the judge, by asking it."""

from __future__ import annotations

import re
from collections import Counter

from trio_echo.cli.output import ExitCode
from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.split import Expectation, Verdict, connections_needed, judge
from trio_echo.server import drain

__all__ = ["page"]

_PAGE = """\
# States

What a server does when it drains, and what the judge says when. `nox -s docs` writes this
page from the code.

## A listener that drains

{listener}

## A connection that drains

{connection}

"Patience" is half a second, and then as long as TCP takes to send a lost packet again on
this connection. [serve.md](serve.md#signals-and-exit-codes) says the same in words.

## The judge

The judge looks after every connection. At the defaults, 80/20 expected and no connection
failed, its verdict depends on how many of them `one` has answered:

{bounds}

Other counts decide nothing yet. After {budget} connections the probe gives up.

What it says of some samples, and how the probe then ends:

{samples}

[statistics.md](statistics.md) says why.
"""

_LOOKS = (10, 50, 100, 200, 500, 1000, 1500, 2000, 3000)

_SAMPLES: dict[str, Counts | tuple[int, ...]] = {
    "nothing answered yet": Counts(),
    "all of 20 by `one`": (20, 0),
    "all of 100 by `one`: is `two` dead?": (100, 0),
    "79 of 100 by `one`": (79, 21),
    "1280 of 1600 by `one`": (1280, 320),
    "the same, and 160 connections failed": (1280, 320, 160),
    "1120 of 1600 by `one`, which is 70 %": (1120, 480),
    "1280 of 1600 by `one`, and 1 by `three`, which nobody expects": (1280, 319, 0, 1),
    "1280 of 1600 by `one`, and 1 connection by two backends": Counts(
        answers=Counter(one=1280, two=320), outcomes=Counter({Outcome.OK: 1600}), mixed=1
    ),
}
"""In words, and as counts: of `one`, of `two`, of failures, of `three`."""


def page() -> str:
    """The whole page."""
    expectation = Expectation({"one": 80, "two": 20})
    listener, connection = _drawn(drain.__doc__ or "")
    return _PAGE.format(
        listener=listener,
        connection=connection,
        bounds=_bounds(expectation),
        samples=_samples(expectation),
        budget=connections_needed(expectation),
    )


def _drawn(text: str) -> list[str]:
    """The tables of a docstring as Markdown: a row without a state goes on with the last one."""
    tables = []
    for found in re.finditer(r"^    (\S.*)\n    (-[- ]+)\n((?:    .+\n)+)", text, re.MULTILINE):
        head, rule, body = found.groups()
        starts = [dashes.start() for dashes in re.finditer("-+", rule)]
        columns = [slice(*ends) for ends in zip(starts, [*starts[1:], None], strict=True)]
        rows: list[list[str]] = []
        for line in body.splitlines():
            cells = [line[4:][column].strip() for column in columns]
            if cells[0]:
                rows.append(cells)
            else:
                rows[-1] = [" ".join(both).strip() for both in zip(rows[-1], cells, strict=True)]
        tables.append(_table([head[column].strip() for column in columns], rows))
    return tables


def _bounds(expectation: Expectation) -> str:
    """Which counts of the first backend are decided, after how many connections."""
    rows = []
    for total in (*_LOOKS, connections_needed(expectation)):
        verdicts = [judge(expectation, _counts(hits, total - hits)) for hits in range(total + 1)]
        passes = [hits for hits, verdict in enumerate(verdicts) if verdict is Verdict.PASS]
        fails = {hits for hits, verdict in enumerate(verdicts) if verdict is Verdict.FAIL}
        low = min(set(range(total + 2)) - fails)
        high = max(set(range(-1, total + 1)) - fails)
        rows.append(
            [
                str(total),
                f"0 to {low - 1}" if low else "-",
                f"{passes[0]} to {passes[-1]}" if passes else "-",
                f"{high + 1} to {total}" if high < total else "-",
            ]
        )
    return _table(["connections", "FAIL", "PASS", "FAIL"], rows)


def _samples(expectation: Expectation) -> str:
    """What the judge says of each sample."""
    rows = []
    for words, sample in _SAMPLES.items():
        counts = sample if isinstance(sample, Counts) else _counts(*sample)
        verdict = judge(expectation, counts)
        code = "goes on" if verdict is Verdict.INCONCLUSIVE else f"exit code {ExitCode[verdict]}"
        rows.append([words, str(verdict), code])
    return _table(["sample", "verdict", "the probe"], rows)


def _counts(one: int, two: int, failed: int = 0, three: int = 0) -> Counts:
    """Counts of connections."""
    return Counts(
        answers=Counter(one=one, two=two, three=three),
        outcomes=Counter({Outcome.OK: one + two + three, Outcome.RESET: failed}),
    )


def _table(heads: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))
