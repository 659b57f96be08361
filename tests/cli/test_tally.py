"""The live tally: its line and its bars, without a probe behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from reports import ok
from rich.console import Console

from trio_echo.cli.tally import bar, follow, line, picture
from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.schedule import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}


def counted(*results: Result, expect: Mapping[str, float] = EIGHTY_TWENTY) -> Tally:
    """A tally in the middle of a probe."""
    tally = Tally(
        ProbeConfig(target="echo.test:9000", expect=expect, max_errors=9, connections=5000),
        "run",
    )
    tally.address = "127.0.0.1:9000"
    tally.phase = "probing"
    for index, result in enumerate(results):
        tally.take(index, result)
    return tally


def test_line_says_the_phase() -> None:
    """What it waits for, until there is something to count."""
    tally = counted()
    assert line(tally) == "probing 127.0.0.1:9000 (echo.test)"
    tally.phase = "waiting"
    assert line(tally) == "waiting for a first answer from 127.0.0.1:9000 (echo.test)"
    tally.phase = "looking"
    assert line(tally) == (
        "looking for the cause with some more connections to 127.0.0.1:9000 (echo.test)"
    )
    tally.phase, tally.address = "resolving", None
    assert line(tally) == "resolving echo.test:9000"


def test_line_counts() -> None:
    """Shares of all connections, failures by their word."""
    tally = counted(ok("one"), ok("one"), ok("two"), Result(Outcome.RESET))
    assert line(tally) == (
        "4 of up to 5000 connections to 127.0.0.1:9000 (echo.test): one 50.0 %, two 25.0 %, reset 1"
    )
    assert line(tally, counts=False) == "probing 127.0.0.1:9000 (echo.test)"


async def test_line_says_how_long_and_how_many() -> None:
    """Without a bound, for how long alone."""
    tally = Tally(ProbeConfig(target="127.0.0.1:9000", duration=5), "run")
    tally.phase, tally.started = "probing", trio.current_time() - 2
    tally.take(0, ok("one"))
    assert line(tally) == "1 connection to 127.0.0.1:9000 in 2.0 s: one 100.0 %"
    shown = rendered(tally)
    assert "\n1 connection in 2.0 s of 5.0 s" in shown
    assert "expected" not in shown


def rendered(tally: Tally, width: int = 120) -> str:
    """The picture as plain text."""
    console = Console(width=width, color_system=None, force_terminal=True, legacy_windows=False)
    with console.capture() as capture:
        console.print(picture(tally, width=width, ascii_only=False))
    return capture.get()


def test_picture_has_a_bar_for_each_backend() -> None:
    """The expected ones from the start, the unexpected when they come."""
    assert rendered(counted()) == "probing 127.0.0.1:9000 (echo.test)\n"
    shown = rendered(counted(ok("one")))
    assert "one" in shown
    assert "100.0 %" in shown
    assert "0.0 %" in shown
    below = [each.rstrip() for each in shown.splitlines()[2:]]
    assert below[:2] == ["1 of at most 5000 connections, 0 %", "probing 127.0.0.1:9000 (echo.test)"]
    assert "true share: █ at least, ▓ observed, ░ at most; ┃ expected" in shown


@pytest.mark.parametrize("width", [80, 200])
def test_picture_fits_the_terminal(width: int) -> None:
    """One line for each backend and three below, none of them wrapped or cut."""
    long = "a backend with quite a long name"
    results = ([ok(long)] * 4 + [ok("two")]) * 180 + [Result(Outcome.RESET)] * 3
    tally = counted(*results, expect={long: 80, "two": 20})
    shown = [each.rstrip() for each in rendered(tally, width).splitlines()]
    assert len(shown) == 2 + 3
    assert all(len(each) <= width for each in shown)
    assert "…" not in "".join(shown)
    assert shown[1].endswith(" %")
    assert shown[2] == "903 of at most 5000 connections, 18 %, reset 3"


@pytest.mark.parametrize(
    ("share", "low", "high", "expected", "drawn"),
    [
        (0.5, 0.4, 0.6, 0.8, "#" * 20 + "+" * 5 + "-" * 5 + " " * 10 + "|" + " " * 9),
        (1.0, 0.9, 1.0, 1.0, "#" * 45 + "+" * 4 + "|"),
        (0.0, 0.0, 0.1, None, "-" * 5 + " " * 45),
    ],
)
def test_bar(share: float, low: float, high: float, expected: float | None, drawn: str) -> None:
    """Solid up to the interval, shaded within, a mark at what is expected."""
    assert bar(share, low, high, expected, ascii_only=True).plain == drawn


@pytest.mark.parametrize(
    ("host", "says"), [("127.0.0.1", ""), ("[::1]", ""), ("echo.test", "resolving echo.test:9000")]
)
async def test_only_a_name_is_resolved_in_a_log(
    capsys: pytest.CaptureFixture[str], host: str, says: str
) -> None:
    """What is an address already is no news."""
    with trio.move_on_after(0.01):
        await follow(Tally(ProbeConfig(target=f"{host}:9000"), "run"))
    assert capsys.readouterr().err.strip() == says
