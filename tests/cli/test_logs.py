"""A log line is a plain sentence or one JSON object, whatever is in it."""

from __future__ import annotations

import io
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_echo.cli.logs import LogFormat, LogLevel, logging_to
from trio_echo.log import INFO, Log
from trio_echo.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def logged(
    say: Callable[[Any], object],
    log_format: LogFormat = LogFormat.CONSOLE,
    level: LogLevel = LogLevel.DEBUG,
    stream: io.StringIO | None = None,
) -> str:
    """Return what is written when `say` logs."""
    stream = stream or io.StringIO()
    with logging_to(log_format, level, stream):
        say(Log())
    return stream.getvalue()


def say_listening(log: Any) -> None:
    """Log the first line of a server."""
    log.info("listening", address="[::]:9000", prefix="hello")


def test_the_first_line_is_as_documented() -> None:
    """Nothing before it, nothing after it: scripts wait for this line."""
    assert logged(say_listening) == "listening on [::]:9000, prefix: hello\n"


def test_the_first_line_in_json_has_its_words_and_its_fields() -> None:
    """Machines need no regular expression, and grep still finds the words."""
    record = json.loads(logged(say_listening, LogFormat.JSON))
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "listening",
        "level": "info",
        "message": "listening on [::]:9000, prefix: hello",
        "address": "[::]:9000",
        "prefix": "hello",
    }


def test_requests_look_like_the_original() -> None:
    """The payload is last, so that no payload can pass for a field."""

    def say(log: Any) -> None:
        log.info("request", peer="[::1]:4242", line="world peer=x")
        log.info("response", peer="[::1]:4242", line="one world peer=x")

    assert logged(say).splitlines() == [
        "[::1]:4242 request: world peer=x",
        "[::1]:4242 response: one world peer=x",
    ]


def test_other_events_are_words_and_fields() -> None:
    """The level is said where it is not the usual one; odd values are in quotes."""

    def say(log: Any) -> None:
        log.debug("opened", peer="[::1]:4242")
        log.info("drained", connections=3)
        log.warning("no TLS handshake", reason="wrong version number", sni="")
        log.warning("failed", pair="a=b")

    assert logged(say).splitlines() == [
        "debug: opened peer=[::1]:4242",
        "drained connections=3",
        "warning: no TLS handshake reason='wrong version number' sni=''",
        "warning: failed pair='a=b'",
    ]


@pytest.mark.parametrize("log_format", LogFormat)
def test_the_level_is_a_floor(log_format: LogFormat) -> None:
    """Every level under it is silent, itself is not."""

    def say(log: Any) -> None:
        for level in ("debug", "info", "warning", "exception"):
            getattr(log, level)(level)

    for number, level in enumerate(LogLevel):
        lines = logged(say, log_format, level).splitlines()
        assert len(lines) == len(LogLevel) - number


hostile = st.binary() | st.text().map(lambda text: text.encode())


