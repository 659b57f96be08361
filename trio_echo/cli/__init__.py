"""The command line: one module a command.

This room alone prints, reads the environment and calls ``trio.run``. Its other
modules are imported when they are needed, behind the handlers of signals.
"""

from __future__ import annotations

from trio_echo.cli import signals

TYPE_CHECKING = False  # typing takes 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    signals.install()
    from trio_echo.cli.app import run  # noqa: PLC0415 - not before the handlers are set

    raise SystemExit(run(arguments))
