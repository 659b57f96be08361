"""``trio-echo watch``: exit codes, lines and documents, the terminal, the page, the end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import trio
from backends import backend, closed_port, drawing
from processes import COMMAND, run, seen_on_a_terminal
from reports import drawn, ok
from rich.console import Console
from trio.testing import MockClock

from trio_echo.cli.listening import listen_on, parse_listen, url_of
from trio_echo.cli.output import Output
from trio_echo.cli.watch import Watching, view
from trio_echo.errors import ConfigError
from trio_echo.monitor.watch import Watch, WatchConfig
from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome, Result

if TYPE_CHECKING:
    from pathlib import Path

TWO = {"one": 80.0, "two": 20.0}
EXPECT = ("--expect", "one=80,two=20")


def lines(text: str | bytes) -> list[dict[str, Any]]:
    """The objects of a stream."""
    return [json.loads(line) for line in text.splitlines()]


async def test_a_watch_leaves_lines_a_picture_and_code_0(tmp_path: Path) -> None:
    """Nothing changed: where things stand is said at the end, and streamed."""
    stream, picture = tmp_path / "watch.jsonl", tmp_path / "watch.svg"
    async with backend(drawing(TWO, seed=1)) as target:
        done = await run(
            *("watch", target, *EXPECT, "--rate", "200", "--duration", "1", "--hold", "2"),
            *("--json", stream, "--svg", picture),
        )
    assert done.returncode == 0
    assert done.stderr == b""
    first, headline, where = done.stdout.decode().splitlines()
    assert first == f"watching {target}"
    assert headline == f"INCONCLUSIVE so far: {target} not decided yet"
    assert re.fullmatch(r"  \d+ connections, 0 failed, 0 changes of the split; .*", where)
    begin, end = lines(stream.read_text("utf-8"))
    assert begin["kind"] == "start"
    assert begin["expect"] == TWO
    assert end["kind"] == "end"
    assert end["connections"] in range(180, 203)
    assert [one["name"] for one in end["backends"]] == ["one", "two"]
    ET.parse(picture)  # noqa: S314 - made here


async def test_until_change_ends_with_1_at_the_first() -> None:
    """The event is a line on stdout; with --json - it is an object, and words go to stderr."""
    async with backend(drawing({"one": 20.0, "two": 80.0}, seed=1)) as target:
        command = ("watch", target, *EXPECT, "--rate", "100", "--until-change")
        done = await run(*command)
        assert done.returncode == 1
        assert " the split changed at about " in done.stdout.decode()
        assert re.match(r"CHANGED at [\d:]{8}: \w+ from ", done.stdout.decode().splitlines()[-2])
        done = await run(*command, "--json", "-")
        assert done.returncode == 1
        kinds = [one["kind"] for one in lines(done.stdout)]
        assert kinds == ["start", "change", "end"]
        assert " the split changed at about " in done.stderr.decode()


async def test_any_protocol(tmp_path: Path) -> None:
    """The options of the probe, and what was asked in the first object."""
    pytest.importorskip("re2", reason="google-re2 is not installed: pip install google-re2")

    async def greeting(connection: trio.abc.Stream) -> None:
        await connection.send_all(b"I am one\n")
        await connection.receive_some()

    stream = tmp_path / "watch.jsonl"
    timing = ("--rate", "50", "--duration", "0.4", "--hold", "1")
    async with backend(greeting) as target:
        done = await run("watch", target, "--identify", r"am (\w+)", *timing, "--json", stream)
    assert done.returncode == 0
    begin, end = lines(stream.read_text("utf-8"))
    assert begin["asked"] == {"identify": r"am (\w+)"}
    assert [each["name"] for each in end["backends"]] == ["one"]
    assert not end["failures"]


async def test_nobody_answers_is_code_4() -> None:
    """Nothing was measured; the first failure is told."""
    sock, target = closed_port()
    with sock:
        done = await run("watch", target, "--rate", "20", "--duration", "0.5")
    assert done.returncode == 4
    assert " a connection failed: refused, Connection refused" in done.stdout.decode()
    assert f"{target}: nobody has answered yet" in done.stdout.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_is_the_usual_end(tmp_path: Path, number: signal.Signals) -> None:
    """It ends like any other, its documents written, by what it has seen."""
    stream = tmp_path / "watch.jsonl"
    begun = trio.Event()
    choose = drawing(TWO, seed=1)

    async def handle(connection: trio.abc.Stream) -> None:
        begun.set()
        await choose(connection)

    async with backend(handle) as target, trio.open_nursery() as nursery:
        command = [COMMAND, "watch", target, "--rate", "100", "--json", str(stream)]
        process: trio.Process = await nursery.start(
            partial(trio.run_process, command, check=False, stdout=subprocess.DEVNULL)
        )
        with trio.fail_after(20):
            await begun.wait()
            process.send_signal(number)
            # The connection that has just come may not have been answered yet.
            assert await process.wait() in {0, 4}
    assert [one["kind"] for one in lines(stream.read_text("utf-8"))] == ["start", "end"]


async def test_a_document_that_cannot_be_written_ends_the_watch() -> None:
    """At once, with code 4, though it would go on for ever."""
    async with backend(drawing(TWO, seed=1)) as target:
        done = await run("watch", target, "--json", "/dev/full")
        assert done.returncode == 4
        assert b"--json: cannot write '/dev/full': No space left on device" in done.stderr
        with trio.fail_after(20):
            process = await trio.lowlevel.open_process(
                [COMMAND, "watch", target, "--rate", "50", "--until-change", "--json", "-"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert process.stdout is not None
            await process.stdout.receive_some()
            await process.stdout.aclose()
            process.terminate()
            assert await process.wait() == 4


async def test_a_document_that_cannot_be_opened_is_code_4(tmp_path: Path) -> None:
    """Found out when it is opened, as the folder has gone by then."""
    async with backend(drawing(TWO, seed=1)) as target:
        output = Output(json=str(tmp_path / "watch.jsonl"))
        tmp_path.rmdir()  # noqa: ASYNC240 - one call, in a test
        record = await Watching(settings(target), None, output).run()
    assert record.changes == 0
    assert record.elapsed < 1


def settings(target: str, **more: Any) -> WatchConfig:
    """A watch of one backend or two."""
    return WatchConfig(probe=ProbeConfig(target=target, expect=TWO), **more)


def test_once_a_minute_it_says_where_things_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words and as an object."""
    stream = tmp_path / "watch.jsonl"

    async def main() -> None:
        async with backend(drawing(TWO, seed=1)) as target:
            watching = Watching(
                settings(target, rate=1.0, duration=130.0), None, Output(json=str(stream))
            )
            await watching.run()

    trio.run(main, clock=MockClock(autojump_threshold=0.004))
    kinds = [one["kind"] for one in lines(stream.read_text("utf-8"))]
    assert kinds == ["start", "status", "status", "end"]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \d+ connections, 0 failed", printed[1])


