"""A command as this project likes it: its help, and its values read without waste."""

from __future__ import annotations

import re
import textwrap
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args

import typer
from typer.core import TyperCommand

from trio_echo.cli.output import write_out
from trio_echo.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    # typer carries click inside, and exports no names for these.
    from typer._click import Context, HelpFormatter
    from typer.core import TyperOption

__all__ = ["Help", "make_command"]


def make_command(name: str, function: Callable[..., Any]) -> TyperCommand:
    """Make a command of a function with typer's annotations."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=_Command)(function)
    command = typer.main.get_command(app)
    assert isinstance(command, _Command)  # noqa: S101 - by the line before
    return command


_WIDEST = 100


class Help:
    """A mixin for typer's commands: values are read by `_Reader`, and help is plain text.

    Help says what a command does, how to call it, options by subject, examples.

    An option's subject is its ``rich_help_panel``. What follows "Examples:" in
    a command's docstring is printed as it stands.
    """

    def get_params(self, context: Context) -> list[Any]:
        """The parameters, each with our reader in the place of typer's."""
        parameters: list[Any] = super().get_params(context)  # type: ignore[misc]  # a mixin
        for each in parameters:
            each.get_runtime_param = _Reader
        return parameters

    def format_help(self, context: Context, formatter: HelpFormatter) -> None:
        """Write the help."""
        command = context.command
        text, _, examples = (command.help or "").partition("\n\nExamples:\n")
        width = min(_WIDEST, formatter.width + 2)  # the formatter leaves a margin
        write = formatter.write
        write(_wrapped(f"Usage: {self.usage(context)}", width, indent=7) + "\n")
        for paragraph in text.split("\n\n"):
            write("\n" + _wrapped(" ".join(paragraph.split()), width) + "\n")
        for subject, rows in self.subjects(context).items():
            write(f"\n{subject}:\n" + _table(rows, width))
        write("\nExamples:\n" + textwrap.indent(textwrap.dedent(examples), "  ") + "\n")

    def get_help_option(self, context: Context) -> TyperOption | None:
        """The option that prints the help, through our own door: stdout may be full."""
        option: TyperOption = super().get_help_option(context)  # type: ignore[misc]  # a mixin
        option.callback = _print_help
        return option

    def usage(self, context: Context) -> str:
        """How the command is called."""
        arguments = [each for each in self.get_params(context) if not _is_option(each)]
        return " ".join([context.command_path, "[OPTIONS]", *map(_usage, arguments)])

    def subjects(self, context: Context) -> dict[str, list[tuple[str, str]]]:
        """The rows of each subject, in the order in which they are declared."""
        subjects: dict[str, list[tuple[str, str]]] = {}
        others: list[tuple[str, str]] = []
        for each in self.get_params(context):
            subject = each.rich_help_panel or ("" if _is_option(each) else "Arguments")
            rows = subjects.setdefault(subject, []) if subject else others
            rows.append((_names(each), _text(each)))
        return subjects | {"Other options": others}


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _usage(argument: Any) -> str:
    """An argument as the usage shows it."""
    several = "..." if argument.nargs == -1 else ""
    return f"{argument.metavar}{several}" if argument.required else f"[{argument.metavar}{several}]"


def _names(parameter: Any) -> str:
    """What a parameter is called."""
    if not _is_option(parameter):
        return str(parameter.metavar)
    names = ", ".join(sorted(parameter.opts, key=len))
    return names if parameter.is_flag else f"{names} {parameter.metavar}"


def _text(parameter: Any) -> str:
    """What a parameter is for, and its default where the text does not say it."""
    text = str(parameter.help or "")
    if not _is_option(parameter):
        return text
    default = parameter.default
    if default is None or parameter.is_flag or not parameter.show_default:
        return text
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{text} [default: {shown}]"


def _print_help(context: Context, _parameter: object, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        write_out(context.get_help() + "\n")
        raise typer.Exit


def _wrapped(text: str, width: int, indent: int = 0) -> str:
    """Wrap between words, never inside one: an option or a name stays whole."""
    return textwrap.fill(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


_NAMES_WIDTH = 26


def _table(rows: Iterable[tuple[str, str]], width: int) -> str:
    """Names to the left, their texts to the right; a long name has a line to itself."""
    rows = list(rows)
    column = 4 + max(len(name) for name, _ in rows if len(name) <= _NAMES_WIDTH)
    lines = []
    for name, text in rows:
        first = (
            f"  {name}".ljust(column) if len(name) <= _NAMES_WIDTH else f"  {name}\n{'':{column}}"
        )
        wrapped = _wrapped(text, width - column).replace("\n", "\n" + " " * column)
        lines.append(f"{first}{wrapped}\n")
    return "".join(lines)


class _Command(Help, TyperCommand):
    """One command."""


_BOOLS = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


class _Reader:
    """Reads the words of a command line as what they stand for.

    Typer would have pydantic do it, which takes 40 ms to import and does not
    say which value it cannot read.
    """

    def coerce(self, value: Any, param: Any, ctx: object) -> Any:  # noqa: ARG002 - typer's signature
        """Read a value, or several.

        Raises:
            ConfigError: a word is of another form.
        """
        annotation = param.type_descriptor.annotation
        if param.multiple or param.nargs == -1:
            [each] = get_args(annotation)
            return [_read(param, each, one) for one in value or ()]
        return None if value is None else _read(param, annotation, value)


def _read(param: Any, kind: type[Any], value: Any) -> Any:
    """Read one word; what is no word is a default already."""
    name = max(param.opts, key=len).lstrip("-").replace("-", "_")
    if not isinstance(value, str):
        return value
    if issubclass(kind, Enum):
        choices = [str(each.value) for each in kind]
        if value not in choices:
            raise ConfigError(name, f"must be one of {', '.join(choices)}, got {value!r}")
        return kind(value)
    if kind is bool:
        if value.lower() not in _BOOLS:
            raise ConfigError(name, f"must be true or false, got {value!r}")
        return _BOOLS[value.lower()]
    if kind is int and not re.fullmatch("[+-]?[0-9]{1,18}", value):
        raise ConfigError(name, f"must be a whole number, got {value!r}")
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(name, f"must be a number, got {value!r}") from None
