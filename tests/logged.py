"""The events that the package tells of, caught."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trio_echo import log

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["capture_logs"]


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """Collect each event: its fields, and its name and level as ``event`` and ``log_level``."""
    entries: list[dict[str, Any]] = []

    def take(record: log.Record) -> None:
        level = logging.getLevelName(record.level).lower()
        entries.append({**record.fields, "event": record.event, "log_level": level})

    with log.send_to(take):
        yield entries
