"""Run the console blocks of a page, one after another, and compare what they print.

A block shows commands behind ``$ `` and what each prints. All blocks of a page run in one
shell, in a folder with copies of ``manifests`` and ``docs``. What is compared:

* Each command ends with exit code 0. One that is to fail is followed by ``; echo ...``.
* Standard output is what the page shows, line for line. A line that the page shows may
  also stand on standard error, where there may be others.
* ``...`` alone is any number of lines; in a line it is any text.
* A number is any number, with any unit of time; blanks are any number of blanks. Whole
  percentages and exit codes are compared as they stand.
* A command that ends with ``&`` goes on until the page ends. The next one waits until it
  has written a line. What it writes is not compared.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from documenting.pages import ROOT, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ALONE", "alone", "commands", "differences", "fits"]

INSTALLED = re.compile("^pip install [^&]*&& ")
"""What a reader needs and a test has."""

# Ports that a page names may be taken here: it runs in a network of its own.
ALONE: Sequence[str] | None = next(
    (
        flags
        for flags in (["--net"], ["--user", "--map-root-user", "--net"])
        if shutil.which("unshare")
        and not subprocess.run(
            ["unshare", *flags, "ip", "link", "set", "lo", "up"],  # noqa: S607 - the same
            check=False,
            capture_output=True,
        ).returncode
    ),
    None,
)
"""Options of ``unshare`` that give a network; None where there are none."""

_SCRIPT = """\
exec </dev/null
export PATH={path}:$PATH COLUMNS=120
"""

_STEP = """\
{{ {text}
}} >{number}.out 2>{number}.err
echo $? >{number}.code
"""

_WAIT = """\
until [ -s {number}.out -o -s {number}.err ]; do sleep 0.02; done
"""


def alone(*command: str | Path) -> list[str | Path]:
    """A command in a network of its own, where every port is free."""
    assert ALONE is not None, "this needs root, or user namespaces"
    return ["unshare", *ALONE, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]


@dataclass
class Command:
    """One command of a block.

    Attributes:
        text: the command, all its lines.
        shown: the lines that the page shows below it.
    """

    text: str
    shown: list[str] = field(default_factory=list)


def commands(page: Path) -> list[Command]:
    """The commands of all console blocks of a page."""
    found: list[Command] = []
    for line in "".join(blocks(page, "console")).splitlines():
        if line.startswith("$ "):
            found.append(Command(INSTALLED.sub("", line[2:])))
        elif found and line.startswith("> "):
            found[-1].text += "\n" + line.removeprefix("> ")
        else:
            assert found, f"{page}: a console block begins with `$ `, got {line!r}"
            found[-1].shown.append(line)
    return found


def differences(page: Path, folder: Path) -> list[str]:
    """Run a page in an empty folder; tell where it printed something else."""
    for name in ("manifests", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    found = commands(page)
    script = _SCRIPT.format(path=Path(sys.executable).parent)
    for number, command in enumerate(found):
        script += _STEP.format(text=command.text, number=number)
        if command.text.endswith("&"):
            script += _WAIT.format(number=number)
    environment = {name: value for name, value in os.environ.items() if name != "GITHUB_ACTIONS"}
    with subprocess.Popen(
        alone("bash", "-c", script),
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as shell:
        try:
            shell.wait()
        finally:
            with suppress(ProcessLookupError):  # it has left nothing running
                os.killpg(shell.pid, signal.SIGTERM)
    return [line for number, each in enumerate(found) for line in _compare(each, folder, number)]


def _compare(command: Command, folder: Path, number: int) -> Iterator[str]:
    """What is wrong with one command."""
    printed, aside, code = (
        (folder / f"{number}.{kind}").read_text(encoding="utf-8") for kind in ("out", "err", "code")
    )
    if int(code):
        yield f"$ {command.text}\nexit code {code}{aside}"
        return
    if command.text.endswith("&"):
        return
    if not fits(command.shown, printed, aside):
        shown = "\n".join(command.shown)
        yield f"$ {command.text}\n--- shown\n{shown}\n--- printed\n{printed}--- aside\n{aside}"


def fits(shown: Sequence[str], printed: str, aside: str = "") -> bool:
    """Whether the lines of a page are what standard output and error say."""
    lines = aside.splitlines()
    wanted = [
        _pattern(line)
        for line in shown
        if not line.strip(". ") or not any(re.fullmatch(_pattern(line), each) for each in lines)
    ]
    expected = "".join(each if each == _ANY_LINES else f"{each}\n" for each in wanted)
    return re.fullmatch(expected, printed) is not None


_ANY_LINES = "(?:.*\n)*?"
_FIGURE = r"\d[\d,.:]*(?: (?:µs|ms|s|min|h)(?!\w))?"
_TOKEN = re.compile(
    r"(?P<ellipsis>\.\.\.)|(?P<same>\b\d+ %|exit code \d+)|(?P<blanks>\s+)"
    rf"|(?P<figure>{_FIGURE}|(?<!\S)-(?!\S))"
)


def _pattern(line: str) -> str:
    """What a line may be printed as, as a regular expression."""
    if line == "...":
        return _ANY_LINES
    pattern, end = "", 0
    for token in _TOKEN.finditer(line):
        pattern += re.escape(line[end : token.start()])
        end = token.end()
        pattern += {
            "ellipsis": ".*",
            "same": re.escape(token.group()),
            "blanks": r"\s+",
            "figure": f"(?:{_FIGURE}|-)",
        }[str(token.lastgroup)]
    return pattern + re.escape(line[end:])
