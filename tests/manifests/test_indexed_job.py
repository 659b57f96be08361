"""The indexed Job: its pods measure, and the page's last command judges the sum."""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from backends import backend, drawing
from kustomized import container, pick, render
from processes import run
from reports import drawn, made

from trio_echo.prober.config import parse_expectation
from trio_echo.prober.document import to_json
from trio_echo.prober.split import Expectation, connections_needed

if TYPE_CHECKING:
    import subprocess

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


def judge() -> list[str]:
    """What the page pipes the logs into."""
    [command] = re.findall(r"\| trio-echo (report .*)", PAGE.read_text(encoding="utf-8"))
    return shlex.split(command)


def test_the_pods_together_make_enough_connections() -> None:
    """As many as a right split needs, for what the page and the single Job expect."""
    job = pick(render("probe/indexed"), "Job")["spec"]
    single = container(pick(render("probe"), "Job"))["args"]
    [each] = [int(arg[14:]) for arg in container({"spec": job})["args"] if "--connections" in arg]
    expected = parse_expectation("expect", [judge()[judge().index("--expect") + 1]])
    alone = [arg.removeprefix("--expect=") for arg in single if arg.startswith("--expect=")]

    assert expected == parse_expectation("expect", alone)
    assert job["completions"] * each >= connections_needed(Expectation(expected))
    assert judge()[judge().index("--runs") + 1] == str(job["completions"])


def test_no_part_is_tried_again_until_chance_says_yes() -> None:
    """An evicted pod is replaced; whatever else ends one fails its index, not the others."""
    job = pick(render("probe/indexed"), "Job")["spec"]
    args = container({"spec": job})["args"]

    assert job["completionMode"] == "Indexed"
    assert (job["backoffLimitPerIndex"], "backoffLimit" in job) == (0, False)
    rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"]}
    assert rules["Ignore"]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert rules["FailJob"]["onExitCodes"]["values"] == [2]
    assert not any(arg.startswith(("--expect", "--max-errors")) for arg in args)


async def test_the_logs_of_the_pods_add_up_to_the_verdict() -> None:
    """A pod ends with 0; their lines arrive mixed, as ``kubectl logs --prefix`` has them."""
    job = pick(render("probe/indexed"), "Job")
    weights = {"one": 80.0, "two": 20.0}
    # One is run; starting more would show nothing else.
    said = [
        to_json(made(drawn(weights, 600, seed), run=f"{seed}"))
        for seed in range(1, job["spec"]["completions"])
    ]
    async with backend(drawing(weights, seed=1)) as target:
        done = await run("probe", target, *container(job)["args"][1:])
    assert done.returncode == 0, done
    assert len(done.stdout) < 16_384  # where container runtimes cut a line in two
    said.append(done.stderr.decode() + done.stdout.decode())
    whole = await report(said)
    assert whole.returncode == 0, whole
    assert "4800 connections in " in whole.stdout.decode()
    missing = await report(said[1:])
    assert missing.returncode == 4, missing
    assert "7 complete runs were found, and --runs asks for 8" in missing.stdout.decode()


async def report(said: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run the page's command on what pods said, the lines mixed, each pod's in their order."""
    lines = [iter(text.splitlines(keepends=True)) for text in said]
    turns = [pod for pod, text in enumerate(said) for _ in text.splitlines()]
    random.Random(1).shuffle(turns)  # noqa: S311 - a shuffle with a fixed seed, no secret
    logs = "".join(f"[pod/tcp-echo-probe-{pod}-x2k4j/probe] {next(lines[pod])}" for pod in turns)
    return await run(*judge(), stdin=logs.encode())
