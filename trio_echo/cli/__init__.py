"""The command line: one module a command.

This room alone prints, reads the environment and calls ``trio.run``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from trio_echo.cli.probe import probe
from trio_echo.cli.rehearse import rehearse
from trio_echo.cli.report import report
from trio_echo.cli.serve import serve
from trio_echo.errors import ConfigError, TrioEchoError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

app = typer.Typer(
    name="trio-echo",
    help="Prove how raw TCP traffic is split.",
    no_args_is_help=True,
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


@app.callback()
def options(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Prove how raw TCP traffic is split."""
    if version:
        from importlib.metadata import version as installed  # noqa: PLC0415 - slow, rarely asked

        typer.echo(f"trio-echo {installed('trio-echo')}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code.

    Bad input of any kind ends with exit code 2 and one line on stderr that
    names the option, file or field and the remedy.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="trio-echo", standalone_mode=False)
    except ConfigError as error:
        option = _ARGUMENTS.get(error.field, "--" + error.field.replace("_", "-"))
        code = refuse(f"{option}: {error.reason}")
    except (TrioEchoError, typer.TyperException) as error:
        code = refuse(str(error))
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def refuse(message: str) -> int:
    """Print one line about bad input, and return the exit code for it."""
    print(f"trio-echo: {message}", file=sys.stderr)
    return 2
