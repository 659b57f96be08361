"""The commands by name, and how each of them ends."""

from __future__ import annotations

import os
import sys
import traceback
from codecs import backslashreplace_errors, register_error
from collections.abc import Mapping
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import trio_echo
from trio_echo.cli import signals
from trio_echo.cli.command import Help, make_command
from trio_echo.cli.output import ExitCode, OutputError, Words, leave_no_gap, write_out
from trio_echo.errors import ConfigError, RehearsalError, TrioEchoError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    # typer carries click inside, and exports no names for these.
    from typer._click import Command as AnyCommand
    from typer._click import Context

__all__ = ["COMMANDS", "run"]

COMMANDS = {
    "serve": "Answer every line with PREFIX in front: a backend that names itself.",
    "probe": "Open connections, count who answers, and judge the split.",
    "report": "Add up the reports of several probes to one verdict.",
    "watch": "Probe slowly and for ever, and say when the split changes.",
    "gate": "Probe on request over HTTP: for Argo Rollouts, Flagger, Prometheus.",
    "rehearse": "Run a weighted route on this machine with a real Envoy, and judge it.",
}
"""Each is a function of its name in a module of its name, imported when it is run."""

_ARGUMENTS = {"ports": "PORTS", "prefix": "PREFIX", "target": "HOST:PORT"}
"""Settings that are no options, as the usage shows them."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Bad input of any kind ends with exit code 2 and one line on stderr that
    names the option, file or field and the remedy. However it ends, a JSON and
    a JUnit file that were asked for are there.
    """
    _prepare_standard_streams()
    # Without a word the help says what there is.
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    message = ""
    wrong: Exception | None = None
    try:
        code = _invoke(list(words))
        # Perhaps too late for the command to mind it, as while it wrote its documents.
        if signals.interrupted():
            code = ExitCode.INTERRUPTED
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except (OutputError, RehearsalError) as error:
        code, message = ExitCode.UNMEASURED, str(error)
    except (TrioEchoError, typer.TyperException) as error:
        code, message, wrong = ExitCode.USAGE, _refusal(error), error
    except ExceptionGroup as group:
        # What nurseries raise. One that holds nothing but bad input is bad input.
        found, faults = group.split(TrioEchoError)
        if found is None or faults is not None:
            code, message = ExitCode.FAULT, _fault(group)
        else:
            wrong = _leaf(found)
            code, message = ExitCode.USAGE, _refusal(wrong)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no FAIL
        code, message = ExitCode.FAULT, _fault(error)
    if message:
        Words(stderr=True).print(f"trio-echo: {message}")
    if code and words[0] in COMMANDS:
        leave_no_gap(words, code, message, wrong)
    return code


def _invoke(words: list[str]) -> ExitCode:
    """Run the command that the words name."""
    command = typer.main.get_command(_app)
    if "_TRIO_ECHO_COMPLETE" in os.environ:  # a shell asks how a word goes on
        command.main(words, prog_name="trio-echo")
    try:
        with command.make_context("trio-echo", words) as context:
            command.invoke(context)
    except typer.Exit as end:
        return ExitCode(end.exit_code)
    return ExitCode.PASS


def _prepare_standard_streams() -> None:
    """Have a stream that was closed (``2>&-``) lead nowhere, and any text find a form.

    Python has None in the place of a closed one, to which nobody can write, and
    the next socket would get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open to the end
        elif isinstance(stream, TextIOWrapper) and mode == "w":
            stream.reconfigure(errors="in-ascii")  # in a locale without UTF-8


_PLAIN = {"µ": "u", "±": "+-", "…": "...", "·": "-"}


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write what a terminal cannot show: our own signs in letters, others as escapes."""
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101 - it is for writing
    plain = _PLAIN.get(error.object[error.start])
    return backslashreplace_errors(error) if plain is None else (plain, error.start + 1)


register_error("in-ascii", _in_ascii)


def _refusal(error: Exception) -> str:
    """One line about bad input."""
    if isinstance(error, ConfigError):
        option = _ARGUMENTS.get(error.field, "--" + error.field.replace("_", "-"))
        return f"{option}: {error.reason}"
    if isinstance(error, typer.TyperException):
        return " ".join(error.format_message().split())
    return str(error)


def _fault(error: Exception) -> str:
    """One line about a fault of our own; all of it where the environment asks."""
    if os.environ.get("TRIO_ECHO_TRACEBACK"):
        return "a fault of trio-echo itself\n" + "".join(traceback.format_exception(error)).strip()
    leaf = _leaf(error)
    frames = traceback.extract_tb(leaf.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    what = " ".join(f"{type(leaf).__name__}: {leaf}".split())
    return (
        f"a fault of trio-echo itself: {what}{place};"
        " please report it, with what TRIO_ECHO_TRACEBACK=1 adds"
    )


def _leaf(error: Exception) -> Exception:
    """The first exception in nested groups that is no group itself."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


class _Lazily(Mapping[str, "AnyCommand"]):
    """The commands, each imported when it is looked up."""

    def __getitem__(self, name: str) -> AnyCommand:
        if name not in COMMANDS:
            raise KeyError(name)
        return make_command(name, getattr(import_module(f"trio_echo.cli.{name}"), name))

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Commands(Help, TyperGroup):
    """The command ``trio-echo`` itself."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Lazily()  # type: ignore[assignment]  # nobody adds to them

    def subjects(self, context: Context) -> dict[str, list[tuple[str, str]]]:
        """The commands first, without importing them."""
        return {"Commands": list(COMMANDS.items()), **super().subjects(context)}

    def usage(self, context: Context) -> str:
        """A command, and what it takes."""
        return f"{super().usage(context)} COMMAND ..."


_app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    """Print the version and exit, before any command is looked for."""
    if wanted:
        write_out(f"trio-echo {trio_echo.__version__}\n")
        raise typer.Exit


@_app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Prove how raw TCP traffic is split.

    Examples:
    trio-echo serve 9000 one
    trio-echo probe localhost:9000 --expect one=1
    trio-echo rehearse
    """
