"""What the image holds and how it runs, restricted as the manifests restrict it."""

from __future__ import annotations

import re
import socket
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from podman import ADMIN, ECHO
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podman import Container, Podman

BASE = "localhost/base"
ADMIN_ON = f"--admin-port={ADMIN}"


@pytest.fixture
def started(podman: Podman, image: str, request: pytest.FixtureRequest) -> Iterator[Container]:
    """A container with the arguments that the test asks for, ready to answer."""
    running = podman.start(image, *getattr(request, "param", ()))
    try:
        trio.run(running.until_listening, ECHO)
        yield running
    finally:
        running.remove()


def nc(address: str, data: bytes, port: int = ECHO) -> bytes:
    """What a user's own netcat prints."""
    command = ["nc", "-N", address, str(port)]
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=10).stdout


def kernel_status(running: Container) -> dict[str, str]:
    """What the kernel says of the container's first process."""
    text = Path(f"/proc/{running.pid}/status").read_text(encoding="utf-8")
    pairs = (line.partition(":\t") for line in text.splitlines())
    return {name: value for name, _, value in pairs}


def test_the_size_is_printed(
    podman: Podman, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most of it is the base's; what the package adds stays small."""
    whole, base = (podman.inspect(name)["Size"] for name in (image, BASE))

    with capsys.disabled():
        print(f"\nimage {image}: {whole / 1e6:.1f} MB, of which base {base / 1e6:.1f} MB")  # noqa: T201 - the size is to be seen
    assert 0 < whole - base < 60e6


def test_the_image_says_what_it_is(podman: Podman, image: str) -> None:
    """Entry point, user, stop signal and labels are those that it promises."""
    config = podman.inspect(image)["Config"]
    project = tomllib.loads(
        (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]

    assert config["Entrypoint"] == ["env", "--block-signal=TERM", "trio-echo", "serve"]
    assert config["Cmd"] == ["9000", "hello"]
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert [*config["ExposedPorts"]] == ["9000/tcp"]
    assert config["Labels"]["org.opencontainers.image.title"] == project["name"]
    assert config["Labels"]["org.opencontainers.image.version"] == project["version"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == project["license"]


def test_the_image_holds_nothing_that_it_does_not_need(podman: Podman, image: str) -> None:
    """No compiler, no installer of ours, no cache, no tests, nothing of the build."""
    created = podman.run("podman", "create", "--pull=never", image).out.strip()
    listing = f"podman export {created} | tar --list"
    paths = podman.run("sh", "-c", listing).out.splitlines()
    podman.run("podman", "rm", created)

    for package in ("trio_echo", "re2"):  # what --identify needs is there
        assert any(path.endswith(f"/site-packages/{package}/__init__.py") for path in paths)
    assert [path for path in paths if UNWANTED.search(f"/{path}")] == []


UNWANTED = re.compile(
    r"/(gcc|g\+\+|cc|c\+\+|clang|tcc|ld|as)(-[\d.]+)?$"
    r"|/\.cache/|^/wheels/|\.whl$"
    r"|^/opt/.*/(pip|setuptools|wheel)/"
    r"|^/opt/.*/_?tests?/|^/opt/.*/(test_[^/]*|conftest)\.py$"
)


def test_the_same_wheels_make_the_same_image(podman: Podman, image: str, inputs: Path) -> None:
    """Built again from nothing, every layer is the same, byte for byte."""
    podman.build(inputs / "wheels", BASE, "again:0", "--no-cache")

    layers = [podman.inspect(name)["RootFS"]["Layers"] for name in (image, "again:0")]

    assert layers[0] == layers[1]


def test_the_process_is_as_restricted_as_a_process_can_be(started: Container) -> None:
    """As the kernel sees it: no root, no capability, none to gain, filtered system calls."""
    status = kernel_status(started)
    mounts = Path(f"/proc/{started.pid}/mountinfo").read_text(encoding="utf-8").splitlines()
    [root] = [fields for line in mounts if (fields := line.split())[4] == "/"]

    assert status["Uid"].split() == ["65532"] * 4
    assert status["Gid"].split() == ["65532"] * 4
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "ro" in root[5].split(",")


def test_nothing_in_it_needs_a_shell(started: Container) -> None:
    """The one process is Python's, and it is the first: signals reach it."""
    command = Path(f"/proc/{started.pid}/cmdline").read_bytes().split(b"\0")

    assert command[1:5] == [b"/opt/trio-echo/bin/trio-echo", b"serve", b"9000", b"hello"]
    assert kernel_status(started)["NSpid"].split()[-1] == "1"
    # What the entry point has blocked until Python ran is not blocked any more.
    assert int(kernel_status(started)["SigBlk"], 16) == 0


def test_without_arguments_it_says_hello(started: Container) -> None:
    """As the demonstration's image does."""
    assert nc(started.address, b"world\n") == b"hello world\n"


@pytest.mark.parametrize("started", [["9000,9001", "one"]], indirect=True)
def test_other_arguments_work(started: Container) -> None:
    """Two ports and another prefix, as in a manifest's ``args``."""
    assert nc(started.address, b"world\n") == b"one world\n"
    assert nc(started.address, b"a\r\nb", 9001) == b"one a\r\none b"


@pytest.mark.parametrize("started", [["9000", "one", ADMIN_ON]], indirect=True)
def test_the_admin_port_answers(started: Container) -> None:
    """Alive, ready, and counting."""
    nc(started.address, b"world\n")

    assert started.get("/livez")[0] == started.get("/readyz")[0] == 200
    status, text = started.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert status == 200
    assert sum(sample.value for sample in families["trio_echo_lines"].samples) == 1


@pytest.mark.parametrize("started", [["9000", "one", ADMIN_ON]], indirect=True)
def test_sigterm_drains_and_exits_0(started: Container) -> None:
    """A line that is half sent when the signal comes is still answered."""
    with socket.create_connection((started.address, ECHO), timeout=10) as client:
        client.sendall(b"first\nsec")
        assert client.recv(100) == b"one first\n"

        started.terminate()
        trio.run(started.until_status, "/readyz", 503)
        client.sendall(b"ond\n")

        assert client.recv(100) == b"one second\n"
        assert client.recv(100) == b""
    assert started.wait() == 0
    assert "Traceback" not in started.logs()


def test_the_probe_is_in_it_too(podman: Podman, image: str, started: Container) -> None:
    """The command that the Job runs, against a container beside it."""
    probe = ("podman", "run", "--rm", "--pull=never", "--network=cluster", "--read-only")
    target = f"{started.address}:{ECHO}"

    passed = podman.run(
        *probe, "--entrypoint=trio-echo", image, "probe", target, "--expect=hello=1"
    )
    failed = podman.run(
        *probe, "--entrypoint=trio-echo", image, "probe", target, "--expect=bye=1", check=False
    )

    assert "PASS" in passed.out
    assert failed.code == 1
    assert "FAIL" in failed.out
