"""The log of a command: events on stderr, for people or for machines.

A log never stops the program. Lines are handed to a thread, which writes them;
where nobody takes them, a bounded number waits, and what comes then is counted
and lost. The count is told as soon as the log takes a line again.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import traceback
from collections import deque
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from io import UnsupportedOperation
from string import Formatter
from typing import TYPE_CHECKING

from trio_echo import log
from trio_echo.cli.output import on_github, wants_color
from trio_echo.text import harmless, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

__all__ = ["LogFormat", "LogLevel", "logging_to"]

_MESSAGES = {
    "admin": "admin pages on {address}",
    "gate": "gate on {url}",
    "listening": "listening on {address}, prefix: {prefix}",
    "request": "{peer} request: {line}",
    "response": "{peer} response: {line}",
}
"""Events that have words of their own, as people and scripts wait for them."""

_FIELDS = {
    event: {name for _, name, _, _ in Formatter().parse(message) if name}
    for event, message in _MESSAGES.items()
}


class LogFormat(StrEnum):
    """How a log line looks."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_LEVELS = {getattr(log, level.name): level for level in LogLevel}


@contextmanager
def logging_to(
    log_format: LogFormat, level: LogLevel, stream: TextIO | None = None
) -> Iterator[None]:
    """Log the package's events for a while.

    On the console an event is its words and then its fields; there is no time
    in front, so that a line is what the documentation says it is. In JSON it is
    one object a line, with the words of those that have some as ``message``.

    Args:
        log_format: for people or for machines.
        level: events under it are not logged.
        stream: where to; stderr if not given. Coloured on a terminal, unless
            ``NO_COLOR`` says otherwise.
    """
    stream = stream or sys.stderr
    render = _renderer(log_format, stream)
    writer = _Writer(stream, render)
    with log.send_to(lambda record: writer.put(render(record)), getattr(log, level.name)):
        try:
            yield
        finally:
            writer.close()


def _renderer(log_format: LogFormat, stream: TextIO) -> Callable[[log.Record], str]:
    """What writes an event; GitHub's runner is to obey nothing in it."""
    as_json = log_format is LogFormat.JSON
    render = _to_json if as_json else _Console(color=wants_color(stream))
    if not on_github():
        return render
    return lambda record: harmless(render(record), "json" if as_json else "text")


def _message(record: log.Record) -> str | None:
    """The words of an event that has words of its own, and the fields that they tell."""
    if _FIELDS.get(record.event, {""}) <= record.fields.keys():
        return _MESSAGES[record.event].format_map(record.fields)
    return None


def _to_json(record: log.Record) -> str:
    """Write an event as one object."""
    fields = dict(record.fields)
    entry = fields | {"event": record.event, "level": _LEVELS[record.level]}
    message = _message(record)
    if message is not None:
        entry["message"] = message
    entry["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    if record.error is not None:
        entry["exception"] = "".join(traceback.format_exception(record.error))
    return json.dumps(entry, default=repr)


class _Console:
    """Writes an event for people: ``warning: the event key=value``."""

    def __init__(self, *, color: bool) -> None:
        codes = ("\x1b[1m", "\x1b[36m", "\x1b[35m", "\x1b[0m") if color else ("", "", "", "")
        self._bright, self._key, self._value, self._reset = codes
        colors = {LogLevel.WARNING: "\x1b[33m", LogLevel.ERROR: "\x1b[31m"} if color else {}
        self._levels = {
            # The usual level needs no word.
            number: ""
            if level is LogLevel.INFO
            else f"{colors.get(level, '')}{level}:{self._reset} "
            for number, level in _LEVELS.items()
        }

    def __call__(self, record: log.Record) -> str:
        message = _message(record)
        told = set() if message is None else _FIELDS[record.event]
        words = visible(record.event if message is None else message)
        line = f"{self._levels[record.level]}{self._bright}{words}{self._reset}"
        for key, value in record.fields.items():
            if key in told:
                continue
            line += f" {self._key}{key}{self._reset}={self._value}{log.written(value)}{self._reset}"
        if record.error is not None:
            line += "\n" + "".join(traceback.format_exception(record.error)).rstrip()
        return line


_MOST_WAITING = 2**20
"""Characters that wait for a log that takes none: seconds of a busy server's."""

_LAST_WAIT = 1.0
"""Seconds that the end of the program waits for the log to take the rest."""


class _Writer:
    """Writes lines in a thread of its own, which alone waits for who reads them.

    A log that cannot be written (a closed pipe, a full disk) is lost; the
    program goes on.
    """

    def __init__(self, stream: TextIO, render: Callable[[log.Record], str]) -> None:
        self._render = render
        self._write = _writes_to(stream)
        self._lines: deque[str] = deque()
        # Each is counted up by one thread alone, so no lock is needed.
        self._taken = self._lost = 0  # characters, and lines
        self._written = self._told = 0
        self._closed = False
        self._some = threading.Event()
        # A daemon: a reader who never reads must not hold the end up.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Hand a line over, or count it as lost."""
        if self._taken - self._written > _MOST_WAITING:
            self._lost += 1
            return
        self._taken += len(line) + 1
        self._lines.append(line)
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Wait a moment for the rest to be written."""
        self._closed = True
        self._some.set()
        self._thread.join(_LAST_WAIT)

    def _run(self) -> None:
        while not self._closed or self._lines:
            self._some.wait()
            self._some.clear()
            self._write_all()
        self._write_all()  # a loss may have been counted since

    def _write_all(self) -> None:
        while self._lines:
            # All that has come since: a busy log is written in large pieces.
            count = len(self._lines)
            text = "\n".join(self._lines.popleft() for _ in range(count)) + "\n"
            self._write(text)
            self._written += len(text)
        # Nothing that came before the loss is left to be written.
        lost = self._lost - self._told
        if lost:
            self._told += lost
            record = log.Record(log.WARNING, "log lines lost", {"count": lost})
            self._write(self._render(record) + "\n")


def _writes_to(stream: TextIO) -> Callable[[str], None]:
    """Make what writes text to a stream, past its buffer and its lock where it has a number.

    A thread that waits with a stream's lock in its hand would break the end of
    the interpreter, which flushes the stream.
    """
    try:
        descriptor = stream.fileno()
    except UnsupportedOperation:  # in memory
        descriptor = None

    def write(text: str) -> None:
        try:
            if descriptor is None:
                stream.write(text)
                return
            data = memoryview(text.encode(stream.encoding, "backslashreplace"))
            while data:
                try:
                    data = data[os.write(descriptor, data) :]
                except BlockingIOError:  # another program that shares it made it so
                    select.select([], [descriptor], [])
        except (OSError, ValueError):  # ValueError: it is closed
            pass

    return write
