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
from trio_echo.text import harmless, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Literal

    from trio_echo.prober.words import Report

__all__ = [
    "ExitCode",
    "Lines",
    "Output",
    "OutputError",
    "Words",
    "exit_code",
    "leave_no_gap",
    "on_github",
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
        if on_github():
            lines = [harmless(line) for line in lines]
        if style and self._color:
            lines = [f"{_STYLES[style]}{line}\x1b[0m" for line in lines]
        self.write(lines)

    def write(self, lines: Sequence[str]) -> None:
        """Print lines as they are, if there are any."""
        if lines and self.failure is None:
            try:
                self.file.write("\n".join(lines) + "\n")
                self.file.flush()
            except OSError as error:
                self.failure = error
                _silence(self.file)


_DUMB = {"dumb", "unknown"}
_STYLES = {"good": "\x1b[1;32m", "bad": "\x1b[1;31m", "open": "\x1b[1;33m"}
_VERDICT_STYLES = {"PASS": "good", "FAIL": "bad"}


def on_github() -> bool:
    """Whether GitHub's runner reads what this process prints."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def wants_color(stream: IO[str]) -> bool:
    """Whether to colour what goes to `stream` (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Output:
    """All that a command leaves behind. Each part is tried, whatever became of the others.

    Args:
        json: a path, ``-`` for stdout, or None.
        junit: the same.
        svg: the same.
        png: the same; the picture of `svg`.
        github: whether to tell GitHub too; None for there alone.

    Raises:
        ConfigError: a file cannot be written there, which is found out before
            anything is measured.

    Attributes:
        words: where the results go as words: to stderr where stdout is for a
            document.
    """

    def __init__(
        self,
        json: str | None = None,
        junit: str | None = None,
        svg: str | None = None,
        png: str | None = None,
        *,
        github: bool | None = None,
    ) -> None:
        self._github = on_github() if github is None else github
        self._places = {"json": json, "junit": junit, "svg": svg, "png": png}
        self._failures: list[str] = []
        on_stdout = [field for field, place in self._places.items() if place == "-"]
        if len(on_stdout) > 1:
            raise ConfigError(on_stdout[1], f"stdout is for --{on_stdout[0]} already")
        for field, place in self._places.items():
            if place not in {None, "-"} and (reason := _obstacle(Path(str(place)))):
                raise ConfigError(field, f"cannot write {place!r}: {reason}")
        if png is not None:
            from trio_echo.cli import raster  # noqa: PLC0415 - only where asked for

            raster.check()
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
        self.tell_github({"": report}, report.verdict)
        return exit_code(report)

    def tell_github(
        self,
        cases: Mapping[str, Report],
        verdict: str | None,
        more: Sequence[str] = (),
        fault: str = "",
    ) -> None:
        """Annotate what did not pass, and add to the summary and the outputs of the step.

        Args:
            cases: reports by their names, which may be empty.
            verdict: on all of them.
            more: lines about all of them.
            fault: what is wrong beside them, if anything is.
        """
        if not self._github:
            return
        from trio_echo.prober import github  # noqa: PLC0415 - only where asked for

        Words(stderr=True).write(github.complaints(cases, fault))
        _tell_step(github.summary(cases, more), verdict or "")

    def warn_github(self, warning: str, file: str, line: int | None) -> None:
        """Annotate what is hardly meant, at its place if there is one."""
        if self._github:
            _annotate("warning", warning, file, line)

    def write(self, **makers: Callable[[], str]) -> None:
        """Write those documents that were asked for.

        A document that cannot be made does not hold the others up.

        Args:
            makers: ``json``, ``junit`` or ``svg``, and what makes the text. That of
                ``svg`` makes ``png`` too.
        """
        faults: list[Exception] = []
        for field in self._places:
            make = makers.get("svg" if field == "png" else field)
            place = self._places[field]
            if place is None or make is None:
                continue
            try:
                _write(place, _png(make) if field == "png" else make(), field)
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
        if self._place == "-" and on_github():
            line = harmless(line, "json")
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


def leave_no_gap(words: Sequence[str], code: int, message: str, error: Exception | None) -> None:
    """Write the documents that a command was asked for and could not write; tell GitHub.

    Who reads them finds out why there is no verdict, and nobody takes those of
    an earlier run for those of this one.

    Args:
        words: the command line, which may be one that no command understands.
        code: the exit code.
        message: what happened, for people; its first line is taken.
        error: which knows where it happened, perhaps.
    """
    from trio_echo.prober import github  # noqa: PLC0415 - takes its time
    from trio_echo.prober.document import error_json  # noqa: PLC0415 - the same
    from trio_echo.prober.junit import error_junit  # noqa: PLC0415 - the same

    interrupted = code == ExitCode.INTERRUPTED
    if message and words[0] in _JUDGES and _wants_github(words):
        origin, line = getattr(error, "origin", ""), getattr(error, "line", None)
        _annotate("error", message, origin, line)
        _tell_step(github.summary({}, [message.partition("\n")[0]]), "UNMEASURED")
    message = message.partition("\n")[0] or ExitCode(code).name.lower()
    makers: dict[str, Callable[[], str]] = {
        "json": partial(error_json, message, interrupted=interrupted),
        "junit": partial(error_junit, message, name=words[0], interrupted=interrupted),
    }
    for field, place in _asked_for(words):
        if place not in _written:
            # The exit code says already that there is no verdict; ValueError: NUL in a path.
            with suppress(OSError, ValueError):
                _write(place, makers[field](), field)
    _written.clear()


def _asked_for(words: Sequence[str]) -> list[tuple[str, str]]:
    """Find the documents in a command line; of two places for one, the last."""
    found: dict[str, str] = {}
    options = _options(words)
    for word, following in zip(options, [*options[1:], ""], strict=True):
        flag, equals, place = word.partition("=")
        place = place if equals else following
        if flag in _FLAGS and place and (place == "-" or not place.startswith("-")):
            found[_FLAGS[flag]] = place
    return list(found.items())


def _options(words: Sequence[str]) -> Sequence[str]:
    """The part of a command line that may hold options."""
    return words[: words.index("--")] if "--" in words else words


_JUDGES = {"probe", "rehearse", "report"}
"""The commands that end with a verdict."""


def _wants_github(words: Sequence[str]) -> bool:
    """Whether a command line, in its environment, is to tell GitHub."""
    switches = [word for word in _options(words) if word in {"--github", "--no-github"}]
    return switches[-1] == "--github" if switches else on_github()


def _annotate(level: Literal["error", "warning"], text: str, origin: str, line: int | None) -> None:
    """Print an annotation, at a place in a file if the repository holds it.

    It goes to stderr: the runner reads that as it reads stdout, which may be for
    a document.
    """
    from trio_echo.prober.github import annotation  # noqa: PLC0415 - only where asked for

    file = ""
    root = Path(os.environ.get("GITHUB_WORKSPACE") or ".").resolve()
    path = Path(origin).resolve()
    if path.is_file() and path.is_relative_to(root):
        file = path.relative_to(root).as_posix()
    line = line if file else None
    Words(stderr=True).write([annotation(level, text, title="trio-echo", file=file, line=line)])


def _tell_step(summary: str, verdict: str) -> None:
    """Add to the summary and to the outputs of the step, where GitHub says that they are."""
    for variable, text in (
        ("GITHUB_STEP_SUMMARY", summary),
        ("GITHUB_OUTPUT", f"verdict={verdict}\n"),
    ):
        if place := os.environ.get(variable):
            try:
                with Path(place).open("a", encoding="utf-8") as file:
                    file.write(text)
            except OSError as error:
                said = f"{variable}: cannot write {place!r}: {error.strerror}"
                Words(stderr=True).print(f"warning: {said}", style="open")


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


def _png(make: Callable[[], str]) -> bytes:
    """Make a picture as PNG."""
    from trio_echo.cli.raster import to_png  # noqa: PLC0415 - only where asked for

    return to_png(make())


def _write(place: str, text: str | bytes, field: str = "") -> None:
    """Write a document, in one step where the file system can: all of it or nothing.

    Args:
        place: a path, or ``-`` for stdout.
        text: the document.
        field: ``json``, ``junit``, ``svg`` or ``png``; empty for a text of our own.

    Raises:
        OSError: it could not be written.
    """
    _written.add(place)
    if place == "-":
        if field and on_github() and isinstance(text, str):
            text = harmless(text, "json" if field == "json" else "xml")
        try:
            if isinstance(text, str):
                sys.stdout.write(text)
            else:
                sys.stdout.buffer.write(text)
            sys.stdout.flush()
        except OSError:
            _silence(sys.stdout)
            raise
        return
    data = text.encode() if isinstance(text, str) else text
    path = Path(place).resolve()
    if path.exists() and not path.is_file():  # a device, a pipe
        path.write_bytes(data)
        return
    beside = path.with_name(f".{path.name[:200]}.{os.getpid()}")
    try:
        with beside.open("xb") as file:  # follows no link that somebody left
            file.write(data)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        if error.errno not in _NO_REPLACING:
            raise
        path.write_bytes(data)


def _silence(file: IO[str]) -> None:
    """Let what is still buffered go nowhere, or flushing it at the end would fail again."""
    with suppress(UnsupportedOperation):  # no real stream, in a test
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)
