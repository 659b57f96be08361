"""What GitHub's runner makes of a line that a step prints, after ``ActionCommand.cs``."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Command", "obeyed"]

NAMES = {
    *("add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group"),
    *("notice", "remove-matcher", "save-state", "set-env", "set-output", "stop-commands"),
    "warning",
}


class Command(NamedTuple):
    """A workflow command.

    Attributes:
        name: which.
        properties: between the name and the text.
        text: what it is about.
    """

    name: str
    properties: dict[str, str]
    text: str


def obeyed(printed: str) -> list[Command]:
    """The commands that the runner finds in what was printed, in either syntax."""
    lines = re.split(r"\r\n|\r|\n", printed)
    return [command for line in lines if (command := _read(line)) is not None]


def _read(line: str) -> Command | None:
    if (new := re.match(r"\s*::(.*?)::(.*)", line)) and _name(new[1]) in NAMES:
        properties = {
            name: _undone(value, {"%3A": ":", "%2C": ","}) for name, value in _pairs(new[1], ",")
        }
        return Command(_name(new[1]), properties, _undone(new[2], {}))
    if (old := re.search(r"##\[(.*?)\](.*)", line)) and _name(old[1]) in NAMES:
        return Command(_name(old[1]), dict(_pairs(old[1], ";")), old[2])
    return None


def _name(head: str) -> str:
    return head.partition(" ")[0].lower()


def _pairs(head: str, comma: str) -> list[tuple[str, str]]:
    split = [each.partition("=") for each in head.partition(" ")[2].strip().split(comma)]
    return [(name, value) for name, _, value in split if name and value]


def _undone(text: str, more: dict[str, str]) -> str:
    for written, meant in {"%0D": "\r", "%0A": "\n", **more, "%25": "%"}.items():
        text = text.replace(written, meant)
    return text
