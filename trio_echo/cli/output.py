"""What a command leaves behind: words on the terminal, documents in files, one exit code."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from enum import IntEnum
from functools import partial
from io import UnsupportedOperation
from pathlib import Path
from typing import TYPE_CHECKING

from trio_echo.errors import ConfigError
from trio_echo.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from trio_echo.prober.words import Report

__all__ = [
    "ExitCode",
    "Lines",
    "Output",
    "OutputError",
    "Words",
    "exit_code",
    "leave_no_gap",
    "wants_color",
    "write_out",
]


class ExitCode(IntEnum):
    """How a command ends."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    INCONCLUSIVE = 3
    UNMEASURED = 4
    """No verdict: it could not be measured, or not be written."""
    FAULT = 70
    """A fault of trio-echo itself (EX_SOFTWARE of sysexits.h)."""
    INTERRUPTED = 130


class OutputError(Exception):
    """What was asked for could not be written."""


class Words:
    """Where words for people go. What cannot be written is remembered, and ends nothing.

    Attributes:
        file: stdout or stderr.
        terminal: whether it is a terminal that can move its cursor.
        failure: why a word could not be written; None as long as each was.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self.file: IO[str] = sys.stderr if stderr else sys.stdout
        self.terminal = self.file.isatty() and os.environ.get("TERM") not in _DUMB
        self.failure: OSError | None = None
        self._color = wants_color(self.file)

    def print(self, text: str, style: str = "") -> None:
        """Print lines. Whatever came from elsewhere can do nothing to the terminal.

        Args:
            text: lines; LF is between them.
            style: "good", "bad", "open" or nothing.
        """
        lines = [visible(line) for line in text.split("\n")]
        if style and self._color:
            lines = [f"{_STYLES[style]}{line}\x1b[0m" for line in lines]
        if self.failure is None:
            try:
                self.file.write("\n".join(lines) + "\n")
                self.file.flush()
            except OSError as error:
                self.failure = error
                _silence(self.file)


_DUMB = {"dumb", "unknown"}
_STYLES = {"good": "\x1b[1;32m", "bad": "\x1b[1;31m", "open": "\x1b[1;33m"}
_VERDICT_STYLES = {"PASS": "good", "FAIL": "bad"}


def wants_color(stream: IO[str]) -> bool:
    """Whether to colour what goes to `stream` (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Output:
    """All that a command leaves behind. Each part is tried, whatever became of the others.

    Args:
        json: a path, ``-`` for stdout, or None.
        junit: the same.
        svg: the same.

    Raises:
        ConfigError: a file cannot be written there, which is found out before
            anything is measured.

    Attributes:
        words: where the results go as words: to stderr where stdout is for a
            document.
    """

    def __init__(
        self, json: str | None = None, junit: str | None = None, svg: str | None = None
    ) -> None:
        self._places = {"json": json, "junit": junit, "svg": svg}
        self._failures: list[str] = []
        on_stdout = [field for field, place in self._places.items() if place == "-"]
        if len(on_stdout) > 1:
            raise ConfigError(on_stdout[1], f"stdout is for --{on_stdout[0]} already")
        for field, place in self._places.items():
            if place not in {None, "-"} and (reason := _obstacle(Path(str(place)))):
                raise ConfigError(field, f"cannot write {place!r}: {reason}")
        self.words = Words(stderr=bool(on_stdout))

    def publish(self, report: Report) -> ExitCode:
        """Print a report and write its documents; return what it means."""
        headline, *rest = str(report).splitlines()
        verdict = report.verdict
        self.words.print(headline, "" if verdict is None else _VERDICT_STYLES.get(verdict, "open"))
        for line in rest:
            self.words.print(line)

        # Each takes its time to import, and is rarely asked for.
        def to_json() -> str:
            from trio_echo.prober.document import to_json  # noqa: PLC0415 - only where asked for

            return to_json(report)

        def to_junit() -> str:
            from trio_echo.prober.junit import to_junit  # noqa: PLC0415 - only where asked for

            return to_junit(report)

        def to_svg() -> str:
            from trio_echo.prober.picture import to_svg  # noqa: PLC0415 - only where asked for

            return to_svg(report)

        self.write(json=to_json, junit=to_junit, svg=to_svg)
        return exit_code(report)

    def write(self, **makers: Callable[[], str]) -> None:
        """Write those documents that were asked for.

        A document that cannot be made does not hold the others up.

        Args:
            makers: ``json``, ``junit`` or ``svg``, and what makes the text.
        """
        faults: list[Exception] = []
        for field, make in makers.items():
            place = self._places[field]
            if place is None:
                continue
            try:
                _write(place, make())
            except OSError as error:
                self._failures.append(
                    _stdout_failed(error)
                    if place == "-"
                    else f"--{field}: cannot write {place!r}: {error.strerror}"
                )
            except Exception as fault:  # noqa: BLE001 - raised below, behind the others
                faults.append(fault)
        if faults:
            raise faults[0]

    def lines(self) -> Lines | None:
        """Begin the JSON document as one that grows by lines; None if none was asked for."""
        place = self._places["json"]
        return None if place is None else Lines(place, self._failures)

    def end(self, code: int) -> ExitCode:
        """Give the exit code of a command whose result means `code`.

        Raises:
            OutputError: something could not be written, and nobody stopped it.
        """
        failure = self.words.failure
        if failure is not None and self.words.file is not sys.stderr:
            self._failures.append(
                "" if failure.errno == errno.EPIPE else f"stdout: {failure.strerror}"
            )
        if self._failures and code != ExitCode.INTERRUPTED:
            raise OutputError("\n".join(filter(None, self._failures)))
        return ExitCode(code)


class Lines:
    """A document that grows by one JSON object a line.

    Args:
        place: a path, which is begun anew, or ``-`` for stdout.
        failures: where a failure to write is added.

    Attributes:
        failed: whether a line could not be written; later ones are not tried.
    """

    def __init__(self, place: str, failures: list[str]) -> None:
        self.failed = False
        self._place = place
        self._failures = failures
        self._file: IO[str] | None = None
        _written.add(place)
        try:
            self._file = (
                sys.stdout if place == "-" else Path(place).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end
            )
        except OSError as error:
            self._fail(error)

    def write(self, line: str) -> None:
        """Write one object, at once."""
        if self._file is None:
            return
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """End the document."""
        if self._file is not None and self._place != "-":
            self._file.close()

    def _fail(self, error: OSError) -> None:
        self.failed = True
        on_stdout = self._place == "-"
        self._failures.append(
            _stdout_failed(error)
            if on_stdout
            else f"--json: cannot write {self._place!r}: {error.strerror}"
        )
        if self._file is not None:
            _silence(self._file)
        self._file = None


def exit_code(report: Report) -> ExitCode:
    """What a report means. Where nothing was expected, all is as expected."""
    if report.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.PASS if report.verdict is None else ExitCode[report.verdict]


def write_out(text: str) -> None:
    """Write text to stdout as it is.

    Raises:
        OutputError: it cannot be written, or the reader has left.
    """
    try:
        _write("-", text)
    except OSError as error:
        raise OutputError(_stdout_failed(error)) from None


def _stdout_failed(error: OSError) -> str:
    """Say so, unless the reader has left, as that of ``| head -1`` does."""
    return "" if error.errno == errno.EPIPE else f"stdout: {error.strerror}"


_written: set[str] = set()
"""Documents that this process has written, so that `leave_no_gap` leaves them."""

_FLAGS = {"--json": "json", "--junit": "junit"}


def leave_no_gap(words: Sequence[str], code: int, message: str) -> None:
    """Write the documents that a command was asked for and could not write.

    Who reads them finds out why there is no verdict, and nobody takes those of
    an earlier run for those of this one.

    Args:
        words: the command line, which may be one that no command understands.
        code: the exit code.
        message: what happened; its first line is taken.
    """
    from trio_echo.prober.document import error_json  # noqa: PLC0415 - takes its time
    from trio_echo.prober.junit import error_junit  # noqa: PLC0415 - the same

    interrupted = code == ExitCode.INTERRUPTED
    message = message.partition("\n")[0] or ExitCode(code).name.lower()
    makers: dict[str, Callable[[], str]] = {
        "json": partial(error_json, message, interrupted=interrupted),
        "junit": partial(error_junit, message, name=words[0], interrupted=interrupted),
    }
    for field, place in _asked_for(words):
        if place not in _written:
            # The exit code says already that there is no verdict; ValueError: NUL in a path.
            with suppress(OSError, ValueError):
                _write(place, makers[field]())
    _written.clear()


def _asked_for(words: Sequence[str]) -> list[tuple[str, str]]:
    """Find the documents in a command line; of two places for one, the last."""
    found: dict[str, str] = {}
    options = words[: words.index("--")] if "--" in words else words
    for word, following in zip(options, [*options[1:], ""], strict=True):
        flag, equals, place = word.partition("=")
        place = place if equals else following
        if flag in _FLAGS and place and (place == "-" or not place.startswith("-")):
            found[_FLAGS[flag]] = place
    return list(found.items())


_KINDS = {
    ExitCode.USAGE: "usage",
    ExitCode.UNMEASURED: "unmeasured",
    ExitCode.INTERRUPTED: "interrupted",
}


def _obstacle(place: Path) -> str:
    """Why a file cannot be written; nothing if it can."""
    if place.is_dir():
        return "it is a folder"
    if not place.parent.is_dir():
        return "there is no such folder"
    target = place if place.exists() else place.parent
    return "" if os.access(target, os.W_OK) else "no permission"


_NO_REPLACING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY}
"""Where a file may be written but its folder not, or where it is mounted."""


def _write(place: str, text: str) -> None:
    """Write a document, in one step where the file system can: all of it or nothing.

    Raises:
        OSError: it could not be written.
    """
    _written.add(place)
    if place == "-":
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:
            _silence(sys.stdout)
            raise
        return
    path = Path(place).resolve()
    if path.exists() and not path.is_file():  # a device, a pipe
        path.write_text(text, encoding="utf-8")
        return
    beside = path.with_name(f".{path.name[:200]}.{os.getpid()}")
    try:
        with beside.open("x", encoding="utf-8") as file:  # follows no link that somebody left
            file.write(text)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        if error.errno not in _NO_REPLACING:
            raise
        path.write_text(text, encoding="utf-8")


def _silence(file: IO[str]) -> None:
    """Let what is still buffered go nowhere, or flushing it at the end would fail again."""
    with suppress(UnsupportedOperation):  # no real stream, in a test
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)
