"""What commands tell GitHub: annotations, the step's summary, and its outputs."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from github_runner import obeyed
from manifest_texts import ISTIO
from reports import drawn, made

from trio_echo.cli import main
from trio_echo.cli.logs import LogFormat, LogLevel, logging_to
from trio_echo.cli.output import Output
from trio_echo.log import Log
from trio_echo.prober.document import to_json

if TYPE_CHECKING:
    from pathlib import Path

EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}


class Step:
    """A step of a job, in a folder of the checked-out repository.

    Attributes:
        folder: where it runs.
        files: where it tells its summary and its outputs.
    """

    def __init__(self, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = workspace / "deploy"
        self.folder.mkdir(parents=True)
        self.files = {
            name: workspace.with_name(name.lower())
            for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")
        }
        self._capsys = capsys

    @property
    def summary(self) -> str:
        """What it added to its summary."""
        return self._read("GITHUB_STEP_SUMMARY")

    @property
    def outputs(self) -> dict[str, str]:
        """Its outputs, the last of each name."""
        lines = self._read("GITHUB_OUTPUT").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def _read(self, name: str) -> str:
        return self.files[name].read_text() if self.files[name].exists() else ""

    def run(self, *arguments: str | Path) -> tuple[object, str, str]:
        """Run a command; return its exit code and what it printed."""
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        return ended.value.code, *self._capsys.readouterr()

    def report(self, *names: str, options: tuple[str, ...] = ()) -> tuple[object, str, str]:
        """Have a stored report judged, of connections that these backends answered."""
        path = self.folder / "report.json"
        path.write_text(to_json(made(names, expect=EIGHTY_TWENTY)))
        return self.run("report", path, *options)


@pytest.fixture
def step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Step:
    """A step with the environment that GitHub gives it."""
    workspace = tmp_path / "workspace"
    made_here = Step(workspace, capsys)
    monkeypatch.chdir(made_here.folder)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(workspace))
    for name, path in made_here.files.items():
        monkeypatch.setenv(name, str(path))
    return made_here


def test_a_split_that_is_wrong(step: Step) -> None:
    """An error beside the step, its numbers in the summary, and stdout for the document."""
    names = drawn({"one": 50, "two": 50}, 400, 1)
    code, out, err = step.report(*names, options=("--json", "-"))
    assert code == 1
    [command] = obeyed(err)
    assert (command.name, command.properties) == ("error", {"title": "trio-echo"})
    assert command.text.startswith("FAIL: ")
    assert json.loads(out)["verdict"] == "FAIL"
    assert step.outputs == {"verdict": "FAIL"}
    assert step.summary.startswith("### FAIL\\: ")
    assert "| one | 80 \\% |" in step.summary


def test_other_verdicts(step: Step) -> None:
    """A PASS is no annotation; of several commands in a step each adds to the summary."""
    code, out, err = step.report(*drawn({"one": 80, "two": 20}, 3000, 1))
    assert (code, obeyed(out), err, step.outputs) == (0, [], "", {"verdict": "PASS"})
    code, out, err = step.report("one", "two")
    assert code == 3
    [command] = obeyed(out + err)
    assert command.name == "warning"
    assert step.outputs == {"verdict": "INCONCLUSIVE"}
    assert step.summary.count("### ") == 2


def test_the_option_decides(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """It turns all of that off there, and on elsewhere, with or without GitHub's files."""
    names = drawn({"one": 50, "two": 50}, 400, 1)
    _, _, err = step.report(*names, options=("--no-github",))
    assert not obeyed(err)
    code, _, err = step.run("report", "missing.json", "--no-github")
    assert (code, obeyed(err), step.summary, step.outputs) == (2, [], "", {})
    for name in ("GITHUB_ACTIONS", "GITHUB_WORKSPACE", *step.files):
        monkeypatch.delenv(name)
    _, _, err = step.report(*names)
    assert not obeyed(err)
    _, _, err = step.report(*names, options=("--github",))
    assert len(obeyed(err)) == 1


