"""What every command has in common: the version, the help, and how it ends."""

from __future__ import annotations

import sys
from importlib.metadata import version

import pytest

from trio_echo.cli import main


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


def test_ctrl_c_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no signal handler is in place yet, here while manifests are typed in."""

    class Typing:
        def read(self) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Typing())
    assert ended("rehearse", "-") == 130


def test_a_fault_of_our_own_is_not_called_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its traceback, also where it comes with bad input in one group."""

    async def fail(_: object) -> int:
        raise ExceptionGroup("", [ZeroDivisionError()])

    # By its module: the name in the package is that of the command.
    monkeypatch.setattr(sys.modules["trio_echo.cli.serve"], "_serve_until_signalled", fail)
    with pytest.RaisesGroup(ZeroDivisionError):
        main(["serve", "0", "one"])
