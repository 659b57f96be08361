"""The image, built once for all tests of this folder, and what it runs in.

``nox -s container`` prepares the inputs, which need a network, and then runs these
tests without one.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kustomized import container, pick, render
from podman import NETWORK, SUBNET, Podman

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = "localhost/base"


@pytest.fixture(scope="session")
def inputs() -> Path:
    """The folder with the base image and the wheels."""
    if "TRIO_ECHO_IMAGE_INPUTS" not in os.environ:
        pytest.fail("nox -s container prepares what these tests need, and runs them")
    return Path(os.environ["TRIO_ECHO_IMAGE_INPUTS"])


def ip(*arguments: str) -> str:
    """Run ``ip`` and return what it prints."""
    command = ["ip", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def podman(inputs: Path) -> Iterator[Podman]:
    """A podman with nothing in it but the base image and a network."""
    assert not ip("address", "show", "up"), "not in a network namespace of its own"
    ip("link", "set", "lo", "up")
    # Not below pytest's own folders: sockets and overlays want a short path.
    with tempfile.TemporaryDirectory(prefix="te-", dir="/var/tmp") as place:
        podman = Podman(Path(place))
        try:
            podman.run("podman", "import", "--quiet", inputs / "base.tar", BASE)
            options = ("--disable-dns", f"--subnet={SUBNET}")
            podman.run("podman", "network", "create", *options, NETWORK)
            yield podman
        finally:
            podman.end()


@pytest.fixture(scope="session")
def image(podman: Podman, inputs: Path) -> str:
    """The real image from the real Containerfile, under the name that the manifests use."""
    name: str = container(pick(render("base"), "Deployment", "tcp-echo-v1"))["image"]
    podman.build(inputs / "wheels", BASE, name)
    return name
