"""What every command has in common: the version, the help, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from junitparser import JUnitXml

from trio_echo.cli import main, signals
from trio_echo.errors import ConfigError, RehearsalError, TrioEchoError


def ended(*words: str) -> object:
    """Run a command line to its end; return the exit code."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    return caught.value.code


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """No command needs to be named for it."""
    assert ended("--version") == 0
    assert capsys.readouterr().out == f"trio-echo {version('trio-echo')}\n"


def test_without_a_word_the_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """All commands, each with a line."""
    assert ended() == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in ("serve", "probe", "report", "rehearse"))


def test_a_command_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with the command that was probably meant."""
    assert ended("prob") == 2
    assert capsys.readouterr().err == ("trio-echo: No such command 'prob'. Did you mean 'probe'?\n")


def test_ctrl_c_while_a_command_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before trio runs, here while manifests are typed in."""

    class Typing:
        def read(self) -> str:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError

    monkeypatch.setattr(sys, "stdin", Typing())
    assert ended("rehearse", "-") == 130


def test_a_fault_of_our_own_is_neither_bad_input_nor_a_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says so, and the traceback is there for who reports it."""

    async def fail(_: object) -> int:
        try:
            raise ZeroDivisionError("by\n0")  # noqa: TRY301 - an error with a place
        except ZeroDivisionError as error:
            raise ExceptionGroup("", [ExceptionGroup("", [error])]) from None

    monkeypatch.setattr("trio_echo.cli.serve._serve_until_signalled", fail)
    assert ended("serve", "0", "one") == 70
    [line] = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"trio-echo: a fault of trio-echo itself: ZeroDivisionError: by 0 at test_main.py:\d+;"
        " please report it, with what TRIO_ECHO_TRACEBACK=1 adds",
        line,
    )

    monkeypatch.setenv("TRIO_ECHO_TRACEBACK", "1")
    assert ended("serve", "0", "one") == 70
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert "ZeroDivisionError" in shown


def test_bad_input_that_comes_in_a_group_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nurseries wrap what their tasks raise."""

    async def refuse(_: object) -> int:
        raise ExceptionGroup("", [ConfigError("max_line", "must be above 0")])

    monkeypatch.setattr("trio_echo.cli.serve._serve_until_signalled", refuse)
    assert ended("serve", "0", "one") == 2
    assert capsys.readouterr().err == "trio-echo: --max-line: must be above 0\n"


FAULTS: list[tuple[BaseException, int]] = [
    (ZeroDivisionError("nothing"), 70),
    (KeyboardInterrupt(), 130),
    (TrioEchoError("bad\x1b[2J"), 2),
    (RehearsalError("no Envoy"), 4),
]


@pytest.mark.parametrize(("fault", "code"), FAULTS)
@pytest.mark.parametrize("words", [("probe", "localhost:1"), ("rehearse",), ("report", "x.json")])
def test_however_a_command_ends_its_documents_are_there(  # noqa: PLR0913 - three are fixtures
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    *,
    words: tuple[str, ...],
    fault: BaseException,
    code: int,
) -> None:
    """Valid, and none of an earlier run stays."""

    def fail(*_: object) -> int:
        raise fault

    monkeypatch.setattr("trio_echo.cli.output.Output.publish", fail)
    monkeypatch.setattr("trio.run", fail)
    monkeypatch.setattr("trio_echo.cli.report.merge", fail)
    monkeypatch.setattr("trio_echo.cli.report._collect", lambda _: ({}, []))
    monkeypatch.chdir(tmp_path)
    junit = tmp_path / "out.xml"
    junit.write_text("an earlier run")
    Path("x.json").write_text("")
    assert ended(*words, f"--junit={junit}", "--json", "-") == code
    out, err = capsys.readouterr()
    assert err.replace("\n", "").isprintable()
    document = json.loads(out)
    assert document["verdict"] == (None if code == 130 else "UNMEASURED")
    assert document["interrupted"] is (code == 130)
    [suite] = JUnitXml.fromfile(str(junit))
    assert suite.errors == 1
    [case] = suite
    [error] = case.result
    assert error.type == ("interrupted" if code == 130 else "UNMEASURED")
    assert {path.name for path in tmp_path.iterdir()} == {"out.xml", "x.json"}


