"""The GitHub action: its scripts, run as the runner runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hostile import hostile_text
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
ACTION = ROOT / "action.yml"

pytestmark = pytest.mark.skipif(not ACTION.exists(), reason="the tests run without the clone")

SAY = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
Path(os.environ["RUNNER_TEMP"], "said").open("a").write(json.dumps(sys.argv[1:]) + "\\n")
"""
"""Writes down what it was called with."""

OPTIONS = ("expect", "weights", "shift", "margin", "connections", "json", "junit", "svg")


def action() -> Any:
    """The action, read."""
    return yaml.safe_load(ACTION.read_text(encoding="utf-8"))


class Runner:
    """Runs the action's steps.

    Attributes:
        temp: the runner's folder for temporary files.
    """

    def __init__(self, temp: Path) -> None:
        self.temp = temp
        self.bin = temp / "trio-echo" / "bin"

    def program(self, path: Path, text: str = SAY) -> None:
        """Put a program somewhere."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def step(self, number: int, inputs: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run one step, with GitHub's own way to call bash."""
        given = {name: each["default"] for name, each in action()["inputs"].items()} | dict(inputs)
        step = action()["runs"]["steps"][number]
        variables = {
            name: given[re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", value)[1]]  # type: ignore[index]  # it is one
            for name, value in step["env"].items()
        }
        script = self.temp / "script.sh"
        script.write_text(step["run"])
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],  # noqa: S607 - the PATH's
            env={
                "PATH": os.environ["PATH"],
                "RUNNER_TEMP": str(self.temp),
                "GITHUB_ACTION_PATH": "/the/action",
                **variables,
            },
            capture_output=True,
            check=False,
            text=True,
        )

    def said(self) -> list[list[str]]:
        """What programs were called with."""
        path = self.temp / "said"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A runner, with the command installed."""
    made = Runner(tmp_path)
    made.program(made.bin / "trio-echo")
    return made


def test_no_input_is_part_of_a_script() -> None:
    """Each comes as a variable, and each is there."""
    steps = action()["runs"]["steps"]
    assert not [step for step in steps if "${{" in step["run"]]
    used = re.findall(r"inputs\.(\w+)", json.dumps([step["env"] for step in steps]))
    assert sorted(used) == sorted(action()["inputs"])


def test_what_is_run(runner: Runner) -> None:
    """Options that were given, then other words, then places; nothing for what is empty."""
    runner.step(1, {"manifests": "deploy/\n\nmy route.yaml\n", "shift": "100/0,0/100"})
    runner.step(1, {"command": "probe", "target": "gateway:9", "args": "--tls\n--timeout=2\n"})
    runner.step(1, {})
    assert runner.said() == [
        ["rehearse", "--shift=100/0,0/100", "--", "deploy/", "my route.yaml"],
        ["probe", "--tls", "--timeout=2", "--", "gateway:9"],
        ["rehearse", "--"],
    ]
    refused = runner.step(1, {"command": "serve"})
    assert (refused.returncode, runner.said()) == (2, [])
    assert "must be rehearse or probe" in refused.stdout


def words() -> st.SearchStrategy[str]:
    """Inputs that a shell would obey, and that no variable of a process refuses."""
    pieces = st.sampled_from(
        ("$(exit 9)", "`exit 9`", "; exit 9", "'", '"', "-", "*", "\\", "$HOME")
    )
    text = st.lists(pieces | hostile_text(), max_size=3).map("".join)
    return text.filter(lambda each: not set(each) & {"\n", "\0", "\ud800"})


@examples(0.06)
@given(values=st.fixed_dictionaries({name: words() for name in (*OPTIONS, "manifests", "args")}))
def test_inputs_are_data(tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]) -> None:
    """Whatever an input holds arrives as one word, and does nothing else."""
    runner = Runner(tmp_path_factory.mktemp("runner"))
    runner.program(runner.bin / "trio-echo")
    done = runner.step(1, values)
    assert (done.returncode, done.stderr) == (0, "")
    options = [f"--{name}={values[name]}" for name in OPTIONS if values[name]]
    args, manifests = ([each] if each else [] for each in (values["args"], values["manifests"]))
    assert runner.said() == [["rehearse", *options, *args, "--", *manifests]]


def test_the_verdict_of_the_command_is_that_of_the_step(runner: Runner) -> None:
    """Its exit code passes through."""
    runner.program(runner.bin / "trio-echo", "#!/bin/sh\nexit 3\n")
    assert runner.step(1, {}).returncode == 3


def test_the_package_comes_from_the_action(tmp_path: Path) -> None:
    """Into an environment of its own, once a job; an old Python is refused."""
    runner = Runner(tmp_path)
    python = tmp_path / "python"
    runner.program(python, f"{SAY}sys.exit('-c' in sys.argv)\n")
    refused = runner.step(0, {"python": str(python)})
    assert refused.returncode == 2
    assert "Python 3.11 or newer" in refused.stdout
    runner.said()
    runner.program(python)
    runner.program(runner.bin / "pip")
    assert runner.step(0, {"python": str(python)}).returncode == 0
    [_, venv, pip] = runner.said()
    assert venv == ["-m", "venv", str(runner.bin.parent)]
    assert pip == ["install", "--quiet", "/the/action[rehearse,identify]"]
    runner.program(runner.bin / "trio-echo")
    assert runner.step(0, {"python": "/nowhere"}).returncode == 0
    assert runner.said() == []
