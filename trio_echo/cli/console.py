"""Where words go: a console that a reader may leave without ending the program."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from typing import IO

__all__ = ["Words", "silence", "write_out"]


class Words(Console):
    """Plain words in, no markup: what is printed may come from anywhere.

    Args:
        stderr: print there instead of on stdout.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Go on without words: ``| head -1`` must not turn a PASS into exit code 1."""
        self.quiet = True
        silence(self.file)


def write_out(text: str) -> None:
    """Write to stdout as it is; to nobody, if the reader has left."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)


def silence(file: IO[str]) -> None:
    """Let what is still buffered go nowhere, or flushing it at the end would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)
