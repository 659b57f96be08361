"""Events that the package tells of, each with its fields.

A library is silent until its user asks. So events go to the logger "trio_echo"
of `logging`, where nothing is shown before the program sets logging up; the
record has ``event`` and ``fields`` as attributes. A command has them sent
elsewhere, by `send_to`.

An event is a short constant. What happened to whom is in its fields, as it
came: who writes them makes them safe.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from trio_echo.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["DEBUG", "ERROR", "INFO", "WARNING", "Log", "Record", "send_to", "written"]

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

_LOGGER = logging.getLogger("trio_echo")
_LOGGER.addHandler(logging.NullHandler())  # else `logging` would print warnings by itself


class Record(NamedTuple):
    """One event.

    Attributes:
        level: one of `DEBUG`, `INFO`, `WARNING` and `ERROR`.
        event: what happened.
        fields: to whom, how often and so on.
        error: the exception behind it.
    """

    level: int
    event: str
    fields: Mapping[str, object]
    error: BaseException | None = None


_Sink: TypeAlias = "Callable[[Record], object]"


def _to_logging(record: Record) -> None:
    if _LOGGER.isEnabledFor(record.level):
        words = [record.event, *(f"{key}={written(each)}" for key, each in record.fields.items())]
        named = {"event": record.event, "fields": dict(record.fields)}
        _LOGGER.log(record.level, "%s", " ".join(words), exc_info=record.error, extra=named)


_sink: _Sink = _to_logging
_floor = 0


@contextmanager
def send_to(sink: _Sink, floor: int = DEBUG) -> Iterator[None]:
    """Send events to a function for a while, and not to `logging`.

    Args:
        sink: takes each event; must neither raise nor wait.
        floor: the least level that it takes.
    """
    global _sink, _floor
    before = _sink, _floor
    _sink, _floor = sink, floor
    try:
        yield
    finally:
        _sink, _floor = before


class Log:
    """Tells of events. Each call costs next to nothing where nobody listens.

    Args:
        fields: are added to each event.
    """

    __slots__ = ("_fields",)

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def is_enabled_for(self, level: int) -> bool:
        """Whether anybody listens to events of a level."""
        return level >= _floor and (_sink is not _to_logging or _LOGGER.isEnabledFor(level))

    def debug(self, event: str, **fields: object) -> None:
        """Tell of the usual, in detail."""
        if _floor <= DEBUG:
            _sink(Record(DEBUG, event, self._fields | fields))

    def info(self, event: str, **fields: object) -> None:
        """Tell of the usual."""
        if _floor <= INFO:
            _sink(Record(INFO, event, self._fields | fields))

    def warning(self, event: str, **fields: object) -> None:
        """Tell of what somebody should look at."""
        if _floor <= WARNING:
            _sink(Record(WARNING, event, self._fields | fields))

    def exception(self, event: str, **fields: object) -> None:
        """Tell of a fault, with the exception that is being handled."""
        _sink(Record(ERROR, event, self._fields | fields, sys.exception()))


def written(value: object) -> str:
    """Write the value of a field, in quotes where its end would not be seen."""
    text = visible(str(value))
    return text if text and not set(text) & set(" '\"=") else repr(text)
