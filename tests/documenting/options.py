"""Pure: the page of all options, from the commands themselves."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from trio_echo.cli.app import COMMANDS
from trio_echo.cli.command import make_command

__all__ = ["page"]

_HEAD = """\
# Options

Every option of every command, as `trio-echo COMMAND --help` has it. This page is written
by `nox -s docs` from the commands themselves.

A value such as `SECONDS`, `BYTES` or `SHARE` names its unit; a share is from 0 to 1. An
option without a value is a switch. A dash: there is no default.
"""


def page() -> str:
    """All commands, one table each."""
    return _HEAD + "".join(_command(name, text) for name, text in COMMANDS.items())


def _command(name: str, text: str) -> str:
    """A heading, what the command is for, and its table."""
    command = make_command(name, getattr(import_module(f"trio_echo.cli.{name}"), name))
    parameters: list[Any] = list(command.params)
    subjects = list(dict.fromkeys(map(_subject, parameters)))
    parameters.sort(key=lambda each: subjects.index(_subject(each)))
    named = any(each.envvar for each in parameters)
    heads = ["", "option", "meaning", "default", *["environment variable"] * named]
    lines = [f"\n## {name}\n", f"{text}\n", _row(heads), _row(["---"] * len(heads))]
    subject = ""
    for each in parameters:
        new = _subject(each)
        cells = [new if new != subject else "", *_cells(each)]
        lines.append(_row([*cells, *[f"`{each.envvar}`" if each.envvar else ""] * named]))
        subject = new
    return "\n".join(lines) + "\n"


def _subject(parameter: Any) -> str:
    """What it stands under in the help."""
    return str(parameter.rich_help_panel or "Arguments")


def _cells(parameter: Any) -> list[str]:
    """The name with its value, the meaning, and the default."""
    text, _, said = str(parameter.help).partition(" [default: ")
    if parameter.param_type_name != "option":
        return [f"`{parameter.metavar}`", text, said.removesuffix("]") or "-"]
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.is_flag:
        return [f"`{names}`", text, said.removesuffix("]") or "off"]
    default = parameter.default
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    without = "-" if default is None else f"`{shown}`"
    return [f"`{names} {parameter.metavar}`", text, said.removesuffix("]") or without]


def _row(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