@given(hostile, st.sampled_from(["request", "response", "refused"]))
@example(b"\x1b]0;owned\x07\x1b[2J\r\n{peer}\xff\xe2\x80\xae\\", "request")
def test_hostile_payload_stays_on_its_line_in_every_format(payload: bytes, event: str) -> None:
    """One line a record, nothing that moves a cursor, and JSON that parses."""

    def say(log: Any) -> None:
        log.info(event, peer="[::1]:4242", line=printable(payload.decode(errors="surrogateescape")))

    line = logged(say)
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    line = logged(say, LogFormat.JSON)
    assert line.endswith("\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    assert json.loads(line)["line"] == printable(payload.decode(errors="surrogateescape"))


@given(st.text())
@example("\x1b[2J\n\udcff")
@example("response")  # without the fields that its words tell
def test_what_nobody_escaped_cannot_harm_either(text: str) -> None:
    """A second line of defence: no value breaks a line or plays with a terminal."""

    def say(log: Any) -> None:
        log.info(text, value=text)

    assert logged(say)[:-1].isprintable()
    assert json.loads(logged(say, LogFormat.JSON))["value"] == text


@pytest.mark.parametrize("log_format", LogFormat)
def test_an_exception_is_told_with_its_trace(log_format: LogFormat) -> None:
    """On the console after the line, in JSON as a field of it."""

    def say(log: Any) -> None:
        try:
            raise RuntimeError("broken")  # noqa: TRY301 - it has to have a trace
        except RuntimeError:
            log.exception("a connection failed")

    output = logged(say, log_format)
    if log_format is LogFormat.JSON:
        record = json.loads(output)
        assert record["event"] == "a connection failed"
        output = record["exception"]
    else:
        assert output.startswith("error: a connection failed\nTraceback ")
    assert output.rstrip().endswith("RuntimeError: broken")


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never in a file, never with NO_COLOR, never on a dumb terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in logged(say_listening, stream=Terminal())
    assert "\x1b[" not in logged(say_listening)
    assert "\x1b[" not in logged(say_listening, LogFormat.JSON, stream=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in logged(say_listening, stream=Terminal())
    monkeypatch.setenv("NO_COLOR", "")  # empty is as good as unset
    assert "\x1b[" in logged(say_listening, stream=Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" not in logged(say_listening, stream=Terminal())


def test_a_log_that_cannot_be_written_is_lost() -> None:
    """The reader of a pipe may leave; the server goes on."""

    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    logged(say_listening, stream=Full())
    closed = io.StringIO()
    with logging_to(LogFormat.CONSOLE, LogLevel.INFO, closed):
        closed.close()
        say_listening(Log())


def test_logs_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is for results."""
    with logging_to(LogFormat.CONSOLE, LogLevel.INFO):
        say_listening(Log())
    assert capsys.readouterr() == ("", "listening on [::]:9000, prefix: hello\n")


@contextmanager
def unread_log() -> Iterator[tuple[TextIO, TextIO]]:
    """Both ends of a pipe that is full; nobody reads it before the test does."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"before\n" * 512)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n")
    os.set_blocking(writing, True)
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as writer:
        yield reader, writer


def test_a_log_that_nobody_reads_stops_nobody() -> None:
    """What does not fit is lost and counted; the count is told when the log takes it."""
    taken: list[str] = []
    with unread_log() as (reader, writer):
        with logging_to(LogFormat.CONSOLE, LogLevel.INFO, writer):
            log = Log(text="x" * 1000)
            for number in range(10_000):
                log.info("line", number=number)
            reading = threading.Thread(target=lambda: taken.extend(reader))
            reading.start()
        writer.close()
        reading.join()
    lines = [line for line in taken if line.startswith(("line", "warning"))]
    *said, told = lines
    assert re.fullmatch(r"warning: log lines lost count=(\d+)\n", told)
    assert 1000 < len(said) < 10_000
    assert len(said) + int(told.partition("=")[2]) == 10_000
    assert [line.rpartition("=")[2] for line in said] == [f"{n}\n" for n in range(len(said))]


def test_the_end_does_not_wait_for_a_log_that_nobody_reads() -> None:
    """A reader that never comes back holds nothing up."""
    with unread_log() as (_, writer):
        began = time.monotonic()
        with logging_to(LogFormat.CONSOLE, LogLevel.INFO, writer):
            Log().info("line")
        assert time.monotonic() - began < 30


def test_a_log_that_takes_no_line_for_now_gets_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that shares the pipe may have made it non-blocking."""
    waits = threading.Event()
    wait = select.select

    def told(*files: Any) -> Any:
        waits.set()
        return wait(*files)

    monkeypatch.setattr(select, "select", told)
    with unread_log() as (reader, writer):
        os.set_blocking(writer.fileno(), False)
        with logging_to(LogFormat.CONSOLE, LogLevel.INFO, writer):
            Log().info("line")
            assert waits.wait(60)
            line = ""
            while line != "line\n":
                line = reader.readline()


def test_events_go_to_logging_where_no_command_asks(caplog: pytest.LogCaptureFixture) -> None:
    """With their fields in words, and as they are."""
    log = Log(peer="[::1]:1")
    assert not log.is_enabled_for(INFO)
    log.info("nobody asked")
    caplog.set_level("INFO", logger="trio_echo")
    assert log.is_enabled_for(INFO)
    log.debug("not this")
    log.info("opened", reason="a b\x1b")
    [record] = caplog.records
    assert record.getMessage() == r"opened peer=[::1]:1 reason='a b\\x1b'"
    assert vars(record)["event"] == "opened"
    assert vars(record)["fields"] == {"peer": "[::1]:1", "reason": "a b\x1b"}


def test_a_library_is_silent_until_asked() -> None:
    """Not even a warning is printed, as `logging` would by itself."""
    code = "from trio_echo.log import Log; Log().warning('x'); Log().exception('y')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
