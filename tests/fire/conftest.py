"""A network of its own for the tests of this folder, which need root.

``nox -s fire`` runs them so.
"""

from __future__ import annotations

import subprocess

import pytest


@pytest.fixture(scope="session", autouse=True)
def network() -> None:
    """Bring loopback up; there must be nothing else."""
    command = ["ip", "-brief", "link", "show", "up"]
    assert not subprocess.run(command, check=True, capture_output=True).stdout, (
        "not in a network namespace of its own: nox -s fire makes one"
    )
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # noqa: S607 - iproute2, from PATH
