"""The help of every command can be read."""

from __future__ import annotations

import re

import pytest

from trio_echo.cli import main

COMMANDS = ["serve", "probe", "report", "watch", "gate", "rehearse"]


def helped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints about itself, 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [(), *((name,) for name in COMMANDS)])
def test_help_fits_and_breaks_no_word(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines end between words, and nothing shows how the program is made."""
    shown = helped(monkeypatch, capsys, *words)
    assert max(map(len, shown.splitlines())) <= 80
    assert not re.search(r"<\w+|list\[|\]\.\.\.\]|\.\.\.$", shown)
    assert not re.search(r"\w-\n", shown)
    assert "\nExamples:\n  trio-echo " in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_options_stand_under_their_subjects(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is left over is the help itself."""
    shown = helped(monkeypatch, capsys, name)
    [others] = re.findall(r"\nOther options:\n((?:  .*\n)+)", shown)
    assert others.split() == ["-h,", "--help", "Show", "this", "message", "and", "exit."]