def test_what_is_wrong_with_a_manifest(step: Step) -> None:
    """At its file, as the repository names it, and its line, also from a folder within."""
    (step.folder / "route.yaml").write_text(ISTIO.replace("weight: 80", "wieght: 80"))
    code, _, err = step.run("rehearse", "route.yaml")
    assert code == 2
    [command] = obeyed(err)
    lines = (step.folder / "route.yaml").read_text().splitlines()
    assert "wieght" in lines[int(command.properties["line"]) - 1]
    assert command.properties["file"] == "deploy/route.yaml"
    assert "wieght" in command.text
    assert step.outputs == {"verdict": "UNMEASURED"}
    assert "wieght" in step.summary


def test_a_rehearsal(step: Step) -> None:
    """What the data plane does in silence is a warning, and stands in the summary."""
    more = "---\napiVersion: x/v1\nkind: EnvoyFilter\nmetadata: {name: f}\n"
    (step.folder / "route.yaml").write_text(f"{ISTIO}{more}")
    code, out, err = step.run("rehearse", "route.yaml", "--margin=0.2", "--alpha=0.01")
    assert code == 0
    commands = obeyed(out + err)
    assert {command.name for command in commands} == {"warning"}
    assert "EnvoyFilter f" in commands[0].text
    assert commands[0].properties["file"] == "deploy/route.yaml"
    assert int(commands[0].properties["line"]) > 1
    assert step.outputs == {"verdict": "PASS"}
    assert "EnvoyFilter f" in step.summary


def test_a_warning_at_its_place(step: Step, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the repository holds the file."""
    (step.folder / "route.yaml").touch()
    warning = "VirtualService a: spec.tcp[0]: leads nowhere"
    Output(github=True).warn_github(warning, "route.yaml", 7)
    Output(github=True).warn_github(warning, "elsewhere.yaml", 7)
    here, elsewhere = obeyed(capsys.readouterr().err)
    assert here.text == warning
    assert here.properties == {"file": "deploy/route.yaml", "line": "7", "title": "trio-echo"}
    assert elsewhere.properties == {"title": "trio-echo"}


@pytest.mark.parametrize(
    "arguments", [("probe", "nowhere"), ("report", "missing.json"), ("rehearse", "missing.yaml")]
)
def test_what_is_wrong_elsewhere(step: Step, arguments: tuple[str, ...]) -> None:
    """Without a file where the repository holds none."""
    code, _, err = step.run(*arguments)
    assert code == 2
    [command] = obeyed(err)
    assert (command.name, command.properties) == ("error", {"title": "trio-echo"})
    assert command.text in err.splitlines()[0]


def test_names_give_no_orders(step: Step) -> None:
    """Neither in words nor in a document on stdout, whatever the option says."""
    order = "::set-output name=verdict::PASS"
    old = "##[set-output name=verdict]PASS"
    for options in ((), ("--no-github",), ("--json", "-"), ("--junit", "-"), ("--svg", "-")):
        _, out, err = step.report(order, old, "one", options=options)
        assert {command.name for command in obeyed(out + err)} <= {"error"}
    assert step.report(order, options=("--json", "-"))[1].count(order) > 1


@pytest.mark.parametrize("log_format", LogFormat)
def test_what_clients_send_gives_no_orders(step: Step, log_format: LogFormat) -> None:
    """Nor does a log."""
    del step
    stream = StringIO()
    with logging_to(log_format, LogLevel.DEBUG, stream):
        Log(peer="##[error]").warning("::error::")
    assert "error" in stream.getvalue()
    assert not obeyed(stream.getvalue())


def test_lines_give_no_orders(
    step: Step, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a document that grows."""
    del step
    monkeypatch.setattr("trio_echo.cli.output._written", set())  # another test's stdout is open
    lines = Output(json="-").lines()
    assert lines is not None
    lines.write('{"name": "##[error]"}')
    out, _ = capsys.readouterr()
    assert json.loads(out) == {"name": "##[error]"}
    assert not obeyed(out)


def test_a_summary_that_cannot_be_written(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and changes no verdict."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step.folder))
    code, _, err = step.report(*drawn({"one": 80, "two": 20}, 3000, 1))
    assert code == 0
    assert "warning: GITHUB_STEP_SUMMARY: cannot write " in err
    assert step.outputs == {"verdict": "PASS"}