async def test_a_reader_that_leaves_ends_the_watch() -> None:
    """As with ``| head -1``: nobody is there to be told any more."""
    async with backend(drawing({"one": 20.0, "two": 80.0}, seed=1)) as target:
        with trio.fail_after(20):
            process = await trio.lowlevel.open_process(
                [COMMAND, "watch", target, *EXPECT, "--rate", "100"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert process.stdout is not None
            await process.stdout.receive_some()
            await process.stdout.aclose()
            assert await process.wait() == 4


async def test_the_page_is_where_it_says() -> None:
    """Port 0 is any; the address is printed; both the page and the metrics are there."""
    async with backend(drawing(TWO, seed=1)) as target, trio.open_nursery() as nursery:
        with trio.fail_after(20):
            command = [COMMAND, "watch", target, "--rate", "50", "--listen", "127.0.0.1:0"]
            process = await nursery.start(
                partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
            )
            printed = b""
            while b"\n" not in printed:
                printed += bytes(await process.stdout.receive_some())
            found = re.match(rb"page and metrics on (http://127\.0\.0\.1:\d+/)\n", printed)
            assert found is not None
            for path, begins in (("", b"<!doctype html>"), ("metrics", b"# HELP")):
                with await trio.to_thread.run_sync(
                    urllib.request.urlopen, found[1].decode() + path
                ) as page:
                    assert page.read().startswith(begins)
            process.terminate()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080", ("", 8080)),
        (":8080", ("", 8080)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_where_to_listen(text: str, place: tuple[str, int]) -> None:
    """A port, or a host and a port."""
    assert parse_listen(text) == place


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", r"http://localhost:\d+/"),
        ("0.0.0.0", r"http://localhost:\d+/"),
        ("127.0.0.1", r"http://127\.0\.0\.1:\d+/"),
        ("::1", r"http://\[::1\]:\d+/"),
    ],
)
async def test_an_address_to_click(host: str, url: str) -> None:
    """Every address is no address to go to; this machine is."""
    for listener in await listen_on((host, 0)):
        with listener.sock:
            assert re.fullmatch(url, url_of(listener))


@pytest.mark.parametrize("text", ["", "http", "localhost", "::1", "::1:80", "localhost:", "1:x"])
def test_nowhere_to_listen(text: str) -> None:
    """Anything else is refused by its option."""
    with pytest.raises(ConfigError) as refused:
        parse_listen(text)
    assert refused.value.field == "listen"


async def test_a_port_that_is_taken_is_refused() -> None:
    """By its option, before anything is watched."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = await run("watch", "localhost:1", "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 2
    assert done.stderr.startswith(b"trio-echo: --listen: ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--rate", "0"), "--rate"),
        (("--hold", "-1"), "--hold"),
        (("--tls-ca", "/nowhere"), "--tls-ca"),
        (("--expect", "one"), "--expect"),
    ],
)
async def test_settings_that_cannot_work_are_refused(
    arguments: tuple[str, ...], named: str
) -> None:
    """Exit code 2, and one line that names the option."""
    done = await run("watch", "localhost:1", *arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    [line] = done.stderr.decode().splitlines()
    assert line.startswith(f"trio-echo: {named}: ")


@pytest.mark.skipif(sys.platform != "linux", reason="a closed terminal ends otherwise elsewhere")
async def test_a_terminal_shows_shares_over_time() -> None:
    """A picture that is wiped at the end; events stay above it; a name can do nothing."""
    async with backend(drawing({"one": 20.0, "e\x1b[2Jvil": 80.0}, seed=1)) as target:
        shown = await seen_on_a_terminal(
            "watch", target, *EXPECT, "--rate", "100", "--duration", "3", "--hold", "2"
        )
    assert "the split changed at about" in shown
    assert "2 of 2 held, 0 lost" in shown
    assert r"e\x1b[2Jvil" in shown
    assert "\x1b[2J" not in shown
    assert shown.rstrip().splitlines()[-1].startswith("  ")


@pytest.mark.skipif(sys.platform != "linux", reason="a closed terminal ends otherwise elsewhere")
async def test_a_terminal_that_is_resized_is_drawn_anew() -> None:
    """What stood there has other lines then; the events are shown again."""
    event = "the split changed at about"
    async with backend(drawing({"one": 20.0, "two": 80.0}, seed=1)) as target:
        shown = await seen_on_a_terminal(
            *("watch", target, *EXPECT, "--rate", "100", "--duration", "2"),
            narrow_after=b", 1 change",  # in the picture, which is below the event
        )
    before, after = shown.split("\x1b[2J")
    assert 1 <= before.count(event) <= after.count(event)


def seen(width: int, *, ascii_only: bool = False, expect: dict[str, float] | None = None) -> str:
    """The picture after a move, at a width."""
    config = WatchConfig(probe=ProbeConfig(target="echo.test:9000", expect=expect or {}), hold=3)
    watching = Watch(config, lambda _: None)
    names = drawn(TWO, 600, 1) + drawn({"one": 20, "two": 80}, 600, 2)
    watching.record.sample(0.0)
    for number, name in enumerate(names):
        lost = number % 40 == 39
        watching.record.take(Result(Outcome.RESET) if lost else ok(name), number / 5)
        if number % 5 == 4:
            watching.record.sample(number / 5)
    page = StringIO()
    Console(file=page, width=width, color_system=None).print(
        view(watching, width, ascii_only=ascii_only)
    )
    return page.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_picture_fits_the_terminal(width: int) -> None:
    """Every line; with room, the names and figures are whole."""
    rows = seen(width, expect=TWO).splitlines()
    assert all(len(row) <= width for row in rows)
    if width >= 80:
        assert any(row.startswith("one ") and "80.0 % ±5" in row for row in rows)
        spark = next(row for row in rows if row.startswith("one "))
        assert set("▁▂▃▄▅▆▇█") & set(spark)
        assert "▁" * 10 in spark


def test_the_picture_in_ascii() -> None:
    """Where nothing else can be shown, and where nothing is expected."""
    assert seen(80, ascii_only=True).isascii()
    assert "±" not in seen(80)


def test_a_watch_that_has_just_begun_has_a_picture() -> None:
    """Before the first sample."""
    config = WatchConfig(probe=ProbeConfig(target="echo.test:9000", expect=TWO))
    page = StringIO()
    watching = Watch(config, lambda _: None)
    Console(file=page, width=80, color_system=None).print(view(watching, 80, ascii_only=False))
    assert "nobody has answered yet" in page.getvalue()
    assert "held" not in page.getvalue()
