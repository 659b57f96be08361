"""``trio-echo probe`` as a process: exit codes, files, signals, and what is seen meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
import trio
from backends import answering, backend, closed_port, drawing
from jsonschema import Draft202012Validator
from junitparser import JUnitXml
from processes import COMMAND, run, seen_on_a_terminal

from trio_echo.cli import main

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = json.loads(files("trio_echo.prober").joinpath("report.schema.json").read_text("utf-8"))
EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}
EXPECT = ("--expect", "one=80", "--expect", "two=20")


def valid(text: bytes | str) -> dict[str, Any]:
    """The one JSON object, held against the schema."""
    document: dict[str, Any] = json.loads(text)
    Draft202012Validator(SCHEMA).validate(document)
    return document


async def test_pass(tmp_path: Path) -> None:
    """Exit 0, the verdict first on stdout, progress on stderr, and all three files."""
    names = ("report.json", "report.xml", "report.svg")
    json_file, junit_file, svg_file = (tmp_path / name for name in names)
    async with backend(drawing(EIGHTY_TWENTY, seed=1)) as target:
        outputs = ("--json", json_file, "--junit", junit_file, "--svg", svg_file)
        done = await run("probe", target, *EXPECT, *outputs)
    assert done.returncode == 0
    out, err = done.stdout.decode(), done.stderr.decode()
    assert out.startswith(f"PASS: {target} splits as expected: one 80 %, two 20 %\n")
    assert f"probing {target}\n" in err
    assert "\x1b" not in out + err
    assert valid(json_file.read_bytes())["verdict"] == "PASS"
    assert JUnitXml.fromfile(str(junit_file)).tests in (1, None)
    assert svg_file.read_text().startswith("<svg ")


@pytest.mark.parametrize(
    ("weights", "options", "code", "words"),
    [
        ({"one": 50.0, "two": 50.0}, EXPECT, 1, "FAIL: "),
        (EIGHTY_TWENTY, (*EXPECT, "--connections", "50"), 3, "INCONCLUSIVE: "),
        (EIGHTY_TWENTY, ("--connections", "50"), 0, "MEASURED: "),
        ({"": 1.0}, ("--expect", "=100"), 0, "PASS: "),
        ({"a=b": 1.0}, ("--expect", "a=b=100%", "--lines", "2"), 0, "PASS: "),
        ({"a,b": 1.0}, ("--expect", "a,b=1"), 0, "PASS: "),
        (EIGHTY_TWENTY, ("--expect", "one=80,two=20%", "--margin", "0.1"), 0, "PASS: "),
    ],
)
async def test_verdicts(
    weights: dict[str, float], options: tuple[str, ...], code: int, words: str
) -> None:
    """Each with its exit code and its first word."""
    async with backend(drawing(weights, seed=1)) as target:
        done = await run("probe", target, *options)
    assert done.returncode == code
    assert done.stdout.decode().startswith(words)


async def test_any_protocol(tmp_path: Path) -> None:
    """What is sent, what names a backend, and the same in the report."""

    async def greeting(stream: trio.abc.Stream) -> None:
        assert await stream.receive_some() == b"\0who\xff\r\n"
        await stream.send_all(b"I am one\r\n")

    path = tmp_path / "report.json"
    asking = ("--send", r"\0who\xff\r\n", "--identify", r"am (\w+)", "--proxy-protocol", "v1")

    async def behind_a_header(stream: trio.abc.Stream) -> None:
        header = b""
        while not header.endswith(b"\r\n"):
            header += await stream.receive_some(1)
        assert header.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
        await greeting(stream)

    async with backend(behind_a_header) as target:
        done = await run("probe", target, *asking, "--expect", "one=1", "--json", path)
    assert done.returncode == 0
    assert valid(path.read_bytes())["runs"][0]["asked"] == {
        "send": r"\0who\xff\r\n",
        "identify": r"am (\w+)",
        "proxy_protocol": "v1",
    }


async def test_could_not_measure() -> None:
    """Exit 4, with the reason, the hint, and a valid object on stdout alone."""
    sock, target = closed_port()
    with sock:
        done = await run("probe", target, *EXPECT, "--json", "-", "--wait", "0.2")
    assert done.returncode == 4
    assert valid(done.stdout)["outcomes"]["refused"] == 1
    assert b"COULD NOT MEASURE" in done.stderr
    assert b"no answer within 0.2 s; the last try: Connection refused" in done.stderr
    assert b"waiting for a first answer" in done.stderr


async def test_descriptors_run_out() -> None:
    """A low limit on open files is this machine's trouble: exit 4, and what to do."""

    async def holding(stream: trio.abc.Stream) -> None:
        await trio.sleep(0.2)
        await answering(stream, "one")

    script = f'ulimit -n 40; exec "{COMMAND}" probe "$@"'
    async with backend(holding) as target:
        done = await trio.run_process(
            ["sh", "-c", script, "sh", target, "--expect", "one=1", "-c", "100"],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 4
    assert b"local (Too many open files, out of descriptors" in done.stdout
    assert b"ulimit -n" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """A signal ends it with 130; what was found by then is printed and written."""
    path = tmp_path / "report.json"
    enough = trio.Event()
    count = 0

    async def counting(stream: trio.abc.Stream) -> None:
        nonlocal count
        count += 1
        if count == 20:
            enough.set()
        await answering(stream, "one")

    async with backend(counting) as target, trio.open_nursery() as nursery:
        command = [COMMAND, "probe", target, "--rate", "100", "--json", str(path)]
        process: trio.Process = await nursery.start(
            partial(trio.run_process, command, capture_stdout=False, check=False)
        )
        await enough.wait()
        process.send_signal(number)
        with trio.fail_after(10):
            assert await process.wait() == 130
    document = valid(path.read_bytes())
    assert document["interrupted"]
    assert document["headline"].startswith("INTERRUPTED")
    assert document["verdict"] is None
    assert document["connections"] > 10


@pytest.mark.skipif(sys.platform != "linux", reason="a closed terminal ends otherwise elsewhere")
async def test_terminal_shows_bars() -> None:
    """Bars while it runs, wiped at the end; the verdict in colour."""
    async with backend(drawing(EIGHTY_TWENTY, seed=1)) as target:
        shown = await seen_on_a_terminal(
            "probe", target, *EXPECT, "--rate", "300", "--margin", "0.1"
        )
    assert "█" in shown
    assert "░" in shown
    assert "┃" in shown
    assert re.search(r"\d+ of at most \d+ connections, \d+ % in \d+ ", shown)
    assert "\x1b[1;32mPASS: " in shown


async def test_terminal_without_colour() -> None:
    """NO_COLOR is honoured: bars and verdict are there, colours are not."""
    async with backend(drawing({"one": 50, "two": 50}, seed=1)) as target:
        shown = await seen_on_a_terminal(
            "probe", target, *EXPECT, "--rate", "100", environment={"NO_COLOR": "1"}
        )
    assert "FAIL: " in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)


