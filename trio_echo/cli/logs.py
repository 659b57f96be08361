"""The logs of the commands: structlog, on stderr, for people or for machines."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from enum import StrEnum
from string import Formatter
from typing import TYPE_CHECKING

import structlog
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, plain_traceback

from trio_echo.text import visible

if TYPE_CHECKING:
    from typing import TextIO

    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["LogFormat", "LogLevel", "configure"]

_MESSAGES = {
    "admin": "admin pages on {address}",
    "listening": "listening on {address}, prefix: {prefix}",
    "request": "{peer} request: {line}",
    "response": "{peer} response: {line}",
}
"""Events that have words of their own, as people and scripts wait for them."""

_FIELDS = {
    event: [name for _, name, _, _ in Formatter().parse(message) if name]
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


def configure(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Set structlog up for this process.

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
    processors: list[Processor] = [structlog.processors.add_log_level]
    if log_format is LogFormat.JSON:
        processors += [
            _add_message,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    else:
        processors += [_put_in_words, _console_renderer(colors=_wants_color(stream))]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=lambda *_: _Lines(stream),
    )


def _wants_color(stream: TextIO) -> bool:
    """Whether to colour what goes to `stream` (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _add_message(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the words of an event that has some to its fields."""
    message = _MESSAGES.get(event["event"])
    if message is not None:
        event["message"] = message.format_map(event)
    return event


def _put_in_words(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the words of an event that has some in the place of the fields they tell."""
    name = event["event"]
    message = _MESSAGES.get(name)
    if message is not None:
        event["event"] = message.format_map(event)
        for field in _FIELDS[name]:
            del event[field]
    return event


def _console_renderer(*, colors: bool) -> ConsoleRenderer:
    """Make the renderer for people: ``warning: the event key=value``."""
    styles = ConsoleRenderer.get_default_column_styles(colors)
    levels = ConsoleRenderer.get_default_level_styles(colors)

    def show_level(key: str, value: object) -> str:  # noqa: ARG001 - structlog passes both
        # The usual level needs no word.
        return "" if value == "info" else f"{levels[str(value)]}{value}:{styles.reset}"

    return ConsoleRenderer(
        columns=[
            Column("level", show_level),
            Column("event", KeyValueColumnFormatter(None, styles.bright, styles.reset, _printable)),
            Column(
                "", KeyValueColumnFormatter(styles.kv_key, styles.kv_value, styles.reset, _value)
            ),
        ],
        exception_formatter=plain_traceback,
        sort_keys=False,
    )


def _printable(value: object) -> str:
    """Write a value so that it cannot play with a terminal, whoever logged it."""
    return visible(str(value))


def _value(value: object) -> str:
    """Write the value of a field, in quotes where its end would not be seen."""
    text = _printable(value)
    return text if text and not set(text) & set(" '\"=") else repr(text)


class _Lines:
    """Writes log lines, each with one call, so that processes may share a stream.

    A log that cannot be written (a closed pipe, a full disk) is lost; the
    server goes on.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        """Write a line."""
        with suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = msg
