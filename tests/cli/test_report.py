"""``trio-echo report``: runs added up, and everything else refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, Protocol

import pytest
from reports import drawn, made

from trio_echo.cli import main
from trio_echo.prober.document import to_json

if TYPE_CHECKING:
    from pathlib import Path

EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}


@dataclass(frozen=True, slots=True)
class Done:
    """How the command ended and what it printed."""

    code: object
    out: str
    err: str


class Report(Protocol):
    """Runs the command to its end."""

    def __call__(self, *arguments: str | Path) -> Done:
        """Run it with these arguments."""


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """The command, run in this process: a test runs it often, and starting takes a second."""

    def run(*arguments: str | Path) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(["report", *map(str, arguments)])
        return Done(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Four runs of 600 connections, none of which knows."""
    paths = []
    for number in range(4):
        names = drawn(EIGHTY_TWENTY, 600, number)
        path = tmp_path / f"{number}.json"
        path.write_text(to_json(made(names, run=f"{number}", expect=EIGHTY_TWENTY)))
        paths.append(path)
    return paths


def test_runs_add_up_to_a_verdict(report: Report, runs: list[Path], tmp_path: Path) -> None:
    """One verdict, one picture, and one object that can be added up again."""
    assert report(runs[0]).code == 3
    both = tmp_path / "both.json"
    assert report(*runs[:2], "--json", both).code == 3
    done = report(both, *runs[2:], "--svg", tmp_path / "all.svg", "--json", "-")
    assert done.code == 0
    assert done.err.startswith("PASS: ")
    assert "2400 connections" in done.err
    document = json.loads(done.out)
    assert {run["tag"] for run in document["runs"]} == {"0", "1", "2", "3"}
    assert (tmp_path / "all.svg").read_text().startswith("<svg ")


def test_what_cannot_be_added_up_is_refused(
    report: Report, runs: list[Path], tmp_path: Path
) -> None:
    """By the name of the file, with exit code 2."""
    other = tmp_path / "other.json"
    other.write_text(to_json(made(["one"], run="other", expect={"one": 1})))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for arguments, words in (
        ([runs[0], other], f"{other}: expects shares"),
        ([runs[0], runs[0]], f"{runs[0]}: given twice"),
        ([broken], f"{broken}: not a report of trio-echo"),
        (["a\0b"], r"a\x00b: embedded null byte"),
        ([tmp_path / "missing.json"], f"{tmp_path / 'missing.json'}: No such file or directory"),
        ([runs[0], "--junit", tmp_path], f"--junit: cannot write '{tmp_path}'"),
    ):
        done = report(*arguments)
        assert done.code == 2
        assert words in done.err
        assert done.err.count("\n") == 1
    assert report().code == 2


def test_standard_input_is_a_file_as_well(
    report: Report, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in ``probe --json - ... | report - other.json``; once, since it is gone then."""

    def piped(*arguments: str | Path) -> Done:
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(runs[0].read_bytes())))
        return report(*arguments)

    assert piped("-", *runs[1:]).code == 0
    assert piped("-").code == 3
    twice = piped("-", "-")
    assert twice.code == 2
    assert twice.err == "trio-echo: standard input: given twice\n"


def test_verdict_in_a_file_is_not_believed(report: Report, tmp_path: Path) -> None:
    """A file that says PASS of 163 to 0, where 50/50 was expected, is a FAIL."""
    path = tmp_path / "forged.json"
    failed = json.loads(to_json(made(["one"] * 163, expect={"one": 50, "two": 50})))
    path.write_text(json.dumps(failed | {"verdict": "PASS", "headline": "PASS: all is well"}))
    done = report(path)
    assert done.code == 1
    assert done.out.startswith("FAIL: ")
