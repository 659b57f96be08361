"""The command line: one module a command.

This room alone prints, reads the environment and calls ``trio.run``.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from trio_echo.cli.probe import probe
from trio_echo.cli.rehearse import rehearse
from trio_echo.cli.report import report
from trio_echo.cli.serve import serve
from trio_echo.errors import ConfigError, TrioEchoError
from trio_echo.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

app = typer.Typer(
    name="trio-echo",
    help="Prove how raw TCP traffic is split.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve)
app.command("probe")(probe)
app.command("report")(report)
app.command("rehearse")(rehearse)

_ARGUMENTS = {"ports": "PORTS", "prefix": "PREFIX", "target": "HOST:PORT"}
"""Settings that are no options, as the usage shows them."""


def _print_version(wanted: bool) -> None:
    """Print the version and exit, before any command is looked for."""
    if wanted:
        typer.echo(f"trio-echo {version('trio-echo')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Prove how raw TCP traffic is split."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code.

    Bad input of any kind ends with exit code 2 and one line on stderr that
    names the option, file or field and the remedy.
    """
    _open_standard_streams()
    command = typer.main.get_command(app)
    try:
        # Without a word the help says what there is.
        words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        # Typer makes 130 of a Ctrl-C.
        sys.exit(command.main(words, prog_name="trio-echo", standalone_mode=False))
    except (TrioEchoError, typer.TyperException) as error:
        sys.exit(_refuse(error))
    except ExceptionGroup as group:
        # What nurseries raise. One that holds nothing but bad input is bad input.
        _, faults = group.split(TrioEchoError)
        if faults is not None:
            raise
        sys.exit(_refuse(_first(group)))


def _open_standard_streams() -> None:
    """Have the standard streams that were closed (``2>&-``) lead nowhere.

    Python has None in their places, to which nobody can write, and the next
    socket would get the number of such a stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open to the end


def _refuse(error: TrioEchoError | typer.TyperException) -> int:
    """Print one line about bad input, and return the exit code for it."""
    if isinstance(error, ConfigError):
        option = _ARGUMENTS.get(error.field, "--" + error.field.replace("_", "-"))
        message = f"{option}: {error.reason}"
    elif isinstance(error, typer.TyperException):
        message = " ".join(error.format_message().split())
    else:
        message = str(error)
    print(f"trio-echo: {visible(message)}", file=sys.stderr)
    return 2


def _first(group: ExceptionGroup[Exception]) -> TrioEchoError:
    """Find the first error in a group of them."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, TrioEchoError)  # noqa: S101 - the caller has split off all else
    return error