@pytest.mark.parametrize(
    "words",
    [
        ("probe", "--json", "-", "--no-such-option"),
        ("probe", "--junit", "--json", "-"),
        ("probe", "localhost:1", "--json", "gone/x.json", "--json", "-", "--margin", "7"),
    ],
)
def test_bad_input_has_its_document_too(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the command line cannot be understood."""
    assert ended(*words) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"] == err.removeprefix("trio-echo: ").rstrip("\n")


@pytest.mark.parametrize(
    "words",
    [("--help",), ("--version",), ("serve", "--help"), ("rehearse", "--print-envoy")],
)
@pytest.mark.parametrize("closed", [False, True])
def test_a_full_disk_or_a_closed_pipe_is_said_by_the_exit_code(
    words: tuple[str, ...], closed: bool
) -> None:
    """What was asked for did not arrive: 4, without a traceback."""
    if closed:
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-m", "trio_echo", *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 4
    assert done.stderr == ("" if closed else "trio-echo: stdout: No space left on device\n")


def test_a_document_that_cannot_be_made_holds_no_other_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A fault in one is told, after the others; it leaves no gap."""

    def fail(_: object) -> str:
        raise ZeroDivisionError("in the picture")

    monkeypatch.setattr("trio_echo.prober.document.to_json", fail)
    places = {name: tmp_path / name for name in ("json", "junit", "svg")}
    words = [f"--{name}={place}" for name, place in places.items()]
    assert ended("probe", "127.0.0.1:1", *words) == 70
    assert "ZeroDivisionError: in the picture" in capsys.readouterr().err
    assert "ZeroDivisionError" in json.loads(places["json"].read_text())["error"]
    assert JUnitXml.fromfile(str(places["junit"]))
    assert "<svg" in places["svg"].read_text()


def test_a_document_may_go_to_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is put in its place."""
    assert ended("probe", "127.0.0.1:1", "--svg", "/dev/null") == 4
    assert Path("/dev/null").is_char_device()
    assert "cannot write" not in capsys.readouterr().err


@pytest.mark.parametrize(("number", "written"), [(errno.EBUSY, True), (errno.ENOSPC, False)])
def test_a_file_that_cannot_be_replaced_is_overwritten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, *, written: bool
) -> None:
    """As one that is mounted into a container; but on a full disk the old one stays whole."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    place = tmp_path / "out.json"
    place.write_text("before")
    monkeypatch.setattr(Path, "replace", refuse)
    assert ended("probe", "127.0.0.1:1", "--json", str(place)) == 4
    assert (place.read_text() != "before") is written
    assert list(tmp_path.iterdir()) == [place]


def test_a_shell_can_complete_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the names alone."""
    monkeypatch.setenv("_TRIO_ECHO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "trio-echo re")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert ended() == 0
    assert capsys.readouterr().out.split() == ["report", "rehearse"]


def test_only_one_document_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """Two would be neither."""
    assert ended("probe", "localhost:1", "--junit", "-", "--svg", "-") == 2
    assert "--svg: stdout is for --junit already" in capsys.readouterr().err


STARTED_AND_SIGNALLED = """
import os, sys
from trio_echo.cli import main

left, number = int(sys.argv[1]), int(sys.argv[2])

def count(event, _):
    global left
    left -= event == "import"
    if left == 0:
        left = -1
        os.kill(os.getpid(), number)

sys.addaudithook(count)
main(sys.argv[3:])
"""
"""Sends itself a signal at one of its imports: every moment of the start has one."""


@pytest.mark.parametrize("moment", [1, 2, 40, 120, 250])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_interrupts(
    moment: int, number: signal.Signals, tmp_path: Path
) -> None:
    """From the first import on, with the documents that were asked for."""
    place = tmp_path / "out.json"
    words = ["probe", "192.0.2.1:9", "--json", str(place)]
    done = subprocess.run(
        [sys.executable, "-c", STARTED_AND_SIGNALLED, str(moment), str(int(number)), *words],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode == 130
    assert json.loads(place.read_text())["verdict"] in {None, "UNMEASURED"}


@pytest.mark.parametrize("moment", [1, 60, 120])
def test_a_server_that_is_stopped_while_it_starts_has_nothing_to_drain(moment: int) -> None:
    """It ends as after any drain; as process 1 of a container too, where no handler is no end."""
    words = [str(moment), str(int(signal.SIGTERM)), "serve", "0", "one"]
    done = subprocess.run(
        [sys.executable, "-c", STARTED_AND_SIGNALLED, *words],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_nohup_is_respected() -> None:
    """A SIGHUP that was ignored at the start stays ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert ended("--version") == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_signal_that_came_before_ends_what_may_take_long() -> None:
    """It is not waited for another."""
    signals.install()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), signals.interruptible():
        raise AssertionError
    signal.raise_signal(signal.SIGINT)  # the next one breaks into nothing
    assert signals.interrupted()


def test_a_terminal_without_our_signs_shows_letters() -> None:
    """What is foreign is escaped, as nobody knows what it means."""
    assert "899 µs ±5 … · ☃".encode("ascii", "in-ascii") == b"899 us +-5 ... - \\u2603"
