"""Names and texts as an enemy would choose them, all the way to each output."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from backends import backend
from hostile import PIECES, hostile_text
from hypothesis import assume, given
from hypothesis import strategies as st
from junitparser import JUnitXml
from reports import made
from rich.console import Console
from trio import SocketStream, abc

from trio_echo.cli.tally import line, picture
from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.document import error_json, from_json, to_json
from trio_echo.prober.junit import error_junit, to_junit
from trio_echo.prober.picture import to_svg
from trio_echo.prober.schedule import Tally, probe
from trio_echo.prober.words import Report, shares
from trio_echo.text import visible


def assert_safe(report: Report) -> None:
    """Nothing reaches a terminal raw, XML parses, JSON is valid and comes back."""
    text = str(report)
    for each in text.split("\n"):
        assert visible(each) == each
    document = json.loads(to_json(report))
    for remark in (*document["reasons"], *document["findings"]):
        assert visible(remark["text"]) == remark["text"]
    again = from_json(to_json(report))
    assert again.counts == report.counts
    assert str(again) == text
    [suite] = JUnitXml.fromstring(to_junit(report).encode())
    assert suite.tests == 1
    svg = to_svg(report)
    assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 - written by the code under test
    assert svg.replace("\n", "").isprintable()


@given(names=st.lists(hostile_text(), min_size=1, max_size=4), expected=hostile_text())
def test_names(names: list[str], expected: str) -> None:
    """Different names stay different, in the counts and on paper."""
    assert_safe(made(names, expect={expected: 2, f"{expected}'": 1}, max_errors=9))
    report = made(names * 3)
    assert_safe(report)
    shown = [row[0] for row in shares(report)[1:]]
    assert len(shown) == len(set(shown)) == len(set(names))


@given(text=hostile_text(min_size=1), name=hostile_text())
def test_everything_else(text: str, name: str) -> None:
    """What a foreign report, or a system, may say elsewhere."""
    assume("\x00" not in text)
    report = made(
        [name, Result(Outcome.RESET, detail=visible(text))],
        target=f"{text.replace(':', '')}x:9",
        run=text,
    )
    assert_safe(report)
    assert_safe(report.unmeasured(visible(text)))
    # A report from elsewhere is not trusted to have made its texts safe.
    document = json.loads(to_json(report))
    run = document["runs"][0]
    carried = json.loads(to_json(made([text])))["backends"][0]["name"]
    for field in ("target", "address", "fault", "label"):
        run[field] = carried
    run["notices"] = [carried]
    run["examples"] = {"reset": carried}
    foreign = from_json(json.dumps(document))
    for each in (*str(foreign).split("\n"), *to_svg(foreign).split("\n")):
        assert visible(each) == each
    JUnitXml.fromstring(to_junit(foreign).encode())
    assert json.loads(error_json(text))["error"] == visible(text)
    JUnitXml.fromstring(error_junit(text, name=text).encode())


@given(names=st.lists(hostile_text(), min_size=1, max_size=3))
def test_the_live_tally(names: list[str]) -> None:
    """It is drawn on a terminal while the names come in."""
    tally = Tally(ProbeConfig(target="x:1", expect={names[0]: 1}, max_errors=9), "run")
    for index, name in enumerate(names):
        tally.take(index, Result(Outcome.OK, name))
    assert visible(line(tally)) == line(tally)
    console = Console(width=200, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(picture(tally, width=120, ascii_only=False))
    for each in capture.get().split("\n"):
        assert visible(each) == each


async def test_bytes_on_the_wire() -> None:
    """As bytes of a real peer: those that are no text, and those that look like their escape."""
    names = [
        piece.encode(errors="surrogateescape" if piece == "\udcff" else "surrogatepass")
        for piece in PIECES
        if "\n" not in piece
    ]
    turns = iter(names)

    async def answer(stream: abc.Stream) -> None:
        assert isinstance(stream, SocketStream)
        await stream.send_all(next(turns) + b" " + await stream.receive_some())

    async with backend(answer) as target:
        report = await probe(ProbeConfig(target=target, connections=len(names), concurrency=1))
    assert report.counts.answers.total() == len(names)
    assert len(report.counts.answers) == len(set(names))
    assert_safe(report)
