"""``trio-echo report``: runs added up, and everything else refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, Protocol

import pytest
from reports import drawn, made

from trio_echo.cli import main
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.document import several_json, to_json

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


def test_report_of_a_rehearsal_with_several_parts_is_named(report: Report, tmp_path: Path) -> None:
    """It has an expectation for each, and is not damaged."""
    several = {str(n): made(["one"], run=str(n), expect={"one": 1}) for n in range(3)}
    walked: dict[str, object] = {}
    for walk, words in (
        (walked, "was written by rehearse --shift and holds 3 expectations, one for each step;"),
        (None, "was written by rehearse and holds 3 expectations, one for each route;"),
    ):
        path = tmp_path / "s.json"
        path.write_text(several_json(several, walk=walk))
        done = report(path)
        assert done.code == 2
        assert f"{path}: {words}" in done.err
        assert "report adds up runs of one" in done.err


def test_what_cannot_be_added_up_is_refused(
    report: Report, runs: list[Path], tmp_path: Path
) -> None:
    """By the name of the file, with exit code 2."""
    other = tmp_path / "other.json"
    other.write_text(to_json(made(["one"], run="other", expect={"one": 1})))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    both, named_so = tmp_path / "both", tmp_path / "both: report 1"
    both.write_text(runs[0].read_text() + runs[1].read_text())
    named_so.write_text(runs[2].read_text())
    for arguments, words in (
        ([runs[0], other], f"{other}: expects shares"),
        ([runs[0], runs[0]], f"{runs[0]}: given twice"),
        ([both, named_so], f"{named_so}: two reports are called so: rename a file"),
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


@pytest.fixture
def piped(report: Report, runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> Report:
    """The command with the logs of these runs at its standard input."""

    def run(*arguments: str | Path) -> Done:
        logs = "".join(f"starting\n{path.read_text()}" for path in runs)
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(logs.encode())))
        return report(*arguments)

    return run


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


def test_logs_are_added_up_and_a_missing_pod_is_no_pass(piped: Report) -> None:
    """As in ``kubectl logs ... | report --runs 4 -``."""
    assert piped("-", "--runs", "4").code == 0
    done = piped("-", "--runs", "5")
    assert done.code == 4
    assert done.out.startswith("COULD NOT MEASURE")
    assert done.out.count("4 complete runs were found, and --runs asks for 5") == 1
    assert "80 %" in done.out
    document = json.loads(piped("-", "--runs=5", "--json=-").out)
    assert document["notices"] == ["4 complete runs were found, and --runs asks for 5"]
    # What those that are there prove holds, whatever the others say.
    assert piped("-", "--runs=5", "--expect=one=20,two=80").code == 1


def test_interrupted_run_counts_but_is_not_complete(piped: Report, runs: list[Path]) -> None:
    """An evicted pod's connections were made; the pod in its place is the one to wait for."""
    cut = runs[3].read_text().replace('"interrupted": false', '"interrupted": true')
    runs[3].write_text(cut)
    done = piped("-", "--runs", "3")
    assert done.code == 0
    assert "2400 connections" in done.out
    assert "report 4: was interrupted after 600 connections" in done.out
    assert piped("-", "--runs", "4").code == 4


def test_what_is_left_out_is_said(piped: Report, runs: list[Path], tmp_path: Path) -> None:
    """A copy changes nothing; half a report may hide anything."""
    runs.append(runs[0])
    done = piped("-")
    assert done.code == 0
    assert done.err == "note: standard input: report 5: the same run again, which counts once\n"
    runs[4] = tmp_path / "cut.json"
    runs[4].write_text(runs[0].read_text()[:1000] + "\n")
    done = piped("-")
    assert done.code == 4
    assert "standard input: 1 of its reports cut off or damaged" in done.out


def test_runs_that_expected_nothing_are_judged_by_the_sum(report: Report, tmp_path: Path) -> None:
    """Each pod measures, and one sample is judged; a failed connection fails it."""
    paths = []
    for number in range(4):
        results = drawn(EIGHTY_TWENTY, 600, number)
        paths.append(tmp_path / f"{number}.json")
        paths[number].write_text(to_json(made(results, run=f"{number}")))
    assert report(*paths).code == 0
    assert report(*paths).out.startswith("MEASURED: ")
    assert report(*paths, "--expect", "one=80,two=20").out.startswith("PASS: ")
    assert report(*paths, "--expect=one=50", "--expect=two=50").code == 1
    assert report(*paths, "--expect=one=80,two=20", "--margin=0.01").code == 3
    tolerant = report(
        *paths, "--expect=one=77,two=23", "--margin=0.1", "--tolerance=0.04", "--alpha=0.01"
    )
    assert tolerant.code == 0
    failed = made([*drawn(EIGHTY_TWENTY, 600, 3), Result(Outcome.RESET)], run="3")
    paths[3].write_text(to_json(failed))
    assert report(*paths, "--expect=one=80,two=20").code == 1
    assert report(*paths, "--expect=one=80,two=20", "--max-errors=1").code == 0


def test_settings_that_cannot_work_are_refused(report: Report, runs: list[Path]) -> None:
    """By the option."""
    for option, words in (
        ("--runs=0", "--runs: must be 1 or more, got 0"),
        ("--max-errors=-1", "--max-errors: must be 0 or more, got -1"),
        ("--margin=0.1", "--expect: must be given too, for --margin, --tolerance and --alpha"),
    ):
        done = report(*runs, option)
        assert done.code == 2
        assert done.err == f"trio-echo: {words}\n"