async def test_terminal_that_knows_ascii_only() -> None:
    """Where the encoding has no blocks, bars are made of what it has."""
    async with backend(drawing({"one": 50, "two": 50}, seed=1)) as target:
        shown = await seen_on_a_terminal(
            "probe",
            target,
            *EXPECT,
            "--rate",
            "100",
            environment={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        )
    assert "#" in shown or "+" in shown
    assert "█" not in shown
    assert re.search(" [0-9.]+ [mu]s", shown)
    assert "\\xb" not in shown


async def test_log_says_a_line_now_and_then() -> None:
    """Without a terminal, plain lines: one at once, then one every two seconds."""
    flaky = iter([True])

    async def mostly(stream: trio.abc.Stream) -> None:
        if not next(flaky, False):
            await answering(stream, "one")

    async with backend(mostly) as target:
        done = await run("probe", target, "--rate", "40", "--duration", "2.3")
    *_, first, then, again = done.stderr.decode().splitlines()
    assert first == f"probing {target}"
    assert re.fullmatch(r"\d+ connections to .*: one 9\d\.\d %, (eof-before-answer|reset) 1", then)
    assert again == f"looking for the cause with some more connections to {target}"
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["localhost"], "HOST:PORT: must be HOST:PORT, such as localhost:9000, got 'localhost'"),
        (["x:1", "--expect", "one"], "--expect: must be NAME=WEIGHT, such as one=80, got 'one'"),
        (["x:1", "--expect", "one=x"], "--expect: must be NAME=WEIGHT"),
        (["x:1", "--expect", "one=80,two"], "--expect: must be NAME=WEIGHT"),
        (["x:1", "--expect", "one=8,one=2"], "--expect: names 'one' twice"),
        (["x:1", "--margin", "0.01"], "--expect: must be given too, for --margin, --tolerance"),
        (["x:1", "--margin", "0.1", "--tolerance", "0.1"], "--tolerance: must be 0 or more and"),
        (["http://x:1/"], "HOST:PORT: must be HOST:PORT without scheme and path: x:1; got"),
        (["x:1", "--expect", "one=1", "--expect", "one=2"], "--expect: names 'one' twice"),
        (["x:1", "--expect", "one=-1"], "--expect: 'one' must have a weight of 0 or more"),
        (["x:1", "--expect", "one=0"], "--expect: at least one backend"),
        (["x:1", "--connections", "0"], "--connections: must be more than 0, got 0"),
        (["x:1", "--connections", "x"], "--connections: must be a whole number, got 'x'"),
        (["x:1", "--margin", "5"], "--margin: must be more than 0 and less than 1, got 5"),
        (["x:1", "--tls-key", "k.pem"], "--tls-key: needs --tls-cert"),
        (["x:1", "--tls-ca", "missing.pem"], "--tls-ca: cannot use missing.pem: No such file"),
        (["x:1", "--sni", "a", "--half-close"], "--half-close: cannot go with TLS"),
        (["x:1", "--json", "/nowhere/report.json"], "--json: cannot write '/nowhere/report.json'"),
        (["x:1", "--svg", "/"], "--svg: cannot write '/'"),
        (["x:1", "--send", "x"], "--send: needs --identify, which finds the name in the answer"),
        (
            ["x:1", "--send", "\\q", "--identify", "(x)"],
            r"--send: must have \r \n \t \0",
        ),
        (["x:1", "--identify", "x"], "--identify: must have a group around the name, such as"),
        (["x:1", "--identify", "("], "--identify: is no expression of RE2: missing ), got '('"),
        (["x:1", "--identify", "(x)", "--lines", "2"], "--lines: cannot go with --identify"),
        (["x:1", "--identify", "(x)", "--half-close"], "--half-close: cannot go with --identify"),
        (["x:1", "--identify", "(x)", "--payload-size", "50"], "--payload-size: cannot go with"),
        (["x:1", "--identify", "(x)", "--identify-cert", "cn"], "--identify-cert: cannot go with"),
        (
            ["x:1", "--identify-cert", "cn", "--lines", "2"],
            "--lines: cannot go with --identify",
        ),
        (["x:1", "--identify-cert", "cn", "--half-close"], "--half-close: cannot go with TLS"),
        (
            ["x:1", "--identify-cert", "dn"],
            "must be cn, san, serial or sha256, got 'dn'",
        ),
        (["x:1", "--proxy-protocol", "v3"], "--proxy-protocol: must be v1 or v2, got 'v3'"),
        ([], "Missing argument 'HOST:PORT'"),
    ],
)
def test_bad_input_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """Exit 2, one line that names the option; never a traceback."""
    with pytest.raises(SystemExit) as ended:
        main(["probe", *arguments])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err.splitlines()[-1]


@pytest.mark.parametrize("options", [(), ("--json", "-")])
async def test_reader_who_leaves_gets_no_verdict(options: tuple[str, ...]) -> None:
    """A result that nobody could read is neither PASS nor FAIL."""
    async with backend(drawing({"one": 1.0}, seed=1)) as target:
        reading, writing = os.pipe()
        os.close(reading)
        command = [COMMAND, "probe", target, "--expect", "one=1", *options]
        done = await trio.run_process(command, stdout=writing, stderr=writing, check=False)
        os.close(writing)
    assert done.returncode == 4


async def test_file_that_cannot_be_written_after_all() -> None:
    """A full disk comes to light at the end: said, after the verdict was printed."""
    async with backend(drawing(EIGHTY_TWENTY, seed=1)) as target:
        done = await run("probe", target, "--connections", "5", "--json", "/dev/full")
    assert done.returncode == 4
    assert done.stdout.startswith(b"MEASURED")
    assert b"--json: cannot write '/dev/full': No space left on device" in done.stderr
